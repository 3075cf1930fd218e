package resource

import (
	"bytes"
	"context"
	"strconv"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/server/resource/object"
)

// current is an object as it lies in the store.
type current struct {
	json  []byte // without resource version
	rev   int64
	lease int64
}

func (c *current) stamped() []byte {
	return object.AppendStamped(make([]byte, 0, len(c.json)+32), c.json, c.rev)
}

// decoded is the object in the version of k, with its resource version.
func (c *current) decoded(k *Kind) (object.Object, error) {
	o, _, err := object.Decode(c.json)
	if err != nil {
		return nil, err
	}
	object.Stamp(o, c.rev)
	return k.fromStored(o), nil
}

// local reads an object from what this member has published; nil: it is not there.
func (l *Layer) local(key string) (*current, error) {
	tx, err := l.store.Read(0)
	if err != nil {
		return nil, err
	}
	defer tx.Release()
	return readKey(tx, key)
}

func readKey(tx *mvcc.ReadTxn, key string) (*current, error) {
	it, ok := tx.Get([]byte(key))
	if !ok {
		return nil, nil
	}
	rec, err := tx.Record(it)
	if err != nil {
		return nil, err
	}
	value, err := storedJSON(valueOf(rec))
	if err != nil {
		return nil, err
	}
	// The record's bytes end with the transaction.
	return &current{bytes.Clone(value), int64(it.Mod), int64(it.Lease)}, nil
}

// fresh reads an object as of now: nothing that was acknowledged before is missed.
func (l *Layer) fresh(ctx context.Context, key string) (*current, error) {
	if err := l.store.Barrier(ctx); err != nil {
		return nil, err
	}
	return l.local(key)
}

// read reads an object as fresh as version asks: "" is now, "0" anything, n not
// older than n.
func (l *Layer) read(ctx context.Context, k *Kind, namespace, name, version string) (*current, error) {
	key := k.key(namespace, name)
	switch version {
	case "":
		return l.fresh(ctx, key)
	case "0":
		if _, err := l.anything(ctx); err != nil {
			return nil, err
		}
		return l.local(key)
	}
	if n, err := strconv.ParseUint(version, 10, 63); err != nil {
		return nil, unreadable("resourceVersion", version)
	} else if have, err := l.published(); err != nil || have < int64(n) {
		if _, err := l.freshen(ctx, version); err != nil {
			return nil, err
		}
	}
	return l.local(key)
}

// storedObject is an object beside the one that a write is about.
type storedObject struct {
	key    string
	rev    int64
	object object.Object
}

// storedIn reads all objects of a kind in a namespace from a state.
func storedIn(tx *mvcc.ReadTxn, k *Kind, namespace string) (out []storedObject, err error) {
	prefix := k.key(namespace, "")
	tx.Scan([]byte(prefix), prefixEnd(prefix), func(it mvcc.Item) bool {
		var cur *current
		if cur, err = readKey(tx, string(it.Key)); err != nil {
			return false
		}
		var o object.Object
		if o, err = cur.decoded(k); err != nil {
			return false
		}
		out = append(out, storedObject{string(it.Key), cur.rev, o})
		return true
	})
	return out, err
}

// step is what a write wants to do with one object, given what is stored.
type step struct {
	store  object.Object // nil: delete the object
	lease  int64
	guards []guard // other keys that must not have changed
	also   []also  // other keys written with it
	shown  []byte  // what a client sees of an object that goes; nil: what was stored
}

// guard is a key with the revision that it must still have; 0: it is absent.
type guard struct {
	key string
	rev int64
}

// also is another key's new value; nil: the key goes.
type also struct {
	key   string
	value []byte
}

// rewrite makes a step write another object, too, if nobody else has meanwhile.
func (s *step) rewrite(k *Kind, o storedObject) {
	s.guards = append(s.guards, guard{o.key, o.rev})
	s.also = append(s.also, also{o.key, encodeStored(k, o.object)})
}

// result is what became of a write.
type result struct {
	json    []byte // stamped
	created bool
	removed bool
}

// decide makes a step of what is stored; cur is nil when there is nothing. It
// is called again when a race was lost, and must not keep what it was given.
type decide func(cur *current) (*step, error)

