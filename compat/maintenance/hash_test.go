package maintenance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/compat/cluster"
)

// write does the same to both sides and checks that they stay together.
func write(ctx context.Context, t *testing.T, rng *rand.Rand, pair [2]*side) (rev int64) {
	t.Helper()
	key := []byte(fmt.Sprintf("k%d", rng.IntN(9)))
	value := make([]byte, rng.IntN(50))
	kind, lease := rng.IntN(10), int64(0)
	if rng.IntN(4) == 0 {
		lease = 77
	}
	for i, s := range pair {
		var h *pb.ResponseHeader
		var err error
		switch {
		case kind < 6:
			var resp *pb.PutResponse
			resp, err = s.kv.Put(ctx, &pb.PutRequest{Key: key, Value: value, Lease: lease})
			h = resp.GetHeader()
		case kind < 8:
			var resp *pb.DeleteRangeResponse
			resp, err = s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: key, RangeEnd: []byte("k7")})
			h = resp.GetHeader()
		default:
			op := func(k string) *pb.RequestOp {
				return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(k), Value: value}}}
			}
			var resp *pb.TxnResponse
			resp, err = s.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op("a"), op(string(key)), op("z")}})
			h = resp.GetHeader()
		}
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && h.Revision != rev {
			t.Fatalf("revisions %d and %d", rev, h.Revision)
		}
		rev = h.Revision
	}
	return rev
}

// sameHash compares one HashKV. A compaction that is still under way may answer
// with the hash of what it has reached, so a difference is looked at again.
func sameHash(ctx context.Context, t *testing.T, pair [2]*side, at int64) {
	t.Helper()
	var text [2]string
	ask := func() bool {
		for i, s := range pair {
			resp, err := s.admin.HashKV(ctx, &pb.HashKVRequest{Revision: at})
			text[i] = fmt.Sprintf("%s hash=%d compact=%d at=%d rev=%d", verdict(err), resp.GetHash(), resp.GetCompactRevision(), resp.GetHashRevision(), resp.GetHeader().GetRevision())
		}
		return text[0] == text[1]
	}
	for range 100 {
		if ask() {
			return
		}
		// Wait for one flush interval at most, in small steps.
		pause(ctx)
	}
	t.Errorf("HashKV at %d:\n  etcd %s\n  kvd  %s", at, text[0], text[1])
}

// TestSameHashKV writes one history to both and compares the hash at every
// revision, before and after compactions.
func TestSameHashKV(t *testing.T) {
	ctx := limited(t)
	pair := [2]*side{
		start(ctx, t, "etcd", cluster.Options{NoSync: true}),
		start(ctx, t, "kvd", cluster.Options{NoSync: true, Args: []string{"--feature-gates=CompactHashCheck=true"}}),
	}
	for _, s := range pair {
		if _, err := pb.NewLeaseClient(s.conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 77, TTL: 3600}); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	sameHash(ctx, t, pair, 0)
	compacted := int64(0)
	for round := range 8 {
		var rev int64
		for range 25 {
			rev = write(ctx, t, rng, pair)
		}
		for at := max(compacted-2, -1); at <= rev+1; at++ {
			sameHash(ctx, t, pair, at)
		}
		compacted = rev - int64(rng.IntN(20))
		if round == 6 {
			// With no live key etcd leaves nothing out.
			for _, s := range pair {
				if _, err := s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}); err != nil {
					t.Fatal(err)
				}
			}
			compacted = rev
		}
		for _, s := range pair {
			if _, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: compacted, Physical: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
}
