package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft"
	"github.com/keelson-io/keelson/server"
)

// Bounds of a cluster that changes.
const (
	spareMachines = 6
	mostMembers   = 7
)

// settleTime is how long after a change of unknown outcome it may still happen.
const settleTime = 10 * time.Second

// changing is what the operator does to the membership.
type changing struct {
	inFlight int
	settled  time.Duration // when what is unknown will have happened, or not
}

// strikeMembers makes the operator change the membership. What would cost the
// cluster its quorum it asks for, too: the product must refuse it.
func (s *Sim) strikeMembers(e fault.Event, m *member) {
	switch e.Kind {
	case fault.AddLearner:
		s.grow(true, e.For, nil)
	case fault.AddVoter:
		s.grow(false, e.For, nil)
	case fault.Remove:
		if e.Arg == 1 {
			m.powerCut(e.For) // it comes back, and has not heard of it
		}
		s.dismiss(m.id, 3, nil)
	case fault.Return:
		i := slices.IndexFunc(s.members, func(m *member) bool { return m.left && m.fs != nil && !m.wiped })
		if i >= 0 {
			s.stats.Returned++
			s.members[i].left = false
			s.members[i].revive()
		}
	case fault.DiskLost:
		s.loseDisk(e, m)
	}
}

// grow adds a member, which starts a while later. done is told whether it was refused.
func (s *Sim) grow(learner bool, later time.Duration, done func(refused bool)) {
	if len(s.members) >= s.cfg.Members+spareMachines || len(s.roster.Members) >= mostMembers {
		return
	}
	o := newMember(s, len(s.members))
	o.joins = true
	s.members = append(s.members, o)
	s.change("MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{peerURL(o.port)}, IsLearner: learner}, func(r proto.Message, outcome history.Outcome, _ string) {
		if outcome == history.Refused {
			o.left = true
		} else {
			s.after(later, o.revive)
		}
		if outcome == history.OK {
			id, op := r.(*pb.MemberAddResponse).Member.ID, oracle.AddMember
			if learner {
				op = oracle.AddLearner
				s.promote(id, 20)
			}
			s.roster.Acked(oracle.MemberChange{Op: op, ID: id})
		}
		if done != nil {
			done(outcome == history.Refused)
		}
	})
}

// promote asks for a promotion from the first moment on, when it is too early.
func (s *Sim) promote(id uint64, tries int) {
	if tries == 0 || s.calm {
		return
	}
	var least uint64 // what a learner must have of the log, at the least
	for _, m := range s.members {
		least = max(least, uint64(m.role.Committed)*9/10)
	}
	s.change("MemberPromote", &pb.MemberPromoteRequest{ID: id}, func(_ proto.Message, outcome history.Outcome, text string) {
		if outcome == history.OK {
			if has := s.watch.Holds(id).Index; has < least {
				s.fail("O6", "member %x was promoted with a log up to %d, of which it must have %d", id, has, least)
			}
			s.roster.Acked(oracle.MemberChange{Op: oracle.PromoteMember, ID: id})
		} else if text != api.ErrMemberNotLearner.Error() {
			s.after(time.Second, func() { s.promote(id, tries-1) })
		}
	})
}

// dismiss removes a member; tries below 0 do not end. then follows when it is gone.
func (s *Sim) dismiss(id api.MemberID, tries int, then func()) {
	if tries == 0 || tries > 0 && s.calm {
		return
	}
	s.change("MemberRemove", &pb.MemberRemoveRequest{ID: uint64(id)}, func(_ proto.Message, outcome history.Outcome, text string) {
		if outcome == history.OK {
			s.roster.Acked(oracle.MemberChange{Op: oracle.RemoveMember, ID: uint64(id)})
		}
		switch {
		case outcome != history.OK && text != api.ErrMemberNotFound.Error():
			s.after(500*time.Millisecond, func() { s.dismiss(id, tries-1, then) })
		case then != nil:
			then()
		}
	})
}