// write brings one object from what is stored to what decide makes of it.
//
// It begins with what this member has, which may be old: a decision against the
// request counts only on what was read afresh, and a commit compares. The other side
// of a lost comparison shows what is stored, so another round needs no read.
//
// Commit point: the transaction. A crash before leaves nothing; after, everything,
// and the client may not learn of it.
func (l *Layer) write(ctx context.Context, k *Kind, key string, dryRun bool, fn decide) (*result, error) {
	cur, err := l.local(key)
	if err != nil {
		return nil, err
	}
	isFresh := false
	for range maxRetries {
		st, err := fn(cur)
		var bytes []byte
		if err == nil && st.store != nil {
			bytes = encodeStored(k, st.store)
		}
		if err != nil || st.unchanged(cur, bytes) {
			if !isFresh {
				if cur, err = l.fresh(ctx, key); err != nil {
					return nil, err
				}
				isFresh = true
				continue
			}
			if err != nil {
				return nil, err
			}
			return &result{json: cur.stamped()}, nil
		}
		if dryRun {
			return dry(cur, st, bytes), nil
		}
		done, err := l.commit(ctx, key, cur, st, bytes)
		if err != nil {
			return nil, err
		}
		if done.ok {
			return done.result(cur, st, bytes), nil
		}
		if done.found.revision() == cur.revision() {
			// It was a guard that moved: see what it is now.
			if err := l.store.Barrier(ctx); err != nil {
				return nil, err
			}
		}
		cur, isFresh = done.found, true
	}
	return nil, &Failure{Code: 409, Reason: "Conflict", Message: "too many others write the same object; try again"}
}

// unchanged reports whether a step would store what is stored.
func (s *step) unchanged(cur *current, b []byte) bool {
	return cur != nil && s.store != nil && bytes.Equal(b, cur.json) && len(s.also) == 0
}

// dry is the result that a step would have. Nothing has a new resource version.
func dry(cur *current, st *step, b []byte) *result {
	switch {
	case st.store == nil:
		return &result{json: cur.stamped(), removed: true}
	case cur == nil:
		return &result{json: b, created: true}
	}
	return &result{json: object.AppendStamped(nil, b, cur.rev)}
}

// committed is the outcome of a transaction.
type committed struct {
	ok    bool
	rev   int64
	found *current // when it is not ok: what is stored
}

func (d *committed) result(cur *current, st *step, b []byte) *result {
	if st.store == nil {
		shown := cur.json
		if st.shown != nil {
			shown = st.shown
		}
		return &result{json: object.AppendStamped(nil, shown, d.rev), removed: true}
	}
	return &result{json: object.AppendStamped(make([]byte, 0, len(b)+32), b, d.rev), created: cur == nil}
}

// commit replicates a step, if the key is still as cur says and the guards hold.
func (l *Layer) commit(ctx context.Context, key string, cur *current, st *step, b []byte) (*committed, error) {
	txn := &pb.TxnRequest{Compare: []*pb.Compare{unmoved(key, cur.revision())}, Failure: []*pb.RequestOp{rangeOp(key)}}
	if st.store == nil {
		txn.Success = []*pb.RequestOp{deleteOp(key)}
	} else {
		txn.Success = []*pb.RequestOp{putOp(key, b, st.lease)}
	}
	for _, g := range st.guards {
		txn.Compare = append(txn.Compare, unmoved(g.key, g.rev))
	}
	for _, a := range st.also {
		if a.value == nil {
			txn.Success = append(txn.Success, deleteOp(a.key))
		} else {
			txn.Success = append(txn.Success, putOp(a.key, a.value, 0))
		}
	}
	resp, err := l.store.Commit(ctx, txn)
	if err != nil {
		return nil, err
	}
	done := &committed{ok: resp.Succeeded, rev: resp.Header.GetRevision()}
	if done.ok || len(resp.Responses) == 0 {
		return done, nil
	}
	for _, kv := range resp.Responses[0].GetResponseRange().GetKvs() {
		value, err := storedJSON(kv.Value)
		if err != nil {
			return nil, err
		}
		done.found = &current{value, kv.ModRevision, kv.Lease}
	}
	return done, nil
}

func (c *current) revision() int64 {
	if c == nil {
		return 0
	}
	return c.rev
}

// unmoved holds while the key's mod revision is rev; 0: while it is absent.
func unmoved(key string, rev int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}
}

func rangeOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
}

func deleteOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}

func putOp(key string, value []byte, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value, Lease: lease}}}
}

// encodeStored is an object of the version of k as it is stored: in the stored
// version, and without what is not stored.
func encodeStored(k *Kind, o object.Object) []byte {
	if k.Into != nil {
		o = k.Into(o)
	}
	out := make(object.Object, len(o))
	for name, v := range o {
		out[name] = v
	}
	meta := make(object.Object)
	for name, v := range object.Map(o, "metadata") {
		if name != "resourceVersion" && name != "selfLink" {
			meta[name] = v
		}
	}
	out["metadata"], out["apiVersion"] = meta, k.storedVersion()
	return object.Encode(out)
}
