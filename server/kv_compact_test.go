package server

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestPhysicalCompactionWaits: the answer comes when the member has deleted the
// records, and without it at once. Nobody but the test flushes this store.
func TestPhysicalCompactionWaits(t *testing.T) {
	waits := make(chan struct{}, 1)
	s := newSolo(t)
	s.Server.wait = func(ctx context.Context, further <-chan struct{}, d time.Duration) bool {
		select {
		case waits <- struct{}{}:
		default:
		}
		return s.await(ctx, further, d)
	}
	ctx := callContext(t)
	for range 9 {
		if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: 3}); err != nil {
		t.Fatal(err)
	}

	impatient, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	compact := func(ctx context.Context, at int64) {
		go func() {
			_, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: at, Physical: true})
			done <- err
		}()
		select {
		case <-waits:
		case err := <-done:
			t.Fatalf("a physical compaction at %d was answered with its records there: %v", at, err)
		}
	}
	compact(impatient, 5)
	cancel()
	if err := <-done; status.Code(err) != codes.Canceled {
		t.Errorf("who gives up hears %v", err)
	}

	compact(ctx, 8)
	if err := s.store.Flush(); err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		var err error
		if more, err = s.store.CompactStep(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := s.store.Stats().Revisions; n != 3 {
		t.Errorf("%d records are left, want the three from 8 on", n)
	}
}
