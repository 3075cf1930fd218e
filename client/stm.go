package client

import (
	"context"
	"errors"
	"maps"
	"slices"
)

// Tx is what the function of Atomically sees of the store.
type Tx struct {
	c      *Client
	ctx    context.Context
	rev    Revision // of the first read; all others read the same state
	reads  map[string]KV
	writes map[string]txWrite
}

type txWrite struct {
	value  []byte
	opts   []WriteOption
	delete bool
}

// Atomically runs f, which reads and writes any keys, as one step: all that it
// read is as it was when all that it wrote is written. When somebody else was
// faster, f runs again, so it must have no other effects. An error of f, or of
// one of its reads, ends it without a write.
//
// The result is the revision of the change; of the state that was read, if f
// wrote nothing. As with Update, ErrUnknownOutcome ends it.
func (c *Client) Atomically(ctx context.Context, f func(*Tx) error) (Revision, error) {
	for round := 0; ; round++ {
		tx := &Tx{c: c, ctx: ctx, reads: map[string]KV{}, writes: map[string]txWrite{}}
		if err := f(tx); err != nil {
			return 0, err
		}
		if len(tx.writes) == 0 {
			return tx.rev, nil
		}
		r, err := tx.commit()
		if err != nil || r.Succeeded {
			return r.Revision, err
		}
		if err := c.yield(ctx, round); err != nil {
			return 0, err
		}
	}
}

// Get reads a key: what this transaction wrote, or the state of the store that
// all its reads share. A key that does not exist comes as a KV without a
// version.
func (tx *Tx) Get(key string) (KV, error) {
	kv, known := tx.reads[key]
	if !known {
		var err error
		kv, err = tx.c.Get(tx.ctx, key, AtRevision(tx.rev), ReadRevision(&tx.rev))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return KV{}, err
		}
		tx.reads[key] = kv
	}
	switch w, written := tx.writes[key]; {
	case !written:
		return kv, nil
	case w.delete:
		return KV{Key: key}, nil
	default:
		return kv.after(w.value, w.opts), nil
	}
}

// Put sets a key when f has ended.
func (tx *Tx) Put(key string, value []byte, opts ...WriteOption) {
	tx.writes[key] = txWrite{value: value, opts: opts}
}

// Delete deletes a key when f has ended.
func (tx *Tx) Delete(key string) { tx.writes[key] = txWrite{delete: true} }

func (tx *Tx) commit() (TxnResult, error) {
	txn := tx.c.Txn()
	for _, key := range slices.Sorted(maps.Keys(tx.reads)) {
		txn.If(tx.reads[key].Unchanged())
	}
	for _, key := range slices.Sorted(maps.Keys(tx.writes)) {
		if w := tx.writes[key]; w.delete {
			txn.Then(OpDelete(Key(key)))
		} else {
			txn.Then(OpPut(key, w.value, w.opts...))
		}
	}
	return txn.Commit(tx.ctx)
}