// change asks some member for a change of the membership.
func (s *Sim) change(method string, req proto.Message, done func(proto.Message, history.Outcome, string)) {
	m := s.anybody()
	// A removal while another member mends its damage would leave too few: the
	// product cannot tell such a member from a whole one, so the operator must.
	mends := func(m *member) bool { return m.belongs() && (m.damaged || m.rotten || m.repairing) }
	if !m.serves() || method == "MemberRemove" && slices.ContainsFunc(s.members, mends) {
		s.after(100*time.Millisecond, func() { s.change(method, req, done) })
		return
	}
	s.changes.inFlight++
	s.request(m, "etcdserverpb.Cluster/"+method, req, func(resp proto.Message, err error) {
		s.changes.inFlight--
		outcome, text := history.OK, ""
		if err != nil {
			outcome, text = history.OutcomeOf(err), err.Error()
		}
		if slices.Contains(unsafe, text) {
			outcome = history.Refused
			s.stats.Unsafe++
		}
		s.say("%s %v at %s: %s %s", method, req, m.name, outcome, text)
		switch {
		case outcome == history.OK:
			s.stats.Memberships++
		case outcome == history.Unknown:
			s.changes.settled = s.now + settleTime
		}
		done(resp, outcome, text)
	})
}

// unsafe is how the product refuses a change for the sake of the quorum.
var unsafe = []string{api.ErrUnhealthy.Error(), api.ErrMemberNotEnoughStarted.Error(), api.ErrLearnerNotReady.Error()}

// loseDisk gives a member an empty disk. Its process starts as it did at first, and
// is refused, while the operator puts another machine in its place.
func (s *Sim) loseDisk(e fault.Event, m *member) {
	if !m.mayBeDamaged() || m.wiped || !s.allKnow(m) {
		return
	}
	s.say("%s has lost its disk", m.name)
	s.stats.DisksLost++
	m.wiped = true
	m.down(newDisk(s.cfg.Seed<<8 + uint64(len(s.members)+100*m.n)))
	s.after(e.For/2, m.revive)
	s.operator.insisting++
	remove := func(then func()) {
		s.dismiss(m.id, -1, func() {
			s.operator.insisting--
			then()
		})
	}
	add := func() { s.grow(false, e.For/2, nil) }
	s.after(e.For, func() {
		if e.Arg == 0 || len(s.members) >= s.cfg.Members+spareMachines || len(s.roster.Members) >= mostMembers {
			remove(add)
			return
		}
		s.grow(false, e.For/2, func(refused bool) {
			remove(func() {
				if refused {
					add()
				}
			})
		})
	})
}

// allKnow reports whether all others will know the member's directory for ever, so
// that none takes an empty one for it. What is not on their disks a crash takes.
func (s *Sim) allKnow(m *member) bool {
	all := s.listed()
	forgets := func(o *member) bool { return o != m && !o.recalls(m) }
	return len(all) == len(s.roster.Members) && !slices.ContainsFunc(all, forgets)
}

func (m *member) recalls(o *member) (does bool) {
	content, err := readFile(m.disk.files, databasePath)
	db := m.disk.databases[string(content)]
	if err != nil || db == nil || m.node == nil {
		return false
	}
	v, err := db.View()
	if err != nil {
		return false
	}
	defer v.Release()
	row := memberRow{}
	value := v.Get(engine.Members, []byte(o.id.String()))
	return value != nil && json.Unmarshal(value, &row) == nil && row.Incarnation == o.mark
}

// memberRow is what the simulation reads of a member's row, and of a change.
type memberRow struct {
	ID          api.MemberID `json:"id"`
	PeerURLs    []string     `json:"peerURLs"`
	Learner     bool         `json:"isLearner"`
	Promote     bool         `json:"isPromote"`
	MaxLearners int          `json:"maxLearners"`
	Incarnation uint64       `json:"keelsonIncarnation"`
}

// recordChange shows the judge of memberships a change of the log.
func (s *Sim) recordChange(c *raft.ConfChange) {
	row := memberRow{}
	if len(c.Context) > 0 {
		if err := json.Unmarshal(c.Context, &row); err != nil {
			s.fail("O6", "a change of the membership: %v", err)
		}
	}
	ops := map[raft.ConfOp]oracle.MemberOp{raft.ConfAddVoter: oracle.AddMember, raft.ConfAddLearner: oracle.AddLearner, raft.ConfRemove: oracle.RemoveMember}
	op := ops[c.Op]
	if row.Promote {
		op = oracle.PromoteMember
	}
	s.must("O6", s.roster.Applied(oracle.MemberChange{Op: op, ID: uint64(c.Member), URLs: row.PeerURLs, MaxLearners: row.MaxLearners}, c.Err == nil))
}

// listed are the machines of the members that there are, nil for one that has
// none yet.
func (s *Sim) listed() (out []*member) {
	for _, m := range s.members {
		if _, is := s.roster.Members[uint64(m.id)]; is {
			out = append(out, m)
		}
	}
	return out
}

