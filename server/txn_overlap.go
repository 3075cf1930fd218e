package server

import (
	"bytes"
	"slices"

	"github.com/keelson-io/keelson/api"
)

// A transaction may not write a key twice, because all its writes carry one
// revision. checkOverlaps refuses two puts of a key, and a put of a key that a
// delete of the same transaction covers, as far as etcd does: branches of one
// nested transaction exclude each other, and a delete in a later sibling may
// cover an earlier sibling's put.
func checkOverlaps(r *txnRequest) error {
	if flatWrites(r.success) > 1 {
		if _, err := overlaps(r.success); err != nil {
			return err
		}
	}
	if flatWrites(r.failure) > 1 {
		if _, err := overlaps(r.failure); err != nil {
			return err
		}
	}
	return nil
}

// flatWrites counts the operations that can overlap; a nested transaction
// counts as many. Most transactions write once and need no sets.
func flatWrites(ops []op) int {
	n := 0
	for i := range ops {
		switch o := &ops[i]; {
		case o.txn != nil:
			n += 2
		case o.put != nil, o.del != nil:
			n++
		}
	}
	return n
}

// writeSet is what a list of operations may write.
type writeSet struct {
	puts map[string]struct{}
	dels intervals
}

// claim adds a put, or says that it collides.
func (w *writeSet) claim(key string) error {
	if _, ok := w.puts[key]; ok {
		return api.ErrDuplicateKey
	}
	return w.add(key)
}

// add adds a put that may repeat one; deletes must not cover it.
func (w *writeSet) add(key string) error {
	if w.dels.cover(key) {
		return api.ErrDuplicateKey
	}
	w.puts[key] = struct{}{}
	return nil
}

// overlaps checks in etcd's order: deletes of this level, then nested
// transactions, then puts of this level.
func overlaps(ops []op) (*writeSet, error) {
	w := &writeSet{puts: map[string]struct{}{}}
	for i := range ops {
		if del := ops[i].del; del != nil {
			w.dels.add(del.key, del.end)
		}
	}
	for i := range ops {
		if ops[i].txn != nil {
			if err := w.nested(ops[i].txn); err != nil {
				return nil, err
			}
		}
	}
	for i := range ops {
		if put := ops[i].put; put != nil {
			if err := w.claim(string(put.key)); err != nil {
				return nil, err
			}
		}
	}
	return w, nil
}

func (w *writeSet) nested(r *txnRequest) error {
	then, err := overlaps(r.success)
	if err != nil {
		return err
	}
	other, err := overlaps(r.failure)
	if err != nil {
		return err
	}
	for key := range then.puts {
		if err := w.claim(key); err != nil {
			return err
		}
	}
	for key := range other.puts {
		put := w.claim
		if _, both := then.puts[key]; both {
			put = w.add
		}
		if err := put(key); err != nil {
			return err
		}
	}
	w.dels.union(&then.dels)
	w.dels.union(&other.dels)
	return nil
}

// intervals is a set of key ranges [begin, end).
type intervals struct {
	list   []interval
	sorted bool // by begin, and disjoint
}

type interval struct{ begin, end []byte }

// add adds a delete's range. As in etcd the end is taken literally here, so an
// end that lies before its begin, "\x00" included, covers nothing.
func (s *intervals) add(begin, end []byte) {
	if len(end) == 0 {
		end = append(bytes.Clone(begin), 0)
	}
	if bytes.Compare(begin, end) < 0 {
		s.list, s.sorted = append(s.list, interval{begin, end}), false
	}
}

func (s *intervals) union(other *intervals) {
	if len(other.list) > 0 {
		s.list, s.sorted = append(s.list, other.list...), false
	}
}

// cover reports whether the set contains key.
func (s *intervals) cover(key string) bool {
	if len(s.list) == 0 {
		return false
	}
	if !s.sorted {
		s.merge()
	}
	i, found := slices.BinarySearchFunc(s.list, key, func(iv interval, key string) int {
		return bytes.Compare(iv.begin, []byte(key))
	})
	return found || i > 0 && bytes.Compare([]byte(key), s.list[i-1].end) < 0
}

// merge sorts the list and joins what overlaps.
func (s *intervals) merge() {
	slices.SortFunc(s.list, func(a, b interval) int { return bytes.Compare(a.begin, b.begin) })
	merged := s.list[:1]
	for _, iv := range s.list[1:] {
		last := &merged[len(merged)-1]
		switch {
		case bytes.Compare(iv.begin, last.end) > 0:
			merged = append(merged, iv)
		case bytes.Compare(iv.end, last.end) > 0:
			last.end = iv.end
		}
	}
	s.list, s.sorted = merged, true
}
