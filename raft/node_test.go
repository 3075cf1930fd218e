package raft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/raft/wal"
)

func barrier(t *testing.T, m *member) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if err := m.node.ReadBarrier(ctx); err != nil {
		t.Fatalf("read barrier on %s: %v", m.id, err)
	}
}

func TestOneMember(t *testing.T) {
	c := newCluster(t, 1, nil).startAll()
	m := c.leader()
	for i := range 20 {
		c.mustPropose(m, fmt.Sprint(i))
	}
	barrier(t, m)
	if got := len(m.toy.list()); got != 20 {
		t.Fatalf("%d commands applied", got)
	}
	m.kill(true)
	m.start()
	c.leader()
	barrier(t, m)
	if got := m.toy.list(); len(got) != 20 || !slices.Contains(got, "19") {
		t.Fatalf("after the crash: %v", got)
	}
}

// TestTornBootstrap: a new cluster's first write to the log was torn by a crash.
// What is left of it, nothing or its hard state, does not keep it from its start.
func TestTornBootstrap(t *testing.T) {
	for _, left := range []*wal.HardState{nil, {Term: bootstrapTerm}} {
		c := newCluster(t, 1, nil)
		m := c.members[1]
		cfg := m.config()
		w, err := wal.Create(cfg.FS, cfg.Dir, wal.Identity{Cluster: cfg.Cluster, Member: cfg.ID}, wal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if left != nil {
			err = errors.Join(w.Append(left, nil), w.Sync())
		}
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		c.startAll()
		c.mustPropose(c.leader(), "first")
	}
}

func TestThreeMembers(t *testing.T) {
	c := newCluster(t, 3, nil).startAll()
	c.leader()
	for i := range 30 {
		c.mustPropose(c.members[c.peers[i%3].ID], fmt.Sprint(i))
	}
	if got := c.settle(); len(got) != 30 {
		t.Fatalf("%d commands", len(got))
	}
	for _, m := range c.members {
		if m.toy.mu.confs != 3 || len(m.toy.mu.Conf.GetVoters()) != 3 {
			t.Fatalf("member %s saw %d changes, membership %v", m.id, m.toy.mu.confs, m.toy.mu.Conf)
		}
		m.shutdown()
		m.start()
	}
	c.leader()
	if got := c.settle(); len(got) != 30 {
		t.Fatalf("%d commands after the restart", len(got))
	}
}

// load proposes unique commands on all members until stopped.
type load struct {
	c     *cluster
	done  sync.WaitGroup
	stop  atomic.Bool
	acked [][]string // by proposer
	errs  atomic.Int64
	// lost is told of errors on members that nobody stopped.
	lost func(error)
}

func (c *cluster) load(perMember int) *load {
	l := &load{c: c, lost: func(error) {}}
	l.acked = make([][]string, perMember*len(c.peers))
	for i := range l.acked {
		m := c.members[c.peers[i%len(c.peers)].ID]
		l.done.Go(func() { l.propose(i, m.current) })
	}
	return l
}

func (l *load) propose(i int, node func() *Node) {
	for n := 0; !l.stop.Load(); n++ {
		at := node()
		if at == nil {
			time.Sleep(time.Millisecond)
			continue
		}
		body := fmt.Sprintf("%d.%d", i, n)
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		_, err := at.Propose(ctx, 1, "p", []byte(body))
		cancel()
		if err == nil {
			l.acked[i] = append(l.acked[i], body)
			continue
		}
		l.errs.Add(1)
		if !errors.Is(err, ErrStopped) {
			l.lost(err)
		}
	}
}

// end stops the load and checks that all that was acknowledged is there.
func (l *load) end() (acked int) {
	t := l.c.t
	t.Helper()
	l.stop.Store(true)
	l.done.Wait()
	have := map[string]bool{}
	for _, b := range l.c.settle() {
		have[b] = true
	}
	for _, bodies := range l.acked {
		for _, b := range bodies {
			if acked++; !have[b] {
				t.Fatalf("%s was acknowledged and is lost", b)
			}
		}
	}
	return acked
}

func TestLeaderKilledUnderLoad(t *testing.T) {
	c := newCluster(t, 3, nil).startAll()
	c.leader()
	l := c.load(4)
	l.lost = func(err error) { t.Errorf("an error on a living member: %v", err) }
	for i := range 6 {
		leader := c.leader()
		leader.kill(i%2 == 0)
		c.leader()
		leader.start()
	}
	t.Logf("%d acknowledged, %d ended by kills", l.end(), l.errs.Load())
}

func TestTransferUnderLoad(t *testing.T) {
	c := newCluster(t, 3, nil).startAll()
	c.leader()
	l := c.load(4)
	l.lost = func(err error) { t.Errorf("an error in a hand-over: %v", err) }
	for range 10 {
		leader := c.leader()
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		if err := leader.node.TransferLeader(ctx); err != nil {
			t.Errorf("hand-over: %v", err)
		}
		cancel()
	}
	t.Logf("%d acknowledged", l.end())
}

func TestPartitionsUnderLoad(t *testing.T) {
	c := newCluster(t, 3, nil).startAll()
	c.leader()
	l := c.load(4)
	// Nothing outlasts the request timeout, so nobody sees an error.
	l.lost = func(err error) { t.Errorf("an error in a partition: %v", err) }
	for i := range 5 {
		leader := c.leader()
		var rest []api.MemberID
		for _, p := range c.peers {
			if p.ID != leader.id {
				rest = append(rest, p.ID)
			}
		}
		switch i % 3 {
		case 0:
			c.net.Partition([]api.MemberID{leader.id}, rest)
		case 1: // it still hears, but nobody hears it
			c.net.Cut(leader.id, rest[0])
			c.net.Cut(leader.id, rest[1])
		case 2:
			c.net.SetFaults(transport.Faults{Drop: 0.1, Duplicate: 0.1, MaxDelay: 5 * time.Millisecond})
		}
		if i%3 < 2 {
			c.wait("another leader", func() bool {
				for _, id := range rest {
					if c.members[id].node.Status().Role == Leader {
						return true
					}
				}
				return false
			})
		} else {
			time.Sleep(20 * testTick) // let some of it be lost
		}
		c.net.Heal()
	}
	t.Logf("%d acknowledged", l.end())
}

// proof waits for a read barrier, or is called after it.
func proof(n *Node, after bool) error {
	if !after {
		return n.ReadBarrier(context.Background())
	}
	ended := make(chan error, 2)
	n.AfterBarrier(func(err error) { ended <- err })
	err := <-ended
	if len(ended) > 0 {
		return errors.New("called twice")
	}
	return err
}

func TestReadBarrierSeesWhatWasAcknowledged(t *testing.T) {
	c := newCluster(t, 3, nil).startAll()
	c.leader()
	l := c.load(2)
	var stop atomic.Bool
	var readers sync.WaitGroup
	var reads atomic.Int64
	for _, p := range c.peers {
		m := c.members[p.ID]
		readers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				writer := c.members[c.peers[i%3].ID]
				body := fmt.Sprintf("read %s %d", m.id, i)
				if writer.current() == nil || m.current() == nil || writer.propose(body) != nil {
					continue
				}
				node, state := m.current(), m.toy
				if node == nil || proof(node, i%2 == 0) != nil {
					continue
				}
				state.mu.Lock()
				if !state.mu.seen[body] {
					t.Errorf("member %s does not show %q after a barrier", m.id, body)
				}
				state.mu.Unlock()
				reads.Add(1)
			}
		})
	}
	for range 4 {
		leader := c.leader()
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		if err := leader.node.TransferLeader(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		leader = c.leader()
		var rest []api.MemberID
		for _, p := range c.peers {
			if p.ID != leader.id {
				rest = append(rest, p.ID)
			}
		}
		c.net.Partition([]api.MemberID{leader.id}, rest)
		c.wait("another leader", func() bool {
			for _, m := range c.members {
				if m != leader && m.node.Status().Role == Leader {
					return true
				}
			}
			return false
		})
		c.net.Heal()
	}
	stop.Store(true)
	readers.Wait()
	l.end()
	if reads.Load() == 0 {
		t.Error("nobody read")
	}
	t.Logf("%d reads", reads.Load())
}

