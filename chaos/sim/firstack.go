package sim

import (
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/chaos/history"
)

// Wait is how long it took after faults had ended until a write was acknowledged
// that was asked for after that, over many runs.
type Wait struct {
	Longest time.Duration
	// Spread counts the runs by WaitBounds: within the first, the second and so on;
	// the last are all others.
	Spread [len(WaitBounds) + 1]int
}

// WaitBounds are the bounds of Wait's counts.
var WaitBounds = [...]time.Duration{
	100 * time.Millisecond, 300 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 8 * time.Second,
}

func (w *Wait) add(d time.Duration) {
	i := 0
	for i < len(WaitBounds) && d > WaitBounds[i] {
		i++
	}
	w.Spread[i]++
	w.Longest = max(w.Longest, d)
}

// What comes to the elections that a cluster may need after a fault of a kind.
const (
	restartTime = 2 * time.Second // of a process that is down: see downTime
	repairTime  = 3 * time.Second // of what it finds damaged
	elections   = 6               // with lost votes, in election timeouts
	ackGrace    = time.Second
)

// within is the time in which the first write must be acknowledged when a fault
// of the kind has ended.
func within(k fault.Kind, election time.Duration) time.Duration {
	d := elections*election + ackGrace + restartTime // any kind may have ended a process
	switch k {
	case fault.DiskStall, fault.Pause, fault.PauseAll, fault.Zombie:
		d += 2 * election // what stood still first finds out that it is late
	}
	return d
}

// ending are the faults that healing ends, by kind, and how long each goes on
// because nothing but time ends it.
func (s *Sim) ending(plan []fault.Event) (kinds []fault.Kind, limit time.Duration) {
	election := time.Duration(s.cfg.ElectionTicks) * s.cfg.Tick
	mends := func(m *member) bool { return m.belongs() && (m.damaged || m.rotten || m.repairing || m.wiped) }
	var more time.Duration
	if slices.ContainsFunc(s.members, mends) {
		more = repairTime // of damage from before
	}
	for _, e := range plan {
		if left := e.At + e.For - s.now; e.At < s.now && left > 0 {
			kinds = append(kinds, e.Kind)
			limit = max(limit, left+more+within(e.Kind, election))
		}
	}
	return kinds, limit
}

// probePause lies between two probes.
const probePause = 50 * time.Millisecond

// probe asks for small writes, from one member after the other, until one is
// acknowledged, and holds the cluster to what the faults that have ended allow.
// The write is a deletion, which a full store allows, too. Clients go on until then:
// they may all be served before the first probe is.
func (s *Sim) probe(plan []fault.Event) {
	begin, acked := s.now, false
	kinds, limit := s.ending(plan)
	if len(kinds) == 0 {
		return
	}
	s.operator.insisting++
	var next func(n int)
	next = func(n int) {
		if acked {
			return
		}
		all := s.present()
		s.operator.probe(all[n%len(all)], func() {
			if acked {
				return
			}
			acked = true
			s.operator.insisting--
			took := s.now - begin
			for _, k := range kinds {
				w := s.stats.FirstAck[k]
				w.add(took)
				s.stats.FirstAck[k] = w
			}
		})
		s.after(probePause, func() { next(n + 1) })
	}
	next(0)
	s.after(limit, func() {
		if !acked {
			s.fail("O9", "no write was acknowledged within %v after the end of %v: %s", limit, kinds, s.standing())
		}
	})
}

func (o *operator) probe(m *member, acked func()) {
	if m.serves() {
		o.send(m, "etcdserverpb.KV/DeleteRange", &pb.DeleteRangeRequest{Key: []byte("probe")}, func(op *history.Op) {
			if op.Outcome == history.OK {
				acked()
			}
		})
	}
}
