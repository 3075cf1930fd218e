package maintenance

import (
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/compat/cluster"
)

// TestRecoverProcess kills all three members under load, takes the leader's
// directory for the only one that survived, and finds in the cluster made of it
// everything that was acknowledged.
func TestRecoverProcess(t *testing.T) {
	ctx := limited(t)
	s := start(ctx, t, "kvd", cluster.Options{Members: 3})
	leader, err := s.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := leader.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	kv := pb.NewKVClient(conn)
	done := make(chan int)
	go func() {
		for n := 0; ; n++ {
			if _, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "k%06d", n)}); err != nil {
				done <- n
				return
			}
		}
	}()
	eventually(ctx, t, "writes", func() bool {
		resp, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), CountOnly: true})
		return err == nil && resp.Count > 200
	})
	s.Close()
	acked := <-done

	out := tool(ctx, t, "kvctl", "cluster", "recover", "--data-dir", leader.DataDir(), "--yes")
	if !strings.Contains(out, "Done. Next:") {
		t.Errorf("kvctl says\n%s", out)
	}
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	if err := leader.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	resp, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: fmt.Appendf(nil, "k%06d", acked), CountOnly: true})
	if err != nil || resp.Count != int64(acked) {
		t.Errorf("%d of %d acknowledged keys, %v", resp.GetCount(), acked, err)
	}
	list, err := pb.NewClusterClient(conn).MemberList(ctx, &pb.MemberListRequest{})
	if err != nil || len(list.Members) != 1 {
		t.Errorf("members: %v, %v", list, err)
	}
}
