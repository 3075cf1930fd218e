package sim

import (
	"slices"

	"github.com/keelson-io/keelson/raft/vfs"
)

// Points are the places at which processes of a campaign must have been cut short:
// calls of the file system in which the power or the call fails, and states in
// which a crash finds the process. Phases say who can be there.
var Points = []string{
	// Where the process enters its directory.
	"stat data", "mkdir data", "lock LOCK", "open identity", "size identity", "read identity", "close identity",
	"stat wal", "mkdir wal", "stat snap", "mkdir snap", "open rebuild",
	"open members", "size members", "read members", "close members",
	"open db", "size db", "read db", "close db",
	// The log.
	"list wal", "create next segment of the log", "preallocate next segment of the log", "write next segment of the log",
	"sync next segment of the log", "rename next segment of the log", "syncdir wal", "close next segment of the log",
	"open segment of the log", "read segment of the log", "truncate segment of the log", "write segment of the log",
	"sync segment of the log", "close segment of the log", "remove segment of the log",
	// Notes of the members, and states that come from others.
	"remove members.tmp", "create members.tmp", "write members.tmp", "sync members.tmp", "close members.tmp", "rename members.tmp", "syncdir member",
	"create received state", "write received state", "sync received state", "close received state", "rename received state", "syncdir snap",
	commitPoint,
	// States.
	"a write of the log is under way", "committed, not applied", "applied, not in the database", "a change of the membership is under way",
}

const commitPoint = "commit of the database"

// Phases are those of a process: without a node, and by the role of its node.
var Phases = []string{"first start", "recovery", "repair", "follower", "learner", "candidate", "leader"}

// pointPhase is the member's.
func (m *member) pointPhase() string {
	switch p := m.phase(); {
	case p != inService:
		return p
	case m.role.Learner:
		return "learner"
	case m.role.Role.String() == "pre-candidate":
		return "candidate"
	}
	return m.role.Role.String()
}

// cutShort notes that something failed at a point.
func (m *member) cutShort(point string) {
	n := m.s.stats.Points
	if n[point] == nil {
		n[point] = map[string]int{}
	}
	n[point][m.pointPhase()]++
}

// cutCall notes a call that fails.
func (m *member) cutCall(c vfs.Call) { m.cutShort(callName(c)) }

// cutState notes what a crash interrupts.
func (m *member) cutState() {
	if m.node == nil || m.repairing {
		return
	}
	store := m.node.Store()
	applied, _ := store.Applied()
	for point, holds := range map[string]bool{
		"a write of the log is under way":         m.writing,
		"committed, not applied":                  m.node.Node.Applies(),
		"applied, not in the database":            store.Durable() < applied,
		"a change of the membership is under way": m.s.changes.inFlight > 0,
	} {
		if holds {
			m.cutShort(point)
		}
	}
}

// MissingPoints are those that nothing was cut short at.
func (s *Stats) MissingPoints() []string {
	return slices.DeleteFunc(slices.Clone(Points), func(p string) bool { return len(s.Points[p]) > 0 })
}
