package differential

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// maxDepth is how deep transactions are nested.
const maxDepth = 3

func (g *Generator) txn() *pb.TxnRequest {
	switch n := g.r.IntN(1000); {
	case n < 300:
		return g.kubeTxn()
	case n < 306:
		return g.crowdedTxn()
	case n < 308:
		return g.heavyTxn()
	case n < 350:
		return g.readTxn()
	}
	req := g.freeTxn(0)
	if deletes(req) {
		clearIgnore(req)
	}
	return req
}

// A put that keeps the value or lease of a key which the same transaction deletes
// first passes etcd's checks, which look at the state before the transaction, and
// then makes etcd 3.7.3 panic while it applies: on every member, and again at
// every start. So it cannot be compared; TestKeepAfterDelete sends it to kvd alone.
func deletes(req *pb.TxnRequest) bool {
	for _, op := range slices.Concat(req.Success, req.Failure) {
		if op.GetRequestDeleteRange() != nil || op.GetRequestTxn() != nil && deletes(op.GetRequestTxn()) {
			return true
		}
	}
	return false
}

func clearIgnore(req *pb.TxnRequest) {
	for _, op := range slices.Concat(req.Success, req.Failure) {
		if put := op.GetRequestPut(); put != nil {
			put.IgnoreValue, put.IgnoreLease = false, false
		}
		if txn := op.GetRequestTxn(); txn != nil {
			clearIgnore(txn)
		}
	}
}

// kubeTxn has the shapes kube-apiserver sends: create, update, delete.
func (g *Generator) kubeTxn() *pb.TxnRequest {
	key := g.key()
	cmp := &pb.Compare{Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_ModRevision{ModRevision: symCurrent - g.r.Int64N(4)}}
	if g.chance(0.4) {
		cmp.TargetUnion = &pb.Compare_ModRevision{ModRevision: 0}
	}
	put := &pb.PutRequest{Key: key, Value: g.value()}
	if g.chance(0.2) {
		put.Lease = g.lease()
	}
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}}
	if g.chance(0.2) {
		op = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}
	}
	req := &pb.TxnRequest{Compare: []*pb.Compare{cmp}, Success: []*pb.RequestOp{op}}
	if g.chance(0.7) {
		req.Failure = []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: key})}
	}
	return req
}

func rangeOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

// crowdedTxn is near the limit of operations, on either side of it, flat or
// counted over nested transactions.
func (g *Generator) crowdedTxn() *pb.TxnRequest {
	req := &pb.TxnRequest{}
	for range 124 + g.r.IntN(8) {
		req.Success = append(req.Success, rangeOp(&pb.RangeRequest{Key: g.keys[0], CountOnly: true}))
	}
	if g.chance(0.5) {
		req.Success = req.Success[:100+g.r.IntN(20)]
		inner := &pb.TxnRequest{}
		for range 10 + g.r.IntN(20) {
			inner.Failure = append(inner.Failure, rangeOp(&pb.RangeRequest{Key: g.keys[0], CountOnly: true}))
		}
		req.Success = append(req.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: inner}})
	}
	if g.chance(0.3) {
		for range 126 + g.r.IntN(5) {
			req.Compare = append(req.Compare, g.compare())
		}
	}
	return req
}

// heavyTxn makes one revision large: watches with prev_kv and fragments split it.
func (g *Generator) heavyTxn() *pb.TxnRequest {
	req := &pb.TxnRequest{}
	for _, i := range g.r.Perm(len(g.keys))[:3+g.r.IntN(3)] {
		put := &pb.PutRequest{Key: g.keys[i], Value: make([]byte, 200_000+g.r.IntN(150_000))}
		req.Success = append(req.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
	}
	return req
}

func (g *Generator) readTxn() *pb.TxnRequest {
	req := &pb.TxnRequest{Compare: g.compares()}
	serializable := g.chance(0.3)
	for range g.r.IntN(4) {
		r := g.rang()
		r.Serializable = serializable
		req.Success = append(req.Success, rangeOp(r))
		req.Failure = append(req.Failure, rangeOp(r))
	}
	return req
}

func (g *Generator) freeTxn(depth int) *pb.TxnRequest {
	return &pb.TxnRequest{Compare: g.compares(), Success: g.ops(depth), Failure: g.ops(depth)}
}

func (g *Generator) compares() (out []*pb.Compare) {
	n := g.r.IntN(3)
	if g.chance(0.05) {
		n = 6
	}
	for range n {
		out = append(out, g.compare())
	}
	return out
}

func (g *Generator) ops(depth int) (out []*pb.RequestOp) {
	n := g.r.IntN(4)
	if g.chance(0.05) {
		n = 10
	}
	for range n {
		out = append(out, g.txnOp(depth))
	}
	return out
}

func (g *Generator) txnOp(depth int) *pb.RequestOp {
	switch n := g.r.IntN(1000); {
	case n < 3:
		return &pb.RequestOp{}
	case n < 350:
		return rangeOp(g.rang())
	case n < 700:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put(false)}}
	case n < 850 || depth == maxDepth:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.deleteRange()}}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.freeTxn(depth + 1)}}
}

// compare makes any comparison: every target and result, ranges, values of the
// wrong type for the target, and now and then an enum that does not exist.
func (g *Generator) compare() *pb.Compare {
	c := &pb.Compare{Key: g.key(), Target: pb.Compare_CompareTarget(g.r.IntN(5)), Result: pb.Compare_CompareResult(g.r.IntN(4))}
	if g.chance(0.2) {
		c.RangeEnd = g.rangeEnd(c.Key)
	}
	if g.chance(0.01) {
		c.Target = pb.Compare_CompareTarget(g.r.IntN(8) - 1)
		c.Result = pb.Compare_CompareResult(g.r.IntN(8) - 1)
	}
	union := c.Target
	if g.chance(0.05) {
		union = pb.Compare_CompareTarget(g.r.IntN(6))
	}
	switch union {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: g.r.Int64N(5)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.revision()}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.revision()}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: g.value()}
		if v := c.TargetUnion.(*pb.Compare_Value); len(v.Value) > 30_000 {
			v.Value = v.Value[:30_000]
		}
	case pb.Compare_LEASE:
		id := g.lease()
		// The order of ids the server chose is not determined: only equality is.
		if near(id, symLease) && (c.Result == pb.Compare_LESS || c.Result == pb.Compare_GREATER) {
			id = g.r.Int64N(20)
		}
		c.TargetUnion = &pb.Compare_Lease{Lease: id}
	}
	return c
}
