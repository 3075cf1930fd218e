package sim

import "github.com/keelson-io/keelson/raft/vfs"

// Points are the places at which processes of a campaign must have been cut short:
// calls of the file system in which the power or the call fails, and states in
// which a crash finds the process. Phases say who can be there.
var Points = []string{
	// Where a process enters its directory.
	"stat /", "stat data", "mkdir data", "syncdir /", "syncdir data", "lock LOCK", "stat member", "mkdir member", "syncdir member",
	"open identity", "size identity", "read identity", "close identity",
	"remove identity.tmp", "create identity.tmp", "write identity.tmp", "sync identity.tmp", "close identity.tmp", "rename identity.tmp",
	"open members", "size members", "read members", "close members",
	"remove members.tmp", "create members.tmp", "write members.tmp", "sync members.tmp", "close members.tmp", "rename members.tmp",
	"open rebuild", "size rebuild", "remove rebuild.tmp", "create rebuild.tmp", "write rebuild.tmp", "sync rebuild.tmp", "close rebuild.tmp", "rename rebuild.tmp", "remove rebuild",
	// The database, and states that come from others.
	"stat snap", "mkdir snap", "list snap", "syncdir snap", "open db", "size db", "read db", "create db", "write db", "sync db", "close db", "rename db",
	"create received state", "write received state", "sync received state", "close received state", "rename received state", "remove received state",
	commitPoint,
	// The log.
	"stat wal", "mkdir wal", "list wal", "syncdir wal",
	"create next segment of the log", "preallocate next segment of the log", "write next segment of the log", "sync next segment of the log",
	"rename next segment of the log", "close next segment of the log",
	"open segment of the log", "read segment of the log", "truncate segment of the log", "write segment of the log", "sync segment of the log",
	"close segment of the log", "rename segment of the log", "remove segment of the log",
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
