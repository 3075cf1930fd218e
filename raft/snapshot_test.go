package raft

import (
	"context"
	"sync/atomic"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
)

// TestSnapshotOfALaterTermStays: who led a term when a snapshot was asked for, and
// has applied an entry of the next one when it is taken, does not send it.
func TestSnapshotOfALaterTermStays(t *testing.T) {
	var sent atomic.Int32
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.Transport = spoiler{cfg.Transport, func(api.MemberID, *raftpb.Message, transport.Snapshot) bool {
			sent.Add(1)
			return false
		}}
	}).startAll()
	leader, others := c.split()
	c.mustPropose(leader, "a")
	n, to, term := leader.node, others[0].id, uint64(leader.node.Status().Term)
	send := func(term uint64) (ended func() bool) {
		on := func(fn func()) {
			if err := n.ask(context.Background(), fn); err != nil {
				t.Fatal(err)
			}
		}
		on(func() { n.sendRepair(uint64(to), term) })
		return func() (ok bool) {
			on(func() { h, held := n.holds[uint64(to)]; ok = !held || h.until > 0 })
			return ok
		}
	}
	c.wait("the snapshot to be given up", send(term-1))
	if n := sent.Load(); n != 0 {
		t.Fatalf("%d snapshots of term %d were sent as of the one before", n, term)
	}
	c.wait("the snapshot to be sent", send(term))
	if n := sent.Load(); n != 1 {
		t.Fatalf("%d snapshots of the leader's own term were sent", n)
	}
}

// TestSnapshotOfALaterTermIsRefused: a member of an older build may send one.
func TestSnapshotOfALaterTermIsRefused(t *testing.T) {
	c := newCluster(t, 3, nil).startAll()
	leader, others := c.split()
	c.mustPropose(leader, "a")
	c.settle()
	m, st := others[0], leader.node.Status()
	state := toyState{Index: st.Last + 10, Term: st.Term + 1, Conf: leader.toy.mu.Conf}
	if err := writeFile(m.disk, "snap/later", state.encode()); err != nil {
		t.Fatal(err)
	}
	meta := transport.SnapshotMeta{Index: state.Index, Term: state.Term, ConfState: state.Conf}
	handler{m.node}.SnapshotReceived(&raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: new(uint64(leader.id)), To: new(uint64(m.id)), Term: new(uint64(st.Term)),
	}, meta, "snap/later")
	c.wait("the file to be gone", func() bool {
		infos, err := m.disk.List("snap")
		return err == nil && len(infos) == 0
	})
	c.mustPropose(m, "b")
	if got := c.settle(); len(got) != 2 {
		t.Fatalf("%d commands after a snapshot that was refused", len(got))
	}
	if first := m.node.Status().First; first > st.Last {
		t.Fatalf("the log begins at %d: the snapshot was installed", first)
	}
}
