package workload

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/oracle"
)

// counters is how many keys are raised by compare-and-swap alone.
const counters = 3

// MaxTTL is the longest that a lease is granted for, in seconds.
const MaxTTL = 8

// Mix is how often a client does what, in parts of the sum.
type Mix struct {
	Put, Get, List, Stale, Delete, Swap, Count, Txn, ReadTxn, Old, Compact, Grant, KeepAlive, Revoke, LeasedPut int
}

// Mixed asks for some of everything, on a few keys that all its likes use too.
type Mixed struct {
	Client     int // tags its values
	R          *rand.Rand
	Mix        Mix
	Keys       int
	ValueBytes int

	tags   int
	leases []int64
	known  map[string]known // what it last saw of keys
}

// known is what a client believes of a key.
type known struct {
	mod   int64
	value string
}

// Next makes up the client's next request; no method: none this time.
func (c *Mixed) Next() (method string, req proto.Message) {
	if c.known == nil {
		c.known = map[string]known{}
	}
	r, x := c.R, c.Mix
	weights := []struct {
		n    int
		make func() (string, proto.Message)
	}{
		{x.Put, c.put}, {x.Get, c.get}, {x.List, c.list}, {x.Stale, c.stale}, {x.Delete, c.remove}, {x.Swap, c.swap}, {x.Count, c.count},
		{x.Txn, c.txn}, {x.ReadTxn, c.readTxn}, {x.Old, c.old}, {x.Compact, c.compact}, {x.Grant, c.grant}, {x.KeepAlive, c.keepAlive},
		{x.Revoke, c.revoke}, {x.LeasedPut, c.leasedPut},
	}
	sum := 0
	for _, w := range weights {
		sum += w.n
	}
	n := r.IntN(sum)
	for _, w := range weights {
		if n -= w.n; n < 0 {
			return w.make()
		}
	}
	panic("not reached: the weights add up")
}

func (c *Mixed) key() []byte {
	return fmt.Appendf(nil, "key/%03d", c.R.IntN(c.Keys))
}

// span is some keys, often all.
func (c *Mixed) span() (key, end []byte) {
	if c.R.IntN(2) == 0 {
		return []byte("key/"), []byte("key0")
	}
	a, b := c.key(), c.key()
	if string(a) > string(b) {
		a, b = b, a
	}
	return a, append(b, 0)
}

// tag is a value that nobody else writes.
func (c *Mixed) tag() []byte {
	c.tags++
	b := fmt.Appendf(nil, "%d:%d ", c.Client, c.tags)
	return append(b, strings.Repeat("x", c.R.IntN(c.ValueBytes))...)
}

func (c *Mixed) put() (string, proto.Message) {
	return "etcdserverpb.KV/Put", &pb.PutRequest{Key: c.key(), Value: c.tag(), PrevKv: c.R.IntN(4) == 0}
}

func (c *Mixed) leasedPut() (string, proto.Message) {
	if len(c.leases) == 0 {
		return c.grant()
	}
	return "etcdserverpb.KV/Put", &pb.PutRequest{Key: c.key(), Value: c.tag(), Lease: c.lease()}
}

func (c *Mixed) get() (string, proto.Message) {
	return "etcdserverpb.KV/Range", &pb.RangeRequest{Key: c.key()}
}

func (c *Mixed) list() (string, proto.Message) {
	r := c.R
	key, end := c.span()
	q := &pb.RangeRequest{Key: key, RangeEnd: end, KeysOnly: r.IntN(4) == 0, CountOnly: r.IntN(4) == 0}
	if r.IntN(2) == 0 {
		q.Limit = 1 + r.Int64N(5)
	}
	if r.IntN(4) == 0 {
		q.SortOrder = pb.RangeRequest_DESCEND
	}
	return "etcdserverpb.KV/Range", q
}

func (c *Mixed) stale() (string, proto.Message) {
	_, q := c.list()
	q.(*pb.RangeRequest).Serializable = true
	return "etcdserverpb.KV/Range", q
}

// old reads at a revision that it has seen, which may be compacted by now.
func (c *Mixed) old() (string, proto.Message) {
	_, q := c.list()
	rev := c.seen()
	if rev == 0 {
		return "", nil
	}
	q.(*pb.RangeRequest).Revision = rev
	return "etcdserverpb.KV/Range", q
}

// seen is a revision from the client's past; 0 when it has none.
func (c *Mixed) seen() int64 {
	for range 5 {
		if k, ok := c.known[string(c.key())]; ok {
			return k.mod
		}
	}
	return 0
}

func (c *Mixed) remove() (string, proto.Message) {
	q := &pb.DeleteRangeRequest{Key: c.key(), PrevKv: c.R.IntN(4) == 0}
	if c.R.IntN(6) == 0 {
		q.Key, q.RangeEnd = c.span()
	}
	return "etcdserverpb.KV/DeleteRange", q
}