func TestLaggingMemberGetsSnapshot(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.LogRetention, cfg.SegmentSize = 32<<10, 16<<10 }).startAll()
	leader := c.leader()
	var slow *member
	for _, m := range c.members {
		if m != leader {
			slow = m
		}
	}
	slow.kill(false)
	filler := string(make([]byte, 500))
	for i := range 600 {
		c.mustPropose(leader, fmt.Sprint(i, filler))
	}
	c.wait("the log to be released", func() bool { return c.leader().node.Status().First > 100 })
	slow.start()
	if got := c.settle(); len(got) != 600 {
		t.Fatalf("%d commands", len(got))
	}
	if first := slow.node.Status().First; first < 100 {
		t.Fatalf("the log begins at %d: no snapshot was installed", first)
	}
	c.wait("the received files to be gone", func() bool {
		infos, err := slow.disk.List("snap")
		return err == nil && len(infos) == 0
	})
	// It goes on as any other member, also after a crash.
	slow.kill(true)
	slow.start()
	c.mustPropose(slow, "after")
	if got := c.settle(); len(got) != 601 {
		t.Fatalf("%d commands", len(got))
	}
}

func TestStalledDiskStepsAside(t *testing.T) {
	c := newCluster(t, 3, nil)
	release := make(chan struct{})
	var stalled atomic.Pointer[vfs.Fault]
	for _, m := range c.members {
		fault := vfs.NewFault(m.disk)
		m.fs = fault
		fault.SetRules(vfs.Rule{Op: vfs.OpSync, Hook: func(vfs.Call) {
			if stalled.Load() == fault {
				<-release
			}
		}})
	}
	c.startAll()
	leader := c.leader()
	c.mustPropose(leader, "before")
	stalled.Store(leader.fs.(*vfs.Fault))
	ended := make(chan error, 1)
	go func() { ended <- leader.propose("during") }()
	c.wait("another leader", func() bool {
		for _, m := range c.members {
			if m != leader && m.node.Status().Role == Leader {
				return true
			}
		}
		return false
	})
	other := c.leader()
	c.mustPropose(other, "by another")
	close(release)
	if err := <-ended; err != nil {
		t.Fatalf("the command of the stalled member: %v", err)
	}
	if got := c.settle(); len(got) != 3 {
		t.Fatalf("commands: %v", got)
	}
}

