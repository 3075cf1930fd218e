package sim

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/chaos/workload"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/mvcc/watchcheck"
	"github.com/keelson-io/keelson/raft"
)

// What the cluster owes when faults have ended.
const (
	servedOps  = 3               // answers that every client must get in the calm phase
	watchDelay = 5 * time.Second // until every watch has everything
)

// settle is the liveness phase: everybody is served, then nothing is asked any
// more, members become equal, leases end and watches catch up.
func (s *Sim) settle() {
	for _, c := range s.clients {
		c.served = 0
	}
	if !s.when(s.now+s.cfg.Calm, s.allServed) {
		s.fail("O9", "%v after faults ended not every client is served: %s", s.cfg.Calm, s.standing())
		return
	}
	s.stopped = true
	s.scrub()
	if !s.when(s.now+s.cfg.Timeout+s.cfg.Calm, s.quiet) {
		s.fail("O9", "members do not become equal: %s", s.standing())
		return
	}
	if !s.when(s.now+watchDelay, s.watchesDone) {
		s.fail("O3", "a watch stays behind: %s", s.lateWatch())
		return
	}
	if !s.when(s.now+s.leaseTime(), s.leasesGone) {
		s.fail("O7", "leases live on: %s", s.standing())
	}
}

func (s *Sim) allServed() bool {
	if s.operator.insisting > 0 {
		return false
	}
	for _, c := range s.clients {
		if _, naps := c.asks.(*workload.Locks); c.served < servedOps && !naps {
			return false
		}
	}
	return true
}

// quiet: no operation is under way, one leads, all have applied the same.
func (s *Sim) quiet() bool {
	for _, op := range s.hist.Ops {
		if op.Outcome == "" {
			return false
		}
	}
	return s.equal()
}

func (s *Sim) equal() bool {
	leaders := 0
	var first raft.Status
	if !s.allThere() {
		return false
	}
	for i, m := range s.listed() {
		st := m.node.Node.Status()
		if i == 0 {
			first = st
		}
		if st.Role == raft.Leader {
			leaders++
		}
		if st.Term != first.Term || st.Applied != first.Applied || st.Applied != st.Last || st.Leader == 0 {
			return false
		}
	}
	return leaders == 1
}

func (s *Sim) standing() (out string) {
	for _, m := range s.members {
		if m.node == nil || m.repairing {
			out += fmt.Sprintf(" %s is down (repairing: %v);", m.name, m.repairing)
			continue
		}
		st := m.node.Node.Status()
		out += fmt.Sprintf(" %s %v term %d leader %x applied %d committed %d last %d leases %d;",
			m.name, st.Role, st.Term, uint64(st.Leader), st.Applied, st.Committed, st.Last, len(m.node.Store().Leases()))
	}
	for _, c := range s.clients {
		out += fmt.Sprintf(" c%d@%s %d", c.n, c.at.name, c.served)
	}
	return out
}

// leaseTime is how long the longest lease may live on without its keeper.
func (s *Sim) leaseTime() time.Duration {
	election := time.Duration(s.cfg.ElectionTicks) * s.cfg.Tick
	return (max(workload.MaxTTL*time.Second, 3*election) + 3*election + 4*time.Second) * time.Duration(1000+2*s.cfg.Drift) / 1000
}

func (s *Sim) leasesGone() bool {
	for _, m := range s.listed() {
		if m.node == nil || len(m.node.Store().Leases()) > 0 {
			return false
		}
	}
	return s.equal()
}

func (s *Sim) watchesDone() bool { return s.lateWatch() == "" }

// lateWatch names a watch that lacks something.
func (s *Sim) lateWatch() string {
	if len(s.watchers) == 0 {
		return ""
	}
	truth, rev := s.truth()
	for _, w := range s.watchers {
		if w.stream == nil {
			return fmt.Sprintf("watcher %d has no stream", w.n)
		}
		if w.stream.m.strays() {
			continue
		}
		if n := watchcheck.Behind(w.rec.Watch, truth, rev); n != 0 {
			return fmt.Sprintf("watcher %d on %s from %d lacks %d events of those up to %d", w.n, w.stream.m.name, w.want.Start, n, rev)
		}
	}
	return ""
}

// truth is what watches should have by now, up to a revision.
func (s *Sim) truth() (*watchcheck.History, int64) {
	if s.replay == nil {
		s.replay = oracle.NewModel()
	}
	for _, e := range s.hist.Log[s.replayed:] {
		for _, c := range e.Commands {
			s.replay.Apply(e.Term, c)
		}
	}
	if s.known == nil || s.replayed < len(s.hist.Log) {
		s.known = watchcheck.NewHistory(s.replay.Events)
	}
	s.replayed = len(s.hist.Log)
	return s.known, s.replay.Rev
}

// judge cuts the power of all members once more, waits until they are back, and
// lets the oracles look at what is there.
func (s *Sim) judge() {
	s.say("* the last power cut")
	for _, m := range s.members {
		m.powerCut(time.Second)
	}
	if !s.when(s.now+s.cfg.Calm, s.equal) {
		if s.failed == nil {
			s.fail("O9", "members do not come back: %s", s.standing())
		}
		return
	}
	for _, m := range s.listed() {
		s.hist.States = append(s.hist.States, m.state())
		m.checkRoster()
	}
	if s.failed != nil {
		return
	}
	s.hist.End = s.now
	c := oracle.NewCase(&s.hist)
	for _, o := range oracle.All() {
		for _, err := range o.Check(c) {
			s.fail(o.Name, "%v", err)
		}
	}
	for _, p := range c.Written() {
		s.mix(uint64(p))
	}
	s.stats.Writes = len(c.Written())
}

// rows are the buckets beside keys that all members must agree on.
var rows = []engine.Bucket{engine.Lease, engine.Alarm, engine.Auth, engine.AuthUsers, engine.AuthRoles, engine.Members, engine.MembersRemoved, engine.Cluster}

// state reads what the member holds.
func (m *member) state() history.State {
	ctx := context.Background()
	store := m.node.Store()
	at, _ := store.Applied()
	st := history.State{
		Member: uint64(m.id), Index: uint64(at), Revision: int64(store.Revision()), Compact: int64(store.CompactRevision()),
		Leases: map[int64]int64{}, Rows: map[string]string{},
	}
	resp := &pb.RangeResponse{}
	err := m.node.Invoke(ctx, "etcdserverpb.KV/Range", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Serializable: true}, resp)
	if err != nil {
		m.s.fail("O4", "read all of %s: %v", m.name, err)
	}
	for _, kv := range resp.Kvs {
		st.Keys = append(st.Keys, history.KV{
			Key: string(kv.Key), Value: string(kv.Value), Create: kv.CreateRevision, Mod: kv.ModRevision, Version: kv.Version, Lease: kv.Lease,
		})
	}
	for _, id := range store.Leases() {
		info, _ := store.Lease(id)
		st.Leases[int64(id)] = info.TTL
	}
	hash, _, err := store.HashKV(ctx, 0)
	if err != nil {
		m.s.fail("O5", "hash of %s: %v", m.name, err)
	}
	st.Hash = hash.Hash
	for _, b := range rows {
		store.Raw(b, func(k, v []byte) bool {
			st.Rows[fmt.Sprintf("%s/%x", b, k)] = string(v)
			return true
		})
	}
	for _, err := range store.Check() {
		m.s.fail("O4", "the store of %s: %v", m.name, err)
	}
	return st
}
