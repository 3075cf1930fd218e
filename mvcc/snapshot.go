package mvcc

import (
	"bytes"
	"io"
	"slices"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// Snapshot is a durable state of the whole store. It must be released.
type Snapshot struct {
	Index    api.Index
	Term     api.Term
	Revision api.Revision

	view *sharedView
}

// Snapshot flushes what has been exposed and returns that state. It may be
// called by any goroutine.
func (s *Store) Snapshot() (*Snapshot, error) {
	if err := s.Flush(); err != nil {
		return nil, err
	}
	st, err := s.acquire()
	if err != nil {
		return nil, err
	}
	v := st.view
	return &Snapshot{Index: v.index, Term: v.term, Revision: v.rev, view: v}, nil
}

// Size returns the bytes that WriteTo writes.
func (s *Snapshot) Size() int64 { return s.view.Size() }

// WriteTo writes the snapshot as an etcd database file.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) { return s.view.WriteTo(w) }

// Raw calls fn for the snapshot's pairs of a bucket, in order.
func (s *Snapshot) Raw(b engine.Bucket, fn func(k, v []byte) bool) { s.view.Scan(b, nil, nil, fn) }

// Release ends the snapshot.
func (s *Snapshot) Release() { s.view.release() }

// Raw calls fn for the pairs of a bucket, in order, as they are when all that
// was applied so far is durable. fn must not use the store.
func (s *Store) Raw(b engine.Bucket, fn func(k, v []byte) bool) {
	s.mu.Lock()
	view, pending := s.mu.view, s.mu.pending(b)
	held := view != nil && view.acquire()
	s.mu.Unlock()
	if !held {
		return // closed
	}
	defer view.release()
	view.Scan(b, nil, nil, func(k, v []byte) bool {
		for len(pending) > 0 && bytes.Compare(pending[0].Key, k) < 0 {
			op := pending[0]
			pending = pending[1:]
			if op.Value != nil && !fn(op.Key, op.Value) {
				pending = nil
				return false
			}
		}
		if len(pending) > 0 && bytes.Equal(pending[0].Key, k) {
			v, pending = pending[0].Value, pending[1:]
		}
		if v != nil && !fn(k, v) {
			pending = nil
			return false
		}
		return true
	})
	for _, op := range pending {
		if op.Value != nil && !fn(op.Key, op.Value) {
			return
		}
	}
}

// pending returns the last change of each key of a bucket that the engine may
// not have yet, in key order.
func (w *working) pending(b engine.Bucket) []engine.Op {
	last := map[string]engine.Op{}
	for _, op := range w.ops {
		if op.Bucket == b {
			last[string(op.Key)] = op
		}
	}
	out := make([]engine.Op, 0, len(last))
	for _, op := range last {
		out = append(out, op)
	}
	slices.SortFunc(out, func(x, y engine.Op) int { return bytes.Compare(x.Key, y.Key) })
	return out
}

// Stats returns figures for metrics and status.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	w := &s.mu.working
	st := Stats{
		Keys: w.tree.root.count(), Revisions: w.revisions,
		TailBytes: w.tail.bytes, CompactionQueue: len(w.dirty),
	}
	// An entry is an item of 64 bytes, a key in an allocation of its own, and
	// its share of a leaf; an older record takes a place in a history.
	st.IndexBytes = int64(w.tree.items)*(64+8+12) + w.keyBytes + int64(w.revisions-w.tree.items)*32
	e := s.mu.engine
	s.mu.Unlock()
	s.leases.mu.RLock()
	st.Leases = len(s.leases.mu.leases)
	s.leases.mu.RUnlock()
	st.Engine = e.Stats()
	return st
}
