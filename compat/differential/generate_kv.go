package differential

import (
	"bytes"
	"fmt"
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// value is small and from a small set, so that values compare equal and sorting
// by value meets ties; a few are large, and very few too large to be accepted.
func (g *Generator) value() []byte {
	switch n := g.r.IntN(10_000); {
	case n < 2:
		return bytes.Repeat([]byte{'x'}, 1<<20+700_000) // beyond the request limit
	case n < 4:
		return bytes.Repeat([]byte{'y'}, 2<<20+600_000) // beyond gRPC's limit
	case n < 12:
		return bytes.Repeat([]byte{'l'}, 300_000+g.r.IntN(700_000))
	case n < 150:
		return bytes.Repeat([]byte{'m'}, 1_000+g.r.IntN(20_000))
	case n < 600:
		return nil
	case n < 5_000:
		return g.smallValue()
	}
	return fmt.Appendf(nil, "value-%x", g.r.Uint64())
}

func (g *Generator) smallValue() []byte { return fmt.Appendf(nil, "v%d", g.r.IntN(8)) }

// put makes a put with any combination of flags, valid or not.
func (g *Generator) put(large bool) *pb.PutRequest {
	req := &pb.PutRequest{Key: g.key(), Value: g.value(), PrevKv: g.chance(0.3)}
	if !large && len(req.Value) > 30_000 {
		req.Value = req.Value[:30_000]
	}
	if g.chance(0.3) {
		req.Lease = g.lease()
	}
	if g.chance(0.06) {
		req.IgnoreValue = true
		if g.chance(0.8) {
			req.Value = nil
		}
	}
	if g.chance(0.06) {
		req.IgnoreLease = true
		if g.chance(0.8) {
			req.Lease = 0
		}
	}
	return req
}

func (g *Generator) deleteRange() *pb.DeleteRangeRequest {
	req := &pb.DeleteRangeRequest{Key: g.key(), PrevKv: g.chance(0.4)}
	// Wide deletes are rare, or the store would stay empty.
	switch {
	case g.chance(0.03):
		req.RangeEnd = []byte{0}
	case g.chance(0.3):
		req.RangeEnd = g.rangeEnd(req.Key)
		if len(req.RangeEnd) == 1 && req.RangeEnd[0] == 0 {
			req.RangeEnd = nil
		}
	}
	return req
}

func (g *Generator) rang() *pb.RangeRequest {
	key := g.key()
	req := &pb.RangeRequest{
		Key: key, RangeEnd: g.rangeEnd(key), Limit: g.limit(), Revision: g.readRevision(),
		Serializable: g.chance(0.25), KeysOnly: g.chance(0.15), CountOnly: g.chance(0.12),
	}
	if g.chance(0.15) {
		req.Key, req.RangeEnd = []byte{0}, []byte{0}
	}
	if g.chance(0.3) {
		req.SortOrder = pb.RangeRequest_SortOrder(g.r.IntN(3))
		req.SortTarget = pb.RangeRequest_SortTarget(g.r.IntN(5))
	}
	if g.chance(0.01) {
		req.SortOrder = pb.RangeRequest_SortOrder(g.r.IntN(6) - 1)
		req.SortTarget = pb.RangeRequest_SortTarget(g.r.IntN(8) - 1)
	}
	if g.chance(0.15) {
		req.MinModRevision, req.MaxModRevision = g.filter(), g.filter()
	}
	if g.chance(0.1) {
		req.MinCreateRevision, req.MaxCreateRevision = g.filter(), g.filter()
	}
	return req
}

func (g *Generator) limit() int64 {
	switch g.r.IntN(8) {
	case 0:
		return 1
	case 1:
		return 2 + g.r.Int64N(12)
	case 2:
		return []int64{1000, -1, math.MaxInt64, math.MaxInt64 - 1, math.MinInt64, 1 << 32}[g.r.IntN(6)]
	}
	return 0
}

// filter is a bound of a revision filter.
func (g *Generator) filter() int64 {
	if g.chance(0.5) {
		return 0
	}
	return g.revision()
}

// rangeStream is a range, mostly without what streams refuse. A sort target without
// an order is left out: etcd 3.7 sorts each chunk by itself and goes on after the
// chunk's last key, so keys are sent twice, depending on where chunks end.
func (g *Generator) rangeStream() *pb.RangeRequest {
	req := g.rang()
	if g.chance(0.9) {
		req.SortOrder, req.SortTarget = 0, 0
		req.MinModRevision, req.MaxModRevision, req.MinCreateRevision, req.MaxCreateRevision = 0, 0, 0, 0
	}
	if req.SortOrder == pb.RangeRequest_NONE {
		req.SortTarget = pb.RangeRequest_KEY
	}
	return req
}
