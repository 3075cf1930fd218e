package workload

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// Source is one client's part of a workload. It is told what became of a request
// before it is asked for the next.
type Source interface {
	// Next is the next request; no method: none this time.
	Next() (method string, req proto.Message)
	Learn(op *history.Op)
}

// The methods of etcd's API that sources ask for.
const (
	methodRange     = "etcdserverpb.KV/Range"
	methodTxn       = "etcdserverpb.KV/Txn"
	methodGrant     = "etcdserverpb.Lease/LeaseGrant"
	methodRevoke    = "etcdserverpb.Lease/LeaseRevoke"
	methodKeepAlive = "etcdserverpb.Lease/LeaseKeepAlive"
)

// tagger makes values that nobody else writes.
type tagger struct {
	client int
	r      *rand.Rand
	size   int // the most that a value is made longer by
	n      int
}

func (t *tagger) tag() string {
	t.n++
	return fmt.Sprintf("%d:%d", t.client, t.n)
}

// value is a tag that is filled up.
func (t *tagger) value() []byte {
	return []byte(t.tag() + " " + strings.Repeat("x", t.r.IntN(t.size+1)))
}

// lease is an id that nobody else grants.
func (t *tagger) lease() int64 {
	t.n++
	return int64(t.client+1)<<32 | int64(t.n)
}

func createdAt(key string, rev int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: rev}}
}

func changedAt(key string, rev int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}
}
