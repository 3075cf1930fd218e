package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// TestSnapshotStream puts the file together as etcdctl does.
func TestSnapshotStream(t *testing.T) {
	s := newSolo(t)
	ctx := callContext(t)
	for i := range 20 {
		if _, err := s.kv.Put(ctx, putSome(i)); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := pb.NewMaintenanceClient(s.conn).Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var file, last []byte
	left := uint64(1 << 60)
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if resp.Version != "3.7.0" || len(resp.Blob) > snapshotChunk || resp.RemainingBytes > left {
			t.Fatalf("version %q, %d bytes, %d left after %d", resp.Version, len(resp.Blob), resp.RemainingBytes, left)
		}
		left = resp.RemainingBytes
		file, last = append(file, last...), resp.Blob
	}
	if sum := sha256.Sum256(file); !bytes.Equal(sum[:], last) || left != 0 {
		t.Errorf("digest %x of a file with %x, %d bytes left", last, sum, left)
	}
	e, err := engine.LoadMemory(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	view, err := e.View()
	if err != nil {
		t.Fatal(err)
	}
	defer view.Release()
	n := 0
	view.Scan(engine.Key, nil, nil, func(_, _ []byte) bool { n++; return true })
	if n != 20 {
		t.Errorf("the file holds %d records", n)
	}
}

// TestHashesAgree wants equal hashes on all members for the same history.
// newest is the revision of whoever is ahead.
func newest(members []*testMember) (rev api.Revision) {
	for _, m := range members {
		rev = max(rev, m.Store().Revision())
	}
	return rev
}

func TestHashesAgree(t *testing.T) {
	c := newTestCluster(3)
	members := c.startAll(t)
	ctx := callContext(t)
	leader(t, members...)
	for i := range 60 {
		kv := members[i%3].kv()
		var err error
		switch {
		case i%7 == 6:
			_, err = kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: fmt.Append(nil, "k", i%5)})
		case i == 40:
			_, err = kv.Compact(ctx, &pb.CompactionRequest{Revision: 20})
		default:
			_, err = kv.Put(ctx, &pb.PutRequest{Key: fmt.Append(nil, "k", i%5), Value: fmt.Append(nil, i)})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	rev := newest(members)
	for _, at := range []int64{0, 20, 35} {
		var first *pb.HashKVResponse
		for _, m := range members {
			waitFor(t, "all members to stand equal", func() bool { return m.Store().Revision() == rev })
			got, err := pb.NewMaintenanceClient(m.conn).HashKV(ctx, &pb.HashKVRequest{Revision: at})
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = got
			}
			wantAt := at
			if at == 0 {
				wantAt = int64(rev)
			}
			if got.Hash != first.Hash || got.Hash == 0 || got.CompactRevision != 20 || got.HashRevision != wantAt ||
				got.Header.Revision != int64(rev) || got.Header.MemberId != uint64(m.id) {
				t.Errorf("at %d: %v, first was %v", at, got, first)
			}
		}
	}
	var sums []uint32
	for _, m := range members {
		resp, err := pb.NewMaintenanceClient(m.conn).Hash(ctx, &pb.HashRequest{})
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, resp.Hash)
	}
	client := pb.NewMaintenanceClient(members[0].conn)
	_, err := client.HashKV(ctx, &pb.HashKVRequest{Revision: 19})
	refused(t, "a compacted revision", err, api.ErrCompacted)
	_, err = client.HashKV(ctx, &pb.HashKVRequest{Revision: 1000})
	refused(t, "a future revision", err, api.ErrFutureRevision)
	// The files differ for a moment after a compaction only.
	waitFor(t, "equal files", func() bool {
		for i, m := range members {
			resp, err := pb.NewMaintenanceClient(m.conn).Hash(ctx, &pb.HashRequest{})
			if err != nil {
				t.Fatal(err)
			}
			sums[i] = resp.Hash
		}
		return sums[0] == sums[1] && sums[1] == sums[2]
	})
}

// TestMoveLeaderLost: another member than the one that should is elected. Its caller hears
// of it when that one has led for a while, or that all is well when it passed leadership on.
func TestMoveLeaderLost(t *testing.T) {
	const to, wins = 7, 8
	for _, passedOn := range []bool{false, true} {
		s := newSolo(t)
		s.members.current.Store(s.members.current.Load().with(Member{ID: to}))
		s.log.mu.wins = wins
		ended := make(chan error, 1)
		go func() {
			_, err := pb.NewMaintenanceClient(s.conn).MoveLeader(callContext(t), &pb.MoveLeaderRequest{TargetID: to})
			ended <- err
		}()
		waitFor(t, "the other one to lead", func() bool { return s.log.Status().Leader == wins })
		if passedOn {
			s.log.elect(to)
			if err := <-ended; err != nil {
				t.Errorf("passed on: %v", err)
			}
			continue
		}
		refused(t, "after a lost election", s.inTime(t, ended), api.ErrTimeoutLeaderTransfer)
	}
}

func TestMoveLeaderRefusals(t *testing.T) {
	c := newTestCluster(3)
	members := c.startAll(t)
	ctx := callContext(t)
	old := leader(t, members...)
	client := pb.NewMaintenanceClient(old.conn)
	_, err := client.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 0xdead})
	refused(t, "an unknown member", err, api.ErrBadTransferee)
	if _, err := client.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: uint64(old.id)}); err != nil {
		t.Errorf("to the leader itself: %v", err)
	}
	next := moveLeader(ctx, t, members)
	_, err = client.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: uint64(next.id)})
	refused(t, "by a follower", err, api.ErrNotLeader)
	for _, m := range members {
		if m != next {
			m.end(t)
			short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			_, err := pb.NewMaintenanceClient(next.conn).MoveLeader(short, &pb.MoveLeaderRequest{TargetID: uint64(m.id)})
			cancel()
			if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Unknown {
				t.Errorf("to a member that is down: %v", err)
			}
			break
		}
	}
}

// TestDefragmentRPC writes while every member rewrites its file.
func TestDefragmentRPC(t *testing.T) {
	c := newTestCluster(3)
	members := c.startAll(t)
	ctx := callContext(t)
	leader(t, members...)
	stop, wrote := make(chan struct{}), make(chan int)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				wrote <- i
				return
			default:
			}
			if _, err := members[i%3].kv().Put(ctx, &pb.PutRequest{Key: fmt.Append(nil, "k", i)}); err != nil {
				t.Errorf("put %d: %v", i, err)
			}
		}
	}()
	for _, m := range members {
		for range 3 {
			if resp, err := pb.NewMaintenanceClient(m.conn).Defragment(ctx, &pb.DefragmentRequest{}); err != nil || resp.Header != nil {
				t.Errorf("%v, %v", resp, err)
			}
		}
	}
	close(stop)
	n := <-wrote
	resp, err := members[0].kv().Range(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), CountOnly: true})
	if err != nil || resp.Count != int64(n) || n == 0 {
		t.Errorf("%v of %d writes, %v", resp.GetCount(), n, err)
	}
}
