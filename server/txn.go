package server

import (
	"bytes"
	"cmp"
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
)

// A transaction is evaluated in three passes, as in etcd:
//
//  1. choose: all compares, nested ones included, against the state before the
//     transaction; they fix the path, one bool for each transaction entered;
//  2. verify: every operation on the path, against the same state. Only here a
//     transaction can be refused, because nothing is undone later;
//  3. execute: in order; operations see the writes before them.

// txnView is the state that a transaction evaluates against.
type txnView interface {
	keyspace
	// readable tells whether a range may ask for this revision, against the
	// state before the transaction.
	readable(at api.Revision) error
	// at is the view of an older revision; release it.
	at(rev api.Revision) (_ keyspace, release func(), err error)
	leaseExists(id api.LeaseID) bool
}

// readOnly reports whether a transaction can only read. As in etcd a nested one
// counts as writing.
func (r *txnRequest) readOnly() bool { return allRanges(r.success) && allRanges(r.failure) }

func allRanges(ops []op) bool {
	for i := range ops {
		if ops[i].rng == nil {
			return false
		}
	}
	return true
}

// serializable reports whether every operation is a serializable range.
func (r *txnRequest) serializable() bool {
	for _, ops := range [][]op{r.success, r.failure} {
		for i := range ops {
			if ops[i].rng == nil || !ops[i].rng.serializable {
				return false
			}
		}
	}
	return true
}

// branch returns the operations of the chosen side.
func (r *txnRequest) branch(succeeded bool) []op {
	if succeeded {
		return r.success
	}
	return r.failure
}

// choose appends the outcome of r and, depth first, of the transactions nested
// in its chosen branch.
func choose(v keyspace, r *txnRequest, path []bool) ([]bool, error) {
	ok, err := holds(v, r.compares)
	if err != nil {
		return nil, err
	}
	path = append(path, ok)
	ops := r.branch(ok)
	for i := range ops {
		if ops[i].txn == nil {
			continue
		}
		if path, err = choose(v, ops[i].txn, path); err != nil {
			return nil, err
		}
	}
	return path, nil
}

