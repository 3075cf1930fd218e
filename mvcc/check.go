package mvcc

import (
	"fmt"
	"slices"
	"sort"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// maxProblems bounds what Check reports.
const maxProblems = 20

// Check proves that index, tail, engine, leases and counters agree, and that
// every record is sound. It reads the whole store, in the state that the apply
// goroutine last left, and returns what it found wrong.
func (s *Store) Check() []error {
	s.flushing.Lock() // nothing is flushed or trimmed meanwhile
	defer s.flushing.Unlock()
	c := &checker{s: s, records: map[string][]*item{}}
	view, err := c.freeze()
	if err != nil {
		return []error{err}
	}
	defer view.release()
	c.readRecords(view)
	c.checkTree()
	c.checkKeys()
	c.checkLeases(view)
	return c.problems
}

type checker struct {
	s *Store
	w working // the counters as they were when the check began; nothing else of it is used
	// As they were then.
	entries int
	tail    tailView
	root    node
	pending []engine.Op // of bucket lease
	leases  map[api.LeaseID]lease
	queued  map[string]bool

	records  map[string][]*item // by key, in order, engine and tail together
	items    []*item
	problems []error
}

func (c *checker) report(format string, args ...any) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, fmt.Errorf("check: "+format, args...))
	}
}

// freeze takes everything in one moment.
func (c *checker) freeze() (*sharedView, error) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	view := s.mu.view
	if view == nil || !view.acquire() {
		return nil, ErrClosed
	}
	c.w, c.entries = s.mu.working, s.mu.tree.items
	c.root, c.tail, c.pending = s.mu.tree.freeze(), s.mu.tail.view(), s.mu.pending(engine.Lease)
	c.queued = map[string]bool{}
	for _, list := range [][]string{s.mu.dirty, s.flushing.work} {
		for _, key := range list {
			if c.queued[key] {
				c.report("key %q is in the compaction queue twice", key)
			}
			c.queued[key] = true
		}
	}
	s.leases.mu.RLock()
	defer s.leases.mu.RUnlock()
	c.leases = map[api.LeaseID]lease{}
	for id, l := range s.leases.mu.leases {
		copied := lease{ttl: l.ttl, remaining: l.remaining, keys: map[string]struct{}{}}
		for k := range l.keys {
			copied.keys[k] = struct{}{}
		}
		c.leases[id] = copied
	}
	return view, nil
}

// readRecords reads engine and tail, in the order of the revisions.
func (c *checker) readRecords(view *sharedView) {
	var last revision
	add := func(rev revision, key, value []byte, trusted api.Revision) {
		if !last.before(rev) {
			c.report("revision %d.%d follows %d.%d", rev.main, rev.sub, last.main, last.sub)
		}
		last = rev
		it, err := decodeItem(rev, key, value, trusted)
		if err != nil {
			c.report("%w", err)
			return
		}
		c.records[it.key] = append(c.records[it.key], it)
	}
	view.Scan(engine.Key, nil, nil, func(k, v []byte) bool {
		rev, err := parseRevision(k)
		switch {
		case err != nil:
			c.report("%w", err)
		case rev.main > view.rev:
			c.report("engine holds revision %d.%d, flushed was %d", rev.main, rev.sub, view.rev)
		default:
			add(rev, k, v, view.trusted)
		}
		return true
	})
	c.tail.scan(view.rev+1, c.w.rev, func(rev revision, data []byte) bool {
		add(rev, rev.appendTo(nil), data, 0)
		return true
	})
	if last.main > c.w.rev {
		c.report("record of revision %d in a store at %d", last.main, c.w.rev)
	}
}

// checkTree checks order and counters of the index.
func (c *checker) checkTree() {
	c.checkNode(c.root, 0, "", "", true)
	revisions, keyBytes, live := 0, int64(0), 0
	for i, it := range c.items {
		if i > 0 && c.items[i-1].key >= it.key {
			c.report("index: %q before %q", c.items[i-1].key, it.key)
		}
		revisions += 1 + len(it.older())
		keyBytes += int64(len(it.key))
		live += int(liveOf(it))
		if it.dirty == it.clean() {
			c.report("index: %q: clean %v, marked %v", it.key, it.clean(), it.dirty)
		}
		if it.dirty != c.queued[it.key] {
			c.report("index: %q: marked %v, in the compaction queue %v", it.key, it.dirty, c.queued[it.key])
		}
		delete(c.queued, it.key)
	}
	for key := range c.queued {
		c.report("key %q is in the compaction queue but not in the index", key)
	}
	if c.entries != len(c.items) || c.w.revisions != revisions || c.w.keyBytes != keyBytes || c.root.count() != live {
		c.report("counters: %d items, %d revisions, %d key bytes, %d live; found %d, %d, %d, %d",
			c.entries, c.w.revisions, c.w.keyBytes, c.root.count(), len(c.items), revisions, keyBytes, live)
	}
}