func TestFailedSyncStopsTheNode(t *testing.T) {
	c := newCluster(t, 3, nil)
	var fatal atomic.Int64
	c.tune = func(cfg *Config) { cfg.OnFatal = func(error) { fatal.Add(1) } }
	for _, m := range c.members {
		m.fs = vfs.NewFault(m.disk)
	}
	c.startAll()
	leader := c.leader()
	leader.fs.(*vfs.Fault).SetRules(vfs.Rule{Op: vfs.OpSync, Err: vfs.ErrInjected})
	if err := leader.propose("x"); !errors.Is(err, ErrStopped) {
		t.Fatalf("the caller got %v", err)
	}
	if err := <-leader.ended; !errors.Is(err, vfs.ErrInjected) {
		t.Fatalf("Run returned %v", err)
	}
	leader.node = nil
	if fatal.Load() != 1 {
		t.Fatalf("OnFatal ran %d times", fatal.Load())
	}
	c.mustPropose(c.leader(), "y")
}

// TestUnreadableLog fails each read of the log when a member comes back, one after
// the other: it does not open, or its node ends with the cause.
func TestUnreadableLog(t *testing.T) {
	opened := 0
	for n := 1; ; n++ {
		c := newCluster(t, 1, nil).startAll()
		for i := range 5 {
			c.mustPropose(c.leader(), fmt.Sprint(i))
		}
		m := c.leader()
		m.kill(false)
		var hit atomic.Bool
		m.fs = vfs.NewFault(m.disk, vfs.Rule{Op: vfs.OpRead, Nth: n, Err: vfs.ErrInjected, Hook: func(vfs.Call) { hit.Store(true) }})
		node, err := Open(m.config())
		if errors.Is(err, vfs.ErrInjected) {
			continue
		} else if err != nil {
			t.Fatalf("read %d failed: %v", n, err)
		}
		m.run(node)
		c.wait("an end or a leader", func() bool { return hit.Load() || node.Status().Role == Leader && node.Status().Applied > 5 })
		if !hit.Load() {
			break
		}
		if err := <-m.ended; !errors.Is(err, vfs.ErrInjected) {
			t.Fatalf("read %d failed, and Run returned %v", n, err)
		}
		m.node = nil
		opened++
	}
	if opened == 0 {
		t.Fatal("no read failed after the start")
	}
}