func holds(v keyspace, compares []compare) (bool, error) {
	for i := range compares {
		ok, err := compares[i].holds(v)
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// holds compares every key of the range. An absent key compares as one of zero
// revisions, version and lease; its value never compares.
func (c *compare) holds(v keyspace) (bool, error) {
	if len(c.end) == 0 {
		it, found := v.Get(c.key)
		return c.matches(v, it, found)
	}
	any, ok := false, true
	var err error
	v.Scan(c.key, c.end, func(it mvcc.Item) bool {
		any = true
		ok, err = c.matches(v, it, true)
		return ok && err == nil
	})
	if !any {
		return c.matches(v, mvcc.Item{}, false)
	}
	return ok, err
}

func (c *compare) matches(v keyspace, it mvcc.Item, found bool) (bool, error) {
	var order int
	switch pb.Compare_CompareTarget(c.target) {
	case pb.Compare_VALUE:
		if !found {
			return false, nil
		}
		rec, err := v.Record(it)
		if err != nil {
			return false, err
		}
		value, err := record(rec).value()
		if err != nil {
			return false, err
		}
		order = bytes.Compare(value, c.value)
	case pb.Compare_VERSION:
		order = cmp.Compare(it.Version, c.number(unionVersion))
	case pb.Compare_CREATE:
		order = cmp.Compare(int64(it.Create), c.number(unionCreate))
	case pb.Compare_MOD:
		order = cmp.Compare(int64(it.Mod), c.number(unionMod))
	case pb.Compare_LEASE:
		order = cmp.Compare(int64(it.Lease), c.number(unionLease))
	}
	switch pb.Compare_CompareResult(c.result) {
	case pb.Compare_EQUAL:
		return order == 0, nil
	case pb.Compare_NOT_EQUAL:
		return order != 0, nil
	case pb.Compare_GREATER:
		return order > 0, nil
	case pb.Compare_LESS:
		return order < 0, nil
	}
	return true, nil
}

// number is the union's number if it is the target's own member, else 0.
func (c *compare) number(union uint8) int64 {
	if c.union != union {
		return 0
	}
	return c.num
}

// verify checks the operations on the path. It returns the rest of the path.
// gone collects the deletes that come before in execution order.
func verify(v txnView, r *txnRequest, path []bool, gone *[]*deleteRequest) ([]bool, error) {
	ops := r.branch(path[0])
	path = path[1:]
	for i := range ops {
		var err error
		switch o := &ops[i]; {
		case o.rng != nil:
			err = v.readable(o.rng.revision)
		case o.put != nil:
			err = verifyPut(v, o.put, *gone)
		case o.del != nil:
			*gone = append(*gone, o.del)
		case o.txn != nil:
			path, err = verify(v, o.txn, path, gone)
		}
		if err != nil {
			return nil, err
		}
	}
	return path, nil
}

// verifyPut checks what only the state can tell about a put. A put that keeps
// the value or lease needs a key that is there, and that no delete before it in
// the transaction takes away (etcd misses the latter and would crash).
func verifyPut(v txnView, p *putRequest, gone []*deleteRequest) error {
	if p.lease != 0 && !v.leaseExists(p.lease) {
		return api.ErrLeaseNotFound
	}
	if !p.ignoreValue && !p.ignoreLease {
		return nil
	}
	if _, ok := v.Get(p.key); !ok {
		return api.ErrKeyNotFound
	}
	for _, del := range gone {
		if inRange(p.key, del.key, del.end) {
			return api.ErrKeyNotFound
		}
	}
	return nil
}

// inRange reports whether key is in the range that key, end name in requests.
func inRange(k, key, end []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(k, key)
	case len(end) == 1 && end[0] == 0:
		return bytes.Compare(k, key) >= 0
	}
	return bytes.Compare(k, key) >= 0 && bytes.Compare(k, end) < 0
}

// txnRun executes a transaction and writes its answer.
type txnRun struct {
	ctx    context.Context
	view   txnView
	write  *mvcc.WriteTxn // nil in a read-only transaction
	wanted bool           // somebody reads the answer
	tally  tally
	b      []byte
}

// run executes the chosen branch and appends succeeded and responses to x.b. It
// returns the rest of the path.
func (x *txnRun) run(r *txnRequest, path []bool) ([]bool, error) {
	ops, succeeded := r.branch(path[0]), path[0]
	path = path[1:]
	x.b = appendBool(x.b, fieldSucceeded, succeeded)
	for i := range ops {
		var mark, inner int
		x.b, mark = openMessage(x.b, fieldResponses)
		var err error
		switch o := &ops[i]; {
		case o.rng != nil:
			x.b, inner = openMessage(x.b, fieldOpRange)
			err = x.rangeOp(o.rng)
		case o.put != nil:
			x.b, inner = openMessage(x.b, fieldOpPut)
			err = x.putOp(o.put)
		case o.del != nil:
			x.b, inner = openMessage(x.b, fieldOpDelete)
			err = x.deleteOp(o.del)
		case o.txn != nil:
			x.b, inner = openMessage(x.b, fieldOpTxn)
			x.b = appendNestedHeader(x.b, 0) // etcd leaves it empty
			path, err = x.run(o.txn, path)
		default:
			err = fmt.Errorf("empty operation in an admitted transaction")
		}
		if err != nil {
			return nil, err
		}
		x.b = closeMessage(closeMessage(x.b, inner), mark)
	}
	return path, nil
}

func (x *txnRun) rangeOp(r *rangeRequest) error {
	x.tally.ranges++
	if !x.wanted {
		return nil
	}
	x.b = appendNestedHeader(x.b, x.view.Revision())
	v := keyspace(x.view)
	if r.revision > 0 {
		old, release, err := x.view.at(r.revision)
		if err != nil {
			return err
		}
		defer release()
		v = old
	}
	tail, err := r.evaluate(x.ctx, v, func(it mvcc.Item, rec mvcc.Record) error {
		if rec != nil {
			x.b = appendBytes(x.b, fieldRangeKVs, rec)
			return nil
		}
		var mark int
		x.b, mark = openMessage(x.b, fieldRangeKVs)
		x.b = closeMessage(appendItem(x.b, &it), mark)
		return nil
	})
	x.b = appendBool(x.b, fieldRangeMore, tail.more)
	x.b = appendInt(x.b, fieldRangeCount, tail.count)
	return err
}

func (x *txnRun) putOp(p *putRequest) error {
	if err := x.put(p); err != nil {
		return err
	}
	x.b = appendNestedHeader(x.b, x.write.Revision())
	return nil
}

// put executes a put that verifyPut let pass and appends its answer, the header
// aside.
func (x *txnRun) put(p *putRequest) error {
	value, lease := p.value, p.lease
	if p.ignoreValue || p.ignoreLease || p.prevKV && x.wanted {
		if it, ok := x.view.Get(p.key); ok {
			rec, err := x.view.Record(it)
			if err != nil {
				return err
			}
			if p.ignoreValue {
				if value, err = record(rec).value(); err != nil {
					return err
				}
			}
			if p.ignoreLease {
				lease = it.Lease
			}
			if p.prevKV {
				x.b = appendBytes(x.b, fieldPutPrev, rec)
			}
		}
	}
	x.tally.puts++
	x.tally.putBytes += len(p.key) + len(value)
	x.write.Put(p.key, value, lease)
	return nil
}

func (x *txnRun) deleteOp(d *deleteRequest) error {
	if err := x.delete(d); err != nil {
		return err
	}
	x.b = appendNestedHeader(x.b, x.write.Revision())
	return nil
}

// delete executes a delete and appends its answer, the header aside. Previous
// values are read before they are gone.
func (x *txnRun) delete(d *deleteRequest) error {
	if d.prevKV && x.wanted {
		var err error
		x.view.Scan(d.key, d.end, func(it mvcc.Item) bool {
			var rec mvcc.Record
			if rec, err = x.view.Record(it); err == nil {
				x.b = appendBytes(x.b, fieldDeletePrev, rec)
			}
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	x.tally.deletes++
	n := x.write.DeleteRange(d.key, d.end, nil)
	x.b = appendInt(x.b, fieldDeleted, int64(n))
	return nil
}
