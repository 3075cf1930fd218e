// Package topk finds the most frequent keys of a long stream in bounded memory.
//
// It is Space-Saving (Metwally, Agrawal, El Abbadi, "Efficient computation of
// frequent and top-k elements in data streams", 2005) with the paper's
// stream-summary: counters hang in buckets of equal count, the buckets in a list
// of rising counts. A key that is known moves to the next bucket; one that is not
// takes the counter of the least frequent key, with its count. Each Add takes
// constant time, however many keys there are.
//
// Invariants, with n keys added and k counters:
//
//	the counts of all counters sum up to n
//	count - over <= true count <= count, for a key that has a counter
//	a key whose true count is above n/k has a counter
//	over <= n/k
//
// A Sketch is not safe for concurrent use.
package topk

import "slices"

// Sketch counts the keys of a stream. T is what the caller notes beside the
// count; it is zero for a key that is new or came back.
type Sketch[T any] struct {
	room  int
	byKey map[string]*counter[T]
	least *bucket[T] // the smallest count; nil: empty
}

// bucket holds the counters of one count.
type bucket[T any] struct {
	count      uint64
	prev, next *bucket[T]
	first      *counter[T] // never nil in the list
}

type counter[T any] struct {
	key        string
	over       uint64
	note       T
	bucket     *bucket[T]
	prev, next *counter[T] // in the bucket
}

// Entry is what is known of one key.
type Entry[T any] struct {
	Key   string
	Count uint64 // at most Over above the truth, never below it
	Over  uint64
	Note  T // since the key has a counter
}

// New makes a sketch with room for that many keys, 1 at least.
func New[T any](room int) *Sketch[T] {
	room = max(room, 1)
	return &Sketch[T]{room: room, byKey: make(map[string]*counter[T], room)}
}

// Add counts a key and returns its note, valid until the next Add. It copies
// key only if it has no counter yet.
func (s *Sketch[T]) Add(key []byte) *T {
	c := s.byKey[string(key)]
	switch {
	case c != nil:
	case len(s.byKey) < s.room:
		c = &counter[T]{key: string(key)}
		s.byKey[c.key] = c
	default:
		c = s.least.first
		delete(s.byKey, c.key)
		var none T
		c.key, c.over, c.note = string(key), s.least.count, none
		s.byKey[c.key] = c
	}
	s.raise(c)
	return &c.note
}

// raise moves a counter to the bucket of the next count.
func (s *Sketch[T]) raise(c *counter[T]) {
	from := c.bucket
	count, after := uint64(1), s.least
	if from != nil {
		count, after = from.count+1, from.next
	}
	to := after
	if to == nil || to.count != count {
		to = &bucket[T]{count: count, prev: from, next: after}
		if after != nil {
			after.prev = to
		}
		if from != nil {
			from.next = to
		} else {
			s.least = to
		}
	}
	if from != nil {
		s.leave(c)
	}
	c.bucket, c.prev, c.next = to, nil, to.first
	if to.first != nil {
		to.first.prev = c
	}
	to.first = c
}

// leave takes a counter out of its bucket, and the bucket out of the list when it
// was the last one in it.
func (s *Sketch[T]) leave(c *counter[T]) {
	b := c.bucket
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		b.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	if b.first != nil {
		return
	}
	if b.prev != nil {
		b.prev.next = b.next
	} else {
		s.least = b.next
	}
	if b.next != nil {
		b.next.prev = b.prev
	}
}

// Entries returns all keys that have a counter, the most frequent first.
func (s *Sketch[T]) Entries() []Entry[T] {
	out := make([]Entry[T], 0, len(s.byKey))
	for b := s.least; b != nil; b = b.next {
		for c := b.first; c != nil; c = c.next {
			out = append(out, Entry[T]{Key: c.key, Count: b.count, Over: c.over, Note: c.note})
		}
	}
	slices.Reverse(out)
	return out
}
