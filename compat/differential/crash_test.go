package differential

import (
	"context"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/compat/cluster"
)

// TestKeepAfterDelete sends kvd the transaction that makes etcd panic on every
// member: it deletes everything from a key on (an end of "\x00" is not seen by
// etcd's check for overlaps) and then puts the key with ignore_value. It must be
// answered, and the member must go on, also after a restart.
func TestKeepAfterDelete(t *testing.T) {
	sys, err := cluster.UnderTest()
	if err != nil {
		t.Fatal(err)
	}
	if sys.Name == "etcd" {
		t.Skip("etcd 3.7.3 panics on this request")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, conn := startOne(ctx, t, sys)
	kv := pb.NewKVClient(conn)
	key := []byte("k")
	if _, err := kv.Put(ctx, &pb.PutRequest{Key: key, Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	remove := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key, RangeEnd: []byte{0}}}}
	for _, put := range []*pb.PutRequest{{Key: key, IgnoreValue: true}, {Key: key, IgnoreLease: true}} {
		keep := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}}
		resp, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{remove, keep}})
		t.Logf("%v: %v, %v", put, resp, err)
		if c.Members[0].PID() == 0 {
			t.Fatal("the member ended")
		}
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: key, Value: []byte("after")}); err != nil {
			t.Fatal(err)
		}
	}
	c.Members[0].Kill()
	if err := c.Members[0].Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

// startOne starts a member and connects to it, until the test ends.
func startOne(ctx context.Context, t *testing.T, sys cluster.System) (*cluster.Cluster, *grpc.ClientConn) {
	t.Helper()
	c, err := cluster.Start(ctx, sys, cluster.Options{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	conn, err := c.Members[0].Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return c, conn
}
