package sim

import (
	"context"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/raft"
	"github.com/keelson-io/keelson/raft/vfs"
)

// strike makes an event of the plan happen, and plans its end.
func (s *Sim) strike(e fault.Event) {
	m := s.target(e.Member)
	s.say("* %v", e)
	s.stats.Faults[e.Kind]++
	switch e.Kind {
	case fault.Kill:
		m.kill(e.For)
	case fault.PowerCut:
		m.powerCut(e.For)
	case fault.PowerAll:
		for _, o := range s.members {
			o.powerCut(time.Duration(s.chance.member.Int64N(int64(e.For))))
		}
	case fault.CrashAtIO:
		m.crashAt = e.Arg
	case fault.Zombie:
		m.paused = max(m.paused, s.now+e.For)
		e.Kind, e.For = fault.Isolate, e.For+2*time.Second
		s.cutLinks(e, m)
	case fault.Pause:
		m.paused = max(m.paused, s.now+e.For)
	case fault.PauseAll:
		for _, o := range s.members {
			o.paused = max(o.paused, s.now+e.For)
		}
	case fault.DiskStall:
		m.stalled = max(m.stalled, s.now+e.For)
	case fault.FlushFails:
		m.failing, m.applied = errFlush, e.Arg == 1
	case fault.SyncFails:
		m.fs.SetRules(vfs.Rule{Op: vfs.OpSync, Nth: 1, Lose: true, Hook: m.cutCall}, vfs.Rule{Hook: m.beforeCall})
	case fault.WriteFails:
		m.fs.SetRules(vfs.Rule{Op: vfs.OpWrite, Nth: 1, Err: vfs.ErrInjected, Short: e.Arg == 1, Apply: e.Arg == 2, Hook: m.cutCall}, vfs.Rule{Hook: m.beforeCall})
	case fault.DiskFull:
		m.disk.files.SetSpace(0)
		s.undo(e.For, func() { m.disk.files.SetSpace(-1) })
	case fault.FlipBit, fault.ZeroSector:
		m.damage(e)
	case fault.Delete:
		m.deleteStore(e.For)
	case fault.Rot:
		m.rot(e)
	case fault.ClientCut:
		m.cutOff++
		m.breakStreams()
		s.undo(e.For, func() { m.cutOff-- })
	case fault.HandOver:
		if m.node != nil && !m.repairing {
			m.spawn(func() { _ = m.node.Node.TransferLeader(context.Background()) }) // it may be too late
			m.turn()
		}
	case fault.FalseDown:
		m.falseDown(e.For)
	case fault.WallJump:
		m.wall = time.Duration(e.Arg) * time.Minute
		s.undo(e.For, func() { m.wall = 0 })
	default:
		s.strikeClients(e, m)
	}
}

// strikeClients makes what clients and operators do.
func (s *Sim) strikeClients(e fault.Event, m *member) {
	switch e.Kind {
	case fault.SlowWatch:
		for _, st := range m.streams {
			st.reads = max(st.reads, s.now+e.For)
		}
	case fault.Compact:
		if m.node == nil || m.repairing {
			return
		}
		if rev := int64(m.node.Store().Revision()) - int64(e.Arg); rev > 0 {
			s.operator.ask(m, "etcdserverpb.KV/Compact", &pb.CompactionRequest{Revision: rev, Physical: e.For%2 == 0})
		}
	case fault.Alarm:
		s.raiseAlarm(m, e.For)
	case fault.AddLearner, fault.AddVoter, fault.Remove, fault.Return, fault.DiskLost:
		s.strikeMembers(e, m)
	default:
		s.strikeNetwork(e, m)
	}
}

// raiseAlarm raises an alarm, and clears it. clearAlarms does so again when faults
// have ended: the two requests may have come in the other order.
func (s *Sim) raiseAlarm(m *member, d time.Duration) {
	if m.id == 0 {
		return
	}
	r := &pb.AlarmRequest{MemberID: uint64(m.id), Alarm: pb.AlarmType_NOSPACE, Action: pb.AlarmRequest_ACTIVATE}
	s.operator.ask(m, "etcdserverpb.Maintenance/Alarm", r)
	s.operator.alarmed = append(s.operator.alarmed, m)
	s.after(d, func() { s.operator.clearAlarm(m) })
}

