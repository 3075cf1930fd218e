package transport

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

// memoryTrio starts members 1 to 3 on a perfect network.
func memoryTrio(t *testing.T, clk clock.Clock) (*MemoryNetwork, []*MemoryNode, []*recorder) {
	n := NewMemoryNetwork(1, clk)
	var nodes []*MemoryNode
	var recorders []*recorder
	for id := api.MemberID(1); id <= 3; id++ {
		node, rec := startMemory(t, n, id)
		nodes, recorders = append(nodes, node), append(recorders, rec)
	}
	return n, nodes, recorders
}

func startMemory(t *testing.T, n *MemoryNetwork, id api.MemberID) (*MemoryNode, *recorder) {
	node, rec := n.Node(id), newRecorder()
	node.SetPeers([]Peer{{ID: 1}, {ID: 2}, {ID: 3}})
	if err := node.Start(rec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	return node, rec
}

func TestMemoryDeliversInOrder(t *testing.T) {
	_, nodes, recs := memoryTrio(t, clock.System())
	for i := range uint64(100) {
		nodes[0].Send(2, []*raftpb.Message{heartbeat(1, 2, i)})
	}
	recs[1].await(t, 100, "message MsgHeartbeat from 1")
	got := recs[1].received()
	if !slices.IsSorted(got) || len(got) != 100 {
		t.Fatalf("got %v", got)
	}
	if !nodes[0].Forward(2, 7, []byte("batch")) {
		t.Fatal("a forward to a living member was refused")
	}
	recs[1].await(t, 1, `forwarded from 1 term 7 "batch"`)
}

func TestMemoryTellsOfPeers(t *testing.T) {
	n, nodes, recs := memoryTrio(t, clock.System())
	for i, rec := range recs {
		rec.await(t, 2, "up ")
		_ = i
	}
	n.Kill(3)
	recs[0].await(t, 1, "down 3")
	recs[1].await(t, 1, "down 3")
	if nodes[0].Forward(3, 1, nil) {
		t.Fatal("a forward to a killed member was taken")
	}
	nodes[0].Send(3, []*raftpb.Message{heartbeat(1, 3, 1)})
	recs[0].await(t, 1, "unreachable 3")
	_, again := startMemory(t, n, 3)
	recs[0].await(t, 2, "up 3")
	again.await(t, 1, "up 1")
	nodes[0].Send(3, []*raftpb.Message{heartbeat(1, 3, 2)})
	again.await(t, 1, "message MsgHeartbeat from 1 index 2")
	if recs[2].count("message") != 0 {
		t.Fatal("the killed process got a message")
	}
}

func TestMemoryFaultsDependOnTheSeedOnly(t *testing.T) {
	run := func() []uint64 {
		n, nodes, recs := memoryTrio(t, clock.System())
		n.SetLinkFaults(1, 2, Faults{Drop: 0.3, Duplicate: 0.2})
		for i := range uint64(200) {
			nodes[0].Send(2, []*raftpb.Message{heartbeat(1, 2, i)})
		}
		n.Heal()
		nodes[0].Send(2, []*raftpb.Message{heartbeat(1, 2, 1000)})
		recs[1].await(t, 1, "message MsgHeartbeat from 1 index 1000")
		return recs[1].received()
	}
	first, second := run(), run()
	if !slices.Equal(first, second) {
		t.Fatalf("same seed, different fates:\n%v\n%v", first, second)
	}
	distinct := len(slices.Compact(slices.Clone(first)))
	if distinct > 190 || distinct < 100 || distinct == len(first) {
		t.Fatalf("%d of 201 arrived, %d with copies: the faults do nothing", distinct, len(first))
	}
}

func TestMemoryDelayFollowsTheClock(t *testing.T) {
	clk := clock.NewFake(time.Unix(0, 0))
	n, nodes, recs := memoryTrio(t, clk)
	n.SetFaults(Faults{MinDelay: 10 * time.Millisecond, MaxDelay: 10 * time.Millisecond})
	nodes[0].Send(2, []*raftpb.Message{heartbeat(1, 2, 1)})
	n.Heal()
	nodes[0].Send(2, []*raftpb.Message{appendMessage(1, 2, 2)}) // another class overtakes
	recs[1].await(t, 1, "message MsgApp from 1 index 2")
	if recs[1].count("message MsgHeartbeat") != 0 {
		t.Fatal("the delayed message came before its time")
	}
	clk.Advance(20 * time.Millisecond)
	recs[1].await(t, 1, "message MsgHeartbeat from 1 index 1")
}

func TestMemoryCutIsOneWay(t *testing.T) {
	n, nodes, recs := memoryTrio(t, clock.System())
	n.Cut(1, 2)
	nodes[0].Send(2, []*raftpb.Message{heartbeat(1, 2, 1)})
	nodes[1].Send(1, []*raftpb.Message{heartbeat(2, 1, 2)})
	recs[0].await(t, 1, "message MsgHeartbeat from 2 index 2")
	n.Restore(1, 2)
	nodes[0].Send(2, []*raftpb.Message{heartbeat(1, 2, 3)})
	recs[1].await(t, 1, "message MsgHeartbeat from 1 index 3")
	if got := recs[1].received(); len(got) != 1 {
		t.Fatalf("got %v through a cut", got)
	}
	if recs[0].count("down")+recs[1].count("down") != 0 {
		t.Fatal("a cut is silent")
	}
}

func TestMemoryPartitionAndCall(t *testing.T) {
	n, nodes, _ := memoryTrio(t, clock.System())
	answer, err := nodes[0].Call(t.Context(), 2, 9, []byte("hello"))
	if err != nil || string(answer) != "1/9/hello" {
		t.Fatalf("%q, %v", answer, err)
	}
	n.Partition([]api.MemberID{1}, []api.MemberID{2, 3})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := nodes[0].Call(ctx, 2, 9, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a call over a cut link: %v", err)
	}
	if _, err := nodes[1].Call(t.Context(), 3, 9, nil); err != nil {
		t.Fatalf("within the group: %v", err)
	}
	n.Kill(3)
	if _, err := nodes[1].Call(t.Context(), 3, 9, nil); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("a call to a killed member: %v", err)
	}
	if _, err := nodes[1].Call(t.Context(), 4, 9, nil); !errors.Is(err, ErrUnknownPeer) {
		t.Fatalf("a call to nobody: %v", err)
	}
}

func TestMemoryCallEndsWhenThePeerIsKilled(t *testing.T) {
	n, nodes, recs := memoryTrio(t, clock.System())
	entered := make(chan struct{})
	recs[1].call = func(ctx context.Context, _ api.MemberID, _ uint8, _ []byte) ([]byte, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	go func() {
		<-entered
		n.Kill(2)
	}()
	if _, err := nodes[0].Call(t.Context(), 2, 1, nil); !errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("got %v", err)
	}
}