func TestMembershipChange(t *testing.T) {
	c := newCluster(t, 3, nil).startAll()
	leader := c.leader()
	propose := func(m *member, op ConfOp, id api.MemberID) *raftpb.ConfState {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		got, err := m.node.ProposeConfChange(ctx, op, id, []byte("data"))
		if err != nil {
			t.Fatal(err)
		}
		return got.(*raftpb.ConfState)
	}
	var follower *member
	for _, m := range c.members {
		if m != leader {
			follower = m
		}
	}
	if cs := propose(follower, ConfAddLearner, 4); !slices.Equal(cs.GetLearners(), []uint64{4}) {
		t.Fatalf("learners %v", cs.GetLearners())
	}
	joined := c.join(4)
	c.mustPropose(leader, "a")
	c.settle()
	if !joined.node.Status().Learner {
		t.Fatal("member 4 does not know that it is a learner")
	}
	if cs := propose(leader, ConfAddVoter, 4); len(cs.GetVoters()) != 4 || len(cs.GetLearners()) != 0 {
		t.Fatalf("after the promotion: %v", cs)
	}
	if cs := propose(joined, ConfRemove, uint64id(leader)); len(cs.GetVoters()) != 3 {
		t.Fatalf("after the removal: %v", cs)
	}
	leader.shutdown()
	delete(c.members, leader.id)
	c.mustPropose(c.leader(), "b")
	if got := c.settle(); len(got) != 2 {
		t.Fatalf("commands: %v", got)
	}
}

func uint64id(m *member) api.MemberID { return m.id }

func TestLastVoterStays(t *testing.T) {
	c := newCluster(t, 1, nil).startAll()
	m := c.leader()
	for _, op := range []ConfOp{ConfRemove, ConfAddLearner} {
		got, err := m.node.ProposeConfChange(context.Background(), op, 1, nil)
		if !errors.Is(err, api.ErrMemberNotEnoughStarted) || len(got.(*raftpb.ConfState).GetVoters()) != 1 {
			t.Fatalf("operation %d: %v %v", op, got, err)
		}
	}
	c.mustPropose(m, "still here")
}

func TestBounds(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.RequestTimeout = 300 * time.Millisecond })
	m := c.members[1]
	m.start() // alone: no leader, everything waits
	if _, err := m.node.Propose(context.Background(), 1, "", make([]byte, maxCommandBytes+1)); err != ErrRequestTooLarge {
		t.Errorf("a huge command: %v", err)
	}
	if err := m.propose("x"); err != ErrNotProposed {
		t.Errorf("without a leader: %v", err)
	}
	for _, after := range []bool{false, true} {
		if err := proof(m.node, after); err != ErrTimeout {
			t.Errorf("a read without a leader: %v", err)
		}
	}
	m.shutdown()
	m.start()
	waiting := make(chan error)
	go func() { waiting <- m.propose("y") }()
	c.wait("the command to be queued", func() bool {
		var n int
		return m.node.ask(context.Background(), func() { n = m.node.core.proposals.count }) == nil && n == 1
	})
	m.stop()
	if err := <-waiting; err != ErrStopped {
		t.Errorf("a waiting caller got %v", err)
	}
	if err := m.propose("z"); err != ErrStopped {
		t.Errorf("a late caller got %v", err)
	}
	for _, after := range []bool{false, true} {
		if err := proof(m.node, after); err != ErrStopped {
			t.Errorf("a late reader got %v", err)
		}
	}
}

// TestQueueIsBounded: a member without a leader holds so many commands, no more,
// and has room again when their callers leave.
func TestQueueIsBounded(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.RequestTimeout = time.Hour })
	m := c.members[1]
	m.start()
	ctx, cancel := context.WithCancel(context.Background())
	var full atomic.Int64
	var callers sync.WaitGroup
	for range api.MaxQueuedCommands + 10 {
		callers.Go(func() {
			if _, err := m.node.Propose(ctx, 1, "", nil); err == ErrTooManyRequests {
				full.Add(1)
			}
		})
	}
	c.wait("ten callers too many", func() bool { return full.Load() == 10 })
	cancel()
	callers.Wait()
	c.members[2].start()
	c.leader()
	c.mustPropose(m, "room again")
}

func TestCall(t *testing.T) {
	c := newCluster(t, 3, nil)
	for _, p := range c.peers {
		c.members[p.ID].start()
	}
	// Handlers are set before Run in earnest; here the members idle meanwhile.
	leader := c.leader()
	for _, m := range c.members {
		m.node.inbox.post(func() {})
	}
	if _, err := leader.node.Call(context.Background(), 0, 9, nil); err == nil {
		t.Error("a call that nobody handles succeeded")
	}
	if err := leader.node.TransferLeaderTo(context.Background(), 77); err != ErrBadTransferee {
		t.Errorf("a hand-over to a stranger: %v", err)
	}
}