// present are the machines that are members, as far as they know.
func (s *Sim) present() []*member {
	there := slices.DeleteFunc(slices.Clone(s.members), func(m *member) bool { return m.id == 0 || !m.belongs() })
	if len(there) == 0 {
		return s.members[:1] // its first start has failed, and it was to be alone
	}
	return there
}

// anybody is where a client goes.
func (s *Sim) anybody() *member {
	all := s.present()
	return all[s.chance.client.IntN(len(all))]
}

// strays reports that a removed member knows only others who were removed: nobody can
// tell it, and it waits for ever, and with it who watches there.
func (m *member) strays() bool {
	there := m.s.listed()
	knows := func(o *member) bool { _, is := m.wire.peers[o.id]; return is || m.wire.strangers[o.id] }
	return m.node != nil && !slices.Contains(there, m) && !slices.ContainsFunc(there, knows)
}

// allThere reports whether every member has its machine, and no removed one runs
// that could hear of it.
func (s *Sim) allThere() bool {
	there := s.listed()
	for _, m := range there {
		if m.node == nil || m.repairing {
			return false
		}
	}
	runs := func(m *member) bool { return m.node != nil && !slices.Contains(there, m) && !m.strays() }
	return len(there) == len(s.roster.Members) && !slices.ContainsFunc(s.members, runs)
}

// belongs reports that the machine is not one that has been removed.
func (m *member) belongs() bool { return !m.left && !m.s.roster.Removed[uint64(m.id)] }

// key is how the member is known to the observer: one without memory is another.
func (m *member) key() uint64 {
	if m.wiped {
		return ^uint64(m.id)
	}
	return uint64(m.id)
}

// leaves reports that the member has stopped for good, and rightly.
func (m *member) leaves(err error) bool {
	switch {
	case errors.Is(err, server.ErrRemoved) && m.s.roster.Removed[uint64(m.id)]:
	case errors.Is(err, server.ErrForgotten) && m.wiped:
	default:
		return false
	}
	m.s.say("%s stops for good: %v", m.name, err)
	m.left = true
	return true
}

// waitsToJoin reports that a machine was not let in yet.
func (m *member) waitsToJoin(err error) bool {
	return m.joins && errors.Is(err, server.ErrConfig)
}

// initialCluster is what the operator tells a process at its start.
func (s *Sim) initialCluster(m *member) string {
	var parts []string
	if !m.joins {
		for n := range s.cfg.Members {
			parts = append(parts, fmt.Sprintf("m%d=%s", n, peerURL(n)))
		}
		return strings.Join(parts, ",")
	}
	own := peerURL(m.port)
	for _, o := range s.members {
		if o.node == nil || o.repairing {
			continue
		}
		list := o.node.Members()
		if !slices.ContainsFunc(list, func(row server.Member) bool { return slices.Contains(row.PeerURLs, own) }) {
			continue
		}
		for i, row := range list {
			name := fmt.Sprint("other", i)
			if row.PeerURLs[0] == own {
				name = m.name
			}
			parts = append(parts, name+"="+row.PeerURLs[0])
		}
		return strings.Join(parts, ",")
	}
	return m.name + "=" + own
}

// ask asks who has a peer URL for the members of the cluster.
func (m *member) ask(url string) ([]byte, error) {
	cut := m.s.net.cut
	for _, o := range m.s.members {
		if o != m && o.node != nil && !o.repairing && peerURL(o.port) == url && cut[m.n][o.n]+cut[o.n][m.n] == 0 {
			return o.node.Announcement()
		}
	}
	return nil, errBroken
}

// checkRoster compares what a member knows of the members at rest.
func (m *member) checkRoster() {
	members, removed := map[uint64]bool{}, map[uint64]bool{}
	m.node.Store().Raw(engine.Members, func(_, v []byte) bool {
		row := memberRow{}
		m.s.must("O6", json.Unmarshal(v, &row))
		members[uint64(row.ID)] = row.Learner
		return true
	})
	m.node.Store().Raw(engine.MembersRemoved, func(k, _ []byte) bool {
		var id uint64
		_, err := fmt.Sscanf(string(k), "%x", &id)
		m.s.must("O6", err)
		removed[id] = true
		return true
	})
	for _, err := range m.s.roster.Check(uint64(m.id), members, removed) {
		m.s.fail("O6", "%v", err)
	}
}