// target is who an event is about; without a leader, the first member.
func (s *Sim) target(n int) *member {
	present := s.present()
	if n != fault.Leader {
		return present[n%len(present)]
	}
	best := present[0]
	for _, m := range present {
		if m.node != nil && m.role.Role == raft.Leader && (best.role.Role != raft.Leader || m.role.Term > best.role.Term) {
			best = m
		}
	}
	return best
}

// undo ends a fault, unless all have ended before.
func (s *Sim) undo(after time.Duration, fn func()) {
	s.after(after, func() {
		if !s.calm {
			fn()
		}
	})
}

func (m *member) kill(d time.Duration) {
	if m.node != nil {
		m.down(m.disk.killed())
		m.s.after(d, m.revive)
	}
}

func (m *member) powerCut(d time.Duration) {
	if m.node != nil {
		m.s.stats.PowerCuts++
		m.down(m.disk.powerless(m.s.chance.disk))
		m.s.after(d, m.revive)
	}
}

// falseDown is wrong news that nobody else is there.
func (m *member) falseDown(d time.Duration) {
	if m.node == nil {
		return
	}
	for _, o := range m.s.members {
		if o == m || o.id == 0 {
			continue
		}
		m.wire.handler.PeerDown(o.id)
		m.after(d, func() {
			if o.node != nil {
				m.wire.handler.PeerUp(o.id)
				m.turn()
			}
		})
	}
	m.turn()
}

func (s *Sim) strikeNetwork(e fault.Event, m *member) {
	n := &s.net
	numbers := func(list *[]int) {
		*list = append(*list, e.Arg)
		s.undo(e.For, func() { i := slices.Index(*list, e.Arg); *list = slices.Delete(*list, i, i+1) })
	}
	switch e.Kind {
	case fault.Loss:
		numbers(&n.loss)
	case fault.Duplicate:
		numbers(&n.duplicate)
	case fault.SlowSome:
		numbers(&n.slow)
	case fault.Thin:
		numbers(&n.thin)
	case fault.Delay:
		d := time.Duration(e.Arg) * time.Millisecond
		n.delay = append(n.delay, d)
		s.undo(e.For, func() { i := slices.Index(n.delay, d); n.delay = slices.Delete(n.delay, i, i+1) })
	default:
		s.cutLinks(e, m)
	}
}

// cutLinks cuts the links that the event names.
func (s *Sim) cutLinks(e fault.Event, m *member) {
	var links [][2]int
	for _, a := range s.members {
		for _, b := range s.members {
			if a != b && cuts(e.Kind, a.n, b.n, m.n) {
				links = append(links, [2]int{a.n, b.n})
				s.net.cut[a.n][b.n]++
			}
		}
	}
	s.undo(e.For, func() {
		for _, l := range links {
			s.net.cut[l[0]][l[1]]--
			s.net.healed[l[0]][l[1]] = s.now
		}
	})
}

// cuts reports whether a fault at member at cuts the link from one to another.
func cuts(k fault.Kind, from, to, at int) bool {
	switch k {
	case fault.Isolate:
		return from == at || to == at
	case fault.CutTo:
		return from == at
	case fault.CutFrom:
		return to == at
	case fault.Bridge:
		return from != at && to != at
	case fault.Split:
		return (from <= at) != (to <= at)
	}
	panic("sim: no such fault: " + string(k))
}

// heal ends all faults.
func (s *Sim) heal() {
	s.say("* calm")
	s.calm = true
	s.net = network{}
	s.net.init(s.cfg.Members + spareMachines)
	for _, m := range s.members {
		if m.fs == nil { // it was to start later
			m.revive()
			continue
		}
		m.stalled, m.cutOff, m.crashAt, m.failing, m.wall = 0, 0, 0, nil, 0
		m.fs.SetRules(vfs.Rule{Hook: m.beforeCall})
		m.disk.files.SetSpace(-1)
		if m.node == nil {
			if m.belongs() {
				s.after(m.downTime(), m.revive)
			}
			continue
		}
		for _, o := range s.members {
			if o != m && o.node != nil {
				m.meet(o) // connections are made again
			}
		}
	}
	s.operator.clearAlarms()
	if s.cfg.Quota > 0 {
		s.operator.makeRoom()
	}
}
