package client

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Txn is a transaction: conditions, and what to do when all of them hold and
// when not. It reads and writes one state of the store, all or nothing.
//
//	r, err := c.Txn().
//		If(client.Key("/lock").Missing()).
//		Then(client.OpPut("/lock", me), client.OpPut("/log/1", entry)).
//		Else(client.OpGet(client.Key("/lock"))).
//		Commit(ctx)
type Txn struct {
	c           *Client // nil in an inner one
	conditions  []Condition
	then, other []Op
}

// Txn begins a transaction. Nothing is sent before Commit.
func (c *Client) Txn() *Txn { return &Txn{c: c} }

// If adds conditions.
func (t *Txn) If(conditions ...Condition) *Txn {
	t.conditions = append(t.conditions, conditions...)
	return t
}

// Then adds what is done when all conditions hold; without any, they do.
func (t *Txn) Then(ops ...Op) *Txn {
	t.then = append(t.then, ops...)
	return t
}

// Else adds what is done when a condition does not hold.
func (t *Txn) Else(ops ...Op) *Txn {
	t.other = append(t.other, ops...)
	return t
}

// TxnResult is what a transaction did.
type TxnResult struct {
	Succeeded bool     // Then was done, not Else
	Revision  Revision // of the change; of the store, if nothing was changed
	Results   []OpResult
}

// OpResult is what one operation of a transaction did: the fields that concern
// its kind are set.
type OpResult struct {
	KVs      []KV       // of OpGet
	Count    int64      // of OpGet: keys in the range, whatever the limit
	More     bool       // of OpGet: a limit cut keys off
	Deleted  int64      // of OpDelete
	Previous []KV       // of OpPut and OpDelete that asked for it
	Txn      *TxnResult // of OpTxn
}

// Commit sends the transaction.
func (t *Txn) Commit(ctx context.Context) (TxnResult, error) {
	in := t.render(t.c)
	out := &pb.TxnResponse{}
	if err := t.c.send(ctx, pb.KV_Txn_FullMethodName, in, out); err != nil {
		return TxnResult{}, err
	}
	return t.c.txnResult(out), nil
}

func (t *Txn) render(c *Client) *pb.TxnRequest {
	in := &pb.TxnRequest{}
	for _, cond := range t.conditions {
		in.Compare = append(in.Compare, cond(c))
	}
	for _, op := range t.then {
		in.Success = append(in.Success, op(c))
	}
	for _, op := range t.other {
		in.Failure = append(in.Failure, op(c))
	}
	return in
}

func onlyReads(in *pb.TxnRequest) bool {
	for _, branch := range [][]*pb.RequestOp{in.Success, in.Failure} {
		for _, op := range branch {
			switch r := op.Request.(type) {
			case *pb.RequestOp_RequestRange:
			case *pb.RequestOp_RequestTxn:
				if !onlyReads(r.RequestTxn) {
					return false
				}
			default:
				return false
			}
		}
	}
	return true
}

func (c *Client) txnResult(out *pb.TxnResponse) TxnResult {
	r := TxnResult{Succeeded: out.Succeeded, Revision: Revision(out.Header.GetRevision())}
	for _, op := range out.Responses {
		var one OpResult
		switch a := op.Response.(type) {
		case *pb.ResponseOp_ResponseRange:
			one.KVs, one.Count, one.More = c.kvs(a.ResponseRange.Kvs), a.ResponseRange.Count, a.ResponseRange.More
		case *pb.ResponseOp_ResponsePut:
			one.Previous = c.previous(a.ResponsePut.PrevKv)
		case *pb.ResponseOp_ResponseDeleteRange:
			one.Deleted, one.Previous = a.ResponseDeleteRange.Deleted, c.kvs(a.ResponseDeleteRange.PrevKvs)
		case *pb.ResponseOp_ResponseTxn:
			inner := c.txnResult(a.ResponseTxn)
			one.Txn = &inner
		}
		r.Results = append(r.Results, one)
	}
	return r
}

// Op is an operation of a transaction.
type Op func(*Client) *pb.RequestOp

// OpGet reads a range.
func OpGet(r Range, opts ...ReadOption) Op {
	return func(c *Client) *pb.RequestOp {
		in := c.rangeRequest(r, opts)
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: in.RangeRequest}}
	}
}

// OpPut sets a key.
func OpPut(key string, value []byte, opts ...WriteOption) Op {
	return func(c *Client) *pb.RequestOp {
		in, _ := c.putRequest(key, value, opts)
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: in}}
	}
}

// OpDelete deletes a range.
func OpDelete(r Range, opts ...WriteOption) Op {
	return func(c *Client) *pb.RequestOp {
		in, _ := c.deleteRequest(r, opts)
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: in}}
	}
}

// OpTxn is a transaction within a transaction. The inner one is not committed.
func OpTxn(t *Txn) Op {
	return func(c *Client) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t.render(c)}}
	}
}

// Condition is what a transaction depends on. Where it is about several keys, it
// must hold for each of them.
type Condition func(*Client) *pb.Compare

// Comparison is how a condition compares.
type Comparison int32

// Comparisons: the key's property on the left, the given value on the right.
const (
	Equal    = Comparison(pb.Compare_EQUAL)
	NotEqual = Comparison(pb.Compare_NOT_EQUAL)
	Less     = Comparison(pb.Compare_LESS)
	Greater  = Comparison(pb.Compare_GREATER)
)

// Missing holds when there is no such key.
func (r Range) Missing() Condition { return r.CreatedAt(Equal, 0) }

// Exists holds when the key exists.
func (r Range) Exists() Condition { return r.CreatedAt(NotEqual, 0) }

// Unchanged holds when nobody has changed the key since it was read, which
// includes deleting it, or creating it if it did not exist.
func (kv KV) Unchanged() Condition { return Key(kv.Key).ModifiedAt(Equal, kv.Modified) }

// ModifiedAt compares the revision of the last change; 0 for a missing key.
func (r Range) ModifiedAt(how Comparison, rev Revision) Condition {
	return r.condition(how, pb.Compare_MOD, func(p *pb.Compare) { p.TargetUnion = &pb.Compare_ModRevision{ModRevision: int64(rev)} })
}

// CreatedAt compares the revision of the creation; 0 for a missing key.
func (r Range) CreatedAt(how Comparison, rev Revision) Condition {
	return r.condition(how, pb.Compare_CREATE, func(p *pb.Compare) { p.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: int64(rev)} })
}

// Version compares the number of changes since the creation; 0 for a missing key.
func (r Range) Version(how Comparison, version int64) Condition {
	return r.condition(how, pb.Compare_VERSION, func(p *pb.Compare) { p.TargetUnion = &pb.Compare_Version{Version: version} })
}

// Value compares the value, byte by byte. It never holds for a missing key.
func (r Range) Value(how Comparison, value []byte) Condition {
	return r.condition(how, pb.Compare_VALUE, func(p *pb.Compare) { p.TargetUnion = &pb.Compare_Value{Value: value} })
}

// Lease compares the lease; 0 for a missing key and for none.
func (r Range) Lease(how Comparison, id LeaseID) Condition {
	return r.condition(how, pb.Compare_LEASE, func(p *pb.Compare) { p.TargetUnion = &pb.Compare_Lease{Lease: int64(id)} })
}

func (r Range) condition(how Comparison, target pb.Compare_CompareTarget, with func(*pb.Compare)) Condition {
	return func(c *Client) *pb.Compare {
		p := &pb.Compare{Result: pb.Compare_CompareResult(how), Target: target}
		p.Key, p.RangeEnd = c.wire(r)
		with(p)
		return p
	}
}
