package mvcc

import "github.com/keelson-io/keelson/api"

// ReadTxn reads one revision of one state, holding no lock: whatever happens
// meanwhile, compaction included, it goes on seeing the same. It is for one
// goroutine and must be released, because old pages of the engine's file are
// kept for it.
type ReadTxn struct {
	s  *Store
	st *state
	reader
	own lookups
}

// Read starts reading at a revision; 0 is the latest. It returns
// ErrFutureRevision, ErrCompacted or, at shutdown, ErrClosed.
func (s *Store) Read(at api.Revision) (*ReadTxn, error) {
	st, err := s.indexed()
	if err != nil {
		return nil, err
	}
	if err := readable(at, st.rev, st.compact); err != nil {
		st.view.release()
		return nil, err
	}
	t := &ReadTxn{s: s, st: st, own: lookups{tail: st.tail, view: st.view}}
	t.reader = reader{root: st.root, at: at, exact: st.exact, lookups: &t.own}
	if at <= 0 {
		t.at = st.rev
	}
	if t.at < st.rev || !st.exact {
		if root := s.pins.get(t.at); root != nil {
			t.root, t.exact = root, true
		} else {
			t.exact = false
		}
	}
	return t, nil
}

// ReadBack reads an older revision as if it were the latest one. It is the bug
// stale-goes-back, and nothing else uses it.
func (s *Store) ReadBack(at api.Revision) (*ReadTxn, error) {
	t, err := s.Read(at)
	if err == nil {
		st := *t.st
		st.rev = at
		t.st = &st
	}
	return t, err
}

// Release ends the transaction; items and records must not be used any more.
func (t *ReadTxn) Release() {
	if t.st == nil {
		panic("mvcc: read transaction released twice")
	}
	t.st.view.release()
	t.st = nil
}

// Revision returns the latest revision of the state that is read, which is what
// response headers show.
func (t *ReadTxn) Revision() api.Revision { return t.st.rev }

// CompactRevision returns the revision below which the state has no history.
func (t *ReadTxn) CompactRevision() api.Revision { return t.st.compact }

// At returns the revision that is read.
func (t *ReadTxn) At() api.Revision { return t.at }

// Get returns the live item of key.
func (t *ReadTxn) Get(key []byte) (Item, bool) { return t.reader.get(key) }

// Scan calls fn for each live key of the range in order until fn returns false.
// No end is the one key, the end "\x00" is all keys from key on, otherwise the
// range is [key, end).
func (t *ReadTxn) Scan(key, end []byte, fn func(Item) bool) { t.reader.scan(key, end, fn) }

// Count returns the number of live keys of the range, in O(log n) steps at the
// latest and at pinned revisions.
func (t *ReadTxn) Count(key, end []byte) int { return t.reader.count(key, end) }

// Record returns an item's record, valid until Release.
func (t *ReadTxn) Record(it Item) (Record, error) {
	return t.own.record(revision{main: it.Mod, sub: int32(it.Sub)})
}

// Pin keeps the index of this revision at hand for the reads of it that are
// likely to follow: the next pages of a list.
func (t *ReadTxn) Pin() {
	if t.exact {
		t.s.pins.add(t.at, t.root, t.s.cfg.Clock.Now())
	}
}

// reader reads the index below a root at one revision.
type reader struct {
	root node
	at   api.Revision
	// exact says that the root is the index of that very revision: its items
	// can be taken as they are, and its counts hold.
	exact   bool
	lookups *lookups
}

func (r *reader) get(key []byte) (Item, bool) {
	it := get(r.root, stringOf(key))
	if it == nil {
		return Item{}, false
	}
	return r.resolve(it)
}

// resolve returns the key as it was at the reader's revision.
func (r *reader) resolve(it *item) (Item, bool) {
	if r.exact || it.mod <= r.at {
		if it.tomb {
			return Item{}, false
		}
		return it.public(), true
	}
	rev, ok := it.at(r.at)
	if !ok || rev.tomb {
		return Item{}, false
	}
	out := Item{Key: bytesOf(it.key), Mod: rev.main, Sub: int64(rev.sub)}
	// Only the record knows the rest. Should it be damaged, the caller learns
	// that when it asks for the record.
	var f fields
	if rec, err := r.lookups.record(rev); err == nil && f.decode(rec) == nil {
		out.Create, out.Version, out.Lease = f.create, f.version, f.lease
	}
	return out, true
}

func (r *reader) scan(key, end []byte, fn func(Item) bool) { r.scanLeaves(key, end, nil, fn) }

// scanLeaves offers each leaf that lies within the range to whole, if there is
// one, and calls fn for the live keys of those that it does not take. Before
// whole takes a leaf it has what was before it passed on, by drain.
func (r *reader) scanLeaves(key, end []byte, whole func(n *leaf, drain func() bool) (taken, goOn bool), fn func(Item) bool) {
	b, single := boundsOf(key, end)
	if single {
		if it, ok := r.get(key); ok {
			fn(it)
		}
		return
	}
	// Items are taken in batches, so that the records that the caller is going
	// to ask for can be looked up in the order in which they are stored.
	var batch []*item
	limit, stopped := firstBatch, false
	yield := func() bool {
		r.lookups.prefetch(batch, r)
		for _, it := range batch {
			if out, ok := r.resolve(it); ok && !fn(out) {
				stopped = true
				return false
			}
		}
		batch, limit = batch[:0], min(2*limit, maxBatch)
		return true
	}
	visit(r.root, b, func(items []*item, n *leaf) bool {
		if whole != nil && n != nil {
			if taken, goOn := whole(n, yield); taken || !goOn {
				stopped = stopped || !goOn
				return goOn
			}
		}
		for _, it := range items {
			if batch = append(batch, it); len(batch) >= limit && !yield() {
				return false
			}
		}
		return true
	})
	if !stopped {
		yield()
	}
}

// Sizes of the batches of a scan. The first ones are small because many scans
// end soon.
const (
	firstBatch = 16
	maxBatch   = 4096
)

func (r *reader) count(key, end []byte) int {
	b, single := boundsOf(key, end)
	if r.exact && !single {
		return countLive(r.root, b)
	}
	n := 0
	count := func(it *item) bool {
		if r.exact && !it.tomb || !r.exact && it.liveAt(r.at) {
			n++
		}
		return true
	}
	if !single {
		ascend(r.root, b, count)
	} else if it := get(r.root, b.from); it != nil {
		count(it)
	}
	return n
}