// swap is the write of a control plane: guarded by the revision that was seen,
// and a read when that was wrong.
func (c *Mixed) swap() (string, proto.Message) {
	key := c.key()
	return "etcdserverpb.KV/Txn", guarded(key, c.known[string(key)].mod, c.tag())
}

// count raises a counter by one.
func (c *Mixed) count() (string, proto.Message) {
	key := fmt.Sprint(oracle.CounterPrefix, c.R.IntN(counters))
	was := c.known[key]
	n, _ := strconv.Atoi(strings.SplitN(was.value, " ", 2)[0]) // absent: 0
	return "etcdserverpb.KV/Txn", guarded([]byte(key), was.mod, fmt.Appendf(nil, "%d %s", n+1, c.tag()))
}

// txn is several operations under some compares, sometimes nested.
func (c *Mixed) txn() (string, proto.Message) {
	return "etcdserverpb.KV/Txn", c.txnOf(1)
}

func (c *Mixed) txnOf(depth int) *pb.TxnRequest {
	r := c.R
	q := &pb.TxnRequest{}
	for range r.IntN(3) {
		q.Compare = append(q.Compare, c.compare())
	}
	used := map[string]bool{}
	branch := func() (ops []*pb.RequestOp) {
		for range 1 + r.IntN(4) {
			key := c.key()
			switch {
			case r.IntN(3) == 0:
				ops = append(ops, rangeOp(&pb.RangeRequest{Key: key}))
			case used[string(key)]: // etcd refuses to write a key twice
			case r.IntN(4) == 0:
				used[string(key)] = true
				ops = append(ops, deleteOp(&pb.DeleteRangeRequest{Key: key, PrevKv: r.IntN(2) == 0}))
			default:
				used[string(key)] = true
				ops = append(ops, putOp(&pb.PutRequest{Key: key, Value: c.tag()}))
			}
		}
		return ops
	}
	q.Success, q.Failure = branch(), branch()
	if depth > 0 && r.IntN(8) == 0 {
		inner := c.txnOf(depth - 1)
		inner.Success, inner.Failure = readsOf(inner.Success), readsOf(inner.Failure)
		q.Success = append(q.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: inner}})
	}
	// Its own tag, so that the log can be searched for it.
	q.Success = append(q.Success, putOp(&pb.PutRequest{Key: fmt.Appendf(nil, "tag/%d", c.Client), Value: c.tag()}))
	q.Failure = append(q.Failure, putOp(&pb.PutRequest{Key: fmt.Appendf(nil, "tag/%d", c.Client), Value: c.tag()}))
	return q
}

func readsOf(ops []*pb.RequestOp) (out []*pb.RequestOp) {
	for _, op := range ops {
		if op.GetRequestRange() != nil {
			out = append(out, op)
		}
	}
	return out
}

func (c *Mixed) compare() *pb.Compare {
	r := c.R
	key := c.key()
	k := c.known[string(key)]
	cmp := &pb.Compare{Key: key, Result: pb.Compare_CompareResult(r.IntN(4))}
	switch r.IntN(5) {
	case 0:
		cmp.Target, cmp.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: r.Int64N(4)}
	case 1:
		cmp.Target, cmp.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: k.mod}
	case 2:
		cmp.Target, cmp.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: []byte(k.value)}
	case 3:
		cmp.Target, cmp.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: 0}
	default:
		cmp.Target, cmp.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: k.mod}
	}
	return cmp
}

func (c *Mixed) readTxn() (string, proto.Message) {
	key, end := c.span()
	return "etcdserverpb.KV/Txn", &pb.TxnRequest{
		Compare: []*pb.Compare{c.compare()},
		Success: []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: key, RangeEnd: end}), rangeOp(&pb.RangeRequest{Key: c.key()})},
		Failure: []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: c.key()})},
	}
}

func (c *Mixed) compact() (string, proto.Message) {
	rev := c.seen()
	if rev == 0 {
		return "", nil
	}
	return "etcdserverpb.KV/Compact", &pb.CompactionRequest{Revision: rev, Physical: c.R.IntN(2) == 0}
}

func (c *Mixed) grant() (string, proto.Message) {
	c.tags++
	return "etcdserverpb.Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: int64(c.Client+1)<<32 | int64(c.tags), TTL: 1 + c.R.Int64N(MaxTTL)}
}

func (c *Mixed) lease() int64 { return c.leases[c.R.IntN(len(c.leases))] }

func (c *Mixed) keepAlive() (string, proto.Message) {
	if len(c.leases) == 0 {
		return c.grant()
	}
	return "etcdserverpb.Lease/LeaseKeepAlive", &pb.LeaseKeepAliveRequest{ID: c.lease()}
}

func (c *Mixed) revoke() (string, proto.Message) {
	if len(c.leases) == 0 {
		return "", nil
	}
	return "etcdserverpb.Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: c.lease()}
}
