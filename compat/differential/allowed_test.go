package differential

import (
	"context"
	"fmt"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/compat/cluster"
)

// TestPrevAtCompacted shows the one difference between watches that is allowed
// (withoutPrevAtCompacted): a watch with prev_kv from exactly the compacted
// revision, whose event there replaced a value of before. etcd's event lacks the
// value. kvd gives it while it has it, and then ends the watch, with the next
// revision for compact_revision, where the client can go on; it never sends the
// event without the value.
func TestPrevAtCompacted(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, name := range []string{"etcd", "kvd"} {
		for _, physical := range []bool{false, true} {
			got := watchAtCompacted(ctx, t, name, physical)
			want := map[string]bool{"event without previous value": true}
			if name == "kvd" {
				want = map[string]bool{"event with previous value": true, "canceled at 4": true}
			}
			if !want[got] {
				t.Errorf("%s, physical %v: %s", name, physical, got)
			}
		}
	}
}

func watchAtCompacted(ctx context.Context, t *testing.T, name string, physical bool) string {
	sys, err := cluster.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	_, conn := startOne(ctx, t, sys)
	kv := pb.NewKVClient(conn)
	for range 2 {
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: 3, Physical: physical}); err != nil {
		t.Fatal(err)
	}
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte("k"), StartRevision: 3, PrevKv: true}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	for {
		resp, err := stream.Recv()
		switch {
		case err != nil:
			return err.Error()
		case resp.Canceled:
			return fmt.Sprint("canceled at ", resp.CompactRevision)
		case len(resp.Events) > 0 && resp.Events[0].PrevKv != nil:
			return "event with previous value"
		case len(resp.Events) > 0:
			return "event without previous value"
		}
	}
}