// checkNode checks the tree's invariants below n, whose keys must be in
// [from, to), and returns the depth of its leaves.
func (c *checker) checkNode(n node, depth int, from, to string, root bool) int {
	if n.size() == 0 && !root {
		c.report("index: empty node at depth %d", depth)
	}
	switch n := n.(type) {
	case *leaf:
		live := int32(0)
		for i, it := range n.items[:n.n] {
			if it.key[:n.skip] != n.items[0].key[:n.skip] || head(it.key, int(n.skip)) != n.heads[i] {
				c.report("index: %q has head %x behind %d bytes in its leaf", it.key, n.heads[i], n.skip)
			}
			live += liveOf(it)
			if it.key < from || to != "" && it.key >= to {
				c.report("index: %q outside [%q, %q)", it.key, from, to)
			}
		}
		if live != n.live {
			c.report("index: leaf counts %d live keys, has %d", n.live, live)
		}
		c.items = append(c.items, n.items[:n.n]...)
		return depth
	case *inner:
		leaves := -1
		for i := range int(n.n) {
			lo, hi := from, to
			if i > 0 {
				lo = n.seps[i-1]
				if lo[:n.skip] != n.seps[0][:n.skip] || head(lo, int(n.skip)) != n.heads[i-1] {
					c.report("index: %q has head %x behind %d bytes in its node", lo, n.heads[i-1], n.skip)
				}
			}
			if i+1 < int(n.n) {
				hi = n.seps[i]
			}
			d := c.checkNode(n.kids[i], depth+1, lo, hi, false)
			if leaves >= 0 && d != leaves {
				c.report("index: leaves at depths %d and %d", leaves, d)
			}
			leaves = d
			if int(n.live[i]) != n.kids[i].count() {
				c.report("index: %d live keys noted for a node of %d", n.live[i], n.kids[i].count())
			}
		}
		return leaves
	}
	return depth
}

// checkKeys checks each key's item against its records. What compaction gave up
// may be gone from one, both or none, so it is left out on both sides.
func (c *checker) checkKeys() {
	for _, it := range c.items {
		records := c.records[it.key]
		delete(c.records, it.key)
		named := append(slices.Clone(it.older()), it.rev())[it.garbage(c.w.compact):]
		found := c.afterCompaction(records)
		if !slices.EqualFunc(named, found, func(a revision, b *item) bool { return a == b.rev() }) {
			c.report("key %q: the index names %v, there are %v", it.key, named, revisionsOf(found))
			continue
		}
		c.checkChain(records)
		if len(found) == 0 {
			continue
		}
		l := found[len(found)-1]
		if it.create != l.create || it.version != l.version || it.lease != l.lease {
			c.report("key %q: the index has create %d, version %d, lease %x; the record %d, %d, %x",
				it.key, it.create, it.version, it.lease, l.create, l.version, l.lease)
		}
	}
	for key, records := range c.records {
		if found := c.afterCompaction(records); len(found) > 0 {
			c.report("key %q: revisions %v are not in the index", key, revisionsOf(found))
		}
	}
}

// afterCompaction returns the records of one key that compaction keeps.
func (c *checker) afterCompaction(records []*item) []*item {
	if len(records) == 0 {
		return nil
	}
	last := *records[len(records)-1]
	if len(records) > 1 {
		last.hist = &history{revs: revisionsOf(records[:len(records)-1])}
	}
	return records[last.garbage(c.w.compact):]
}

func revisionsOf(records []*item) []revision {
	out := make([]revision, len(records))
	for i, r := range records {
		out[i] = r.rev()
	}
	return out
}

// checkChain checks create revision and version along a key's records. What
// came before the first kept record is unknown.
func (c *checker) checkChain(records []*item) {
	for i, r := range records {
		if r.tomb || r.mod <= c.w.compact {
			continue
		}
		create, version := r.mod, int64(1)
		if i > 0 && !records[i-1].tomb {
			create, version = records[i-1].create, records[i-1].version+1
		} else if i == 0 && r.create <= c.w.compact {
			continue
		}
		if r.create != create || r.version != version {
			c.report("key %q at %d: create %d, version %d; from the record before follow %d, %d",
				r.key, r.mod, r.create, r.version, create, version)
		}
	}
}

// checkLeases checks the leases against the keys and the lease bucket.
func (c *checker) checkLeases(view *sharedView) {
	for _, it := range c.items {
		if it.lease == 0 {
			continue
		}
		l, ok := c.leases[it.lease]
		if !ok {
			c.report("key %q is attached to lease %x, which does not exist", it.key, int64(it.lease))
		} else if _, ok := l.keys[it.key]; !ok {
			c.report("key %q has lease %x, which does not know it", it.key, int64(it.lease))
		}
		delete(l.keys, it.key)
	}
	stored := map[string][]byte{}
	view.Scan(engine.Lease, nil, nil, func(k, v []byte) bool {
		stored[string(k)] = slices.Clone(v)
		return true
	})
	for _, op := range c.pending {
		delete(stored, string(op.Key))
		if op.Value != nil {
			stored[string(op.Key)] = op.Value
		}
	}
	ids := make([]api.LeaseID, 0, len(c.leases))
	for id := range c.leases {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	for _, id := range ids {
		l := c.leases[id]
		for key := range l.keys {
			c.report("lease %x has key %q, which has not it", int64(id), key)
		}
		k := string(leaseKey(id))
		if got, want := stored[k], encodeLease(id, l.ttl, l.remaining); !slices.Equal(got, want) {
			c.report("lease %x is stored as %x, should be %x", int64(id), got, want)
		}
		delete(stored, k)
	}
	for k := range stored {
		c.report("lease %x is stored but does not exist", k)
	}
}
