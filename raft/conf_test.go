package raft

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/vfs"
)

// join starts one more member, which the cluster has been told of.
func (c *cluster) join(id api.MemberID) *member {
	c.tune = func(cfg *Config) { cfg.Bootstrap = false }
	m := &member{c: c, id: id, disk: vfs.NewMem(uint64(id))}
	c.peers = append(c.peers, Peer{ID: id})
	var peers []transport.Peer
	for _, p := range c.peers {
		peers = append(peers, transport.Peer{ID: p.ID})
	}
	for _, o := range c.members {
		o.node.cfg.Transport.SetPeers(peers)
	}
	c.members[id] = m
	m.start()
	return m
}

// others are the members beside one.
func (c *cluster) others(m *member) (out []*member) {
	for _, o := range c.members {
		if o != m {
			out = append(out, o)
		}
	}
	return out
}

// TestLearnerDoesNotCommit: with one of two voters gone, an entry reaches the
// leader and a learner, which are two of three and not a majority of the voters.
func TestLearnerDoesNotCommit(t *testing.T) {
	c := newCluster(t, 2, nil).startAll()
	leader := c.leader()
	voter := c.others(leader)[0]
	if _, err := leader.node.ProposeConfChange(context.Background(), ConfAddLearner, 3, nil); err != nil {
		t.Fatal(err)
	}
	learner := c.join(3)
	c.mustPropose(leader, "a")
	c.settle()
	voter.kill(true)
	last := leader.node.Status().Last
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { _, _ = leader.node.Propose(ctx, 1, "", []byte("b")) }) // it cannot be committed
	c.wait("the learner to have the entry", func() bool { return learner.node.Status().Last > last })
	c.wait("the leader to see that it is alone", func() bool { return leader.node.Status().Role != Leader })
	if got := leader.node.Status().Committed; got > last {
		t.Errorf("entry %d is committed, which one of two voters has", got)
	}
	cancel()
	wait.Wait()
}

// TestSnapshotPromotes: a learner that was away when it became a voter learns so
// from a snapshot, with the same leader in the same term.
func TestSnapshotPromotes(t *testing.T) {
	c := newCluster(t, 2, func(cfg *Config) { cfg.LogRetention, cfg.SegmentSize = 32<<10, 16<<10 }).startAll()
	leader := c.leader()
	change := func(op ConfOp) {
		t.Helper()
		if _, err := leader.node.ProposeConfChange(context.Background(), op, 3, nil); err != nil {
			t.Fatal(err)
		}
	}
	change(ConfAddLearner)
	learner := c.join(3)
	c.settle()
	learner.kill(false)
	change(ConfAddVoter)
	filler := string(make([]byte, 500))
	for i := range 300 {
		c.mustPropose(leader, fmt.Sprint(i, filler))
	}
	c.wait("the log to be released", func() bool { return c.leader().node.Status().First > 100 })
	learner.start()
	c.settle()
	if first := learner.node.Status().First; first < 100 {
		t.Fatalf("the log begins at %d: no snapshot was installed", first)
	}
	c.wait("the member to see itself as a voter", func() bool { return !learner.node.Status().Learner })
}

// TestOneChangeAtATime asks a leader that has lost its majority for several
// changes of the membership: its log takes one, the next has to wait for it.
func TestOneChangeAtATime(t *testing.T) {
	c := newCluster(t, 3, nil).startAll()
	leader := c.leader()
	c.mustPropose(leader, "a")
	c.settle()
	for _, o := range c.others(leader) {
		o.kill(true)
	}
	last := leader.node.Status().Last
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	for id := range api.MemberID(3) {
		wait.Go(func() { _, _ = leader.node.ProposeConfChange(ctx, ConfAddLearner, 10+id, nil) })
	}
	c.wait("the leader to see that it is alone", func() bool { return leader.node.Status().Role != Leader })
	if got := leader.node.Status().Last; got > last+1 {
		t.Errorf("the log took %d changes at once", got-last)
	}
	cancel()
	wait.Wait()
}
