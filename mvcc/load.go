package mvcc

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/planted"
)

// Open builds the index from the engine, verifying every record on the way. It
// writes nothing. The flusher must be started with Run.
func Open(cfg Config) (*Store, error) {
	if cfg.TailBytes <= 0 {
		cfg.TailBytes = DefaultTailBytes
	}
	if cfg.FlushInterval <= 0 {
		cfg.FlushInterval = DefaultFlushInterval
	}
	if cfg.CompactionBatch <= 0 {
		cfg.CompactionBatch = DefaultCompactionBatch
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.OnCorrupt == nil {
		cfg.OnCorrupt = func(error) {}
	}
	l, err := load(cfg.Engine)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger, leases: newLeaseTable(),
		kick: make(chan struct{}, 1), failed: make(chan struct{}),
	}
	s.adopt(cfg.Engine, l)
	s.space.measure(cfg.Engine.Stats())
	s.hub = newHub(s, l.rev)
	return s, nil
}

// loaded is what an engine holds, ready to become a store's state.
type loaded struct {
	position
	view      engine.View
	rev       api.Revision
	tree      *tree
	dirty     []string
	doomed    []revision // compacted, but still in the engine
	revisions int
	keyBytes  int64
	leases    map[api.LeaseID]*lease
	rolling   chain
}

// adopt makes what was loaded the store's state, working and exposed.
func (s *Store) adopt(e engine.Engine, l *loaded) {
	view := &sharedView{View: l.view, index: l.index, term: l.term, rev: l.rev, compact: l.compact(), trusted: l.trusted, chain: l.rolling.base, corrupt: s.cfg.OnCorrupt}
	view.refs.Store(1)
	s.leases.mu.Lock()
	s.leases.mu.leases = l.leases
	s.leases.mu.Unlock()
	s.flushing.compaction = compaction{active: len(l.doomed) > 0 || l.compact() > l.finished, target: l.compact(), listed: true}
	for run := range slices.Chunk(l.doomed, trimRun) {
		s.flushing.compaction.doomed.add(run)
	}
	s.reclaimed.Store(&reclaimed{l.finished, make(chan struct{})})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.working = working{
		tree: l.tree, rev: l.rev, compact: l.compact(),
		dirty: l.dirty, revisions: l.revisions, keyBytes: l.keyBytes, chain: l.rolling,
	}
	s.mu.engine, s.mu.view, s.mu.durable = e, view, l.index
	s.state.Store(&state{
		rev: l.rev, compact: l.compact(), index: l.index, term: l.term,
		view: view, chain: l.rolling.value,
	})
}

// load reads an engine. On success the caller has its view to release.
func load(e engine.Engine) (l *loaded, err error) {
	view, err := e.View()
	if err != nil {
		return nil, fmt.Errorf("mvcc: open: %w", err)
	}
	defer func() {
		if err != nil {
			view.Release()
			err = fmt.Errorf("mvcc: open: %w", err)
		}
	}()
	l = &loaded{view: view}
	if l.position, err = readPosition(view); err != nil {
		return nil, err
	}
	if l.foreign {
		l.trusted = 1<<63 - 1 // no record needs a checksum until the end is known
	}
	runs, last, err := scanRecords(view, l.trusted)
	if err != nil {
		return nil, err
	}
	l.rev = max(1, l.compact())
	if len(runs) > 0 {
		l.rev = max(l.rev, last)
		if planted.RevisionReused {
			l.rev--
		}
	}
	if l.foreign {
		l.trusted = l.rev + 1
		if len(runs) == 0 && l.index == 0 {
			l.trusted = 0
		}
	}
	if l.rolling, err = readChain(view, l.rev); err != nil {
		return nil, err
	}
	if err := l.loadLeases(); err != nil {
		return nil, err
	}
	l.buildIndex(runs)
	return l, nil
}

// buildIndex builds the tree of the records, which are sorted by key and revision
// in each run. Ranges of keys are built side by side.
func (l *loaded) buildIndex(runs [][]*item) {
	ranges := make([]keyRange, keyRanges)
	bounds := splitKeys(runs, keyRanges)
	inParallel(keyRanges, func(n int) {
		r := &ranges[n]
		r.compact = l.compact()
		var one []*item
		merge(cutRuns(runs, bounds, n), func(it *item) {
			if len(one) > 0 && one[0].key != it.key {
				r.add(one)
				one = one[:0]
			}
			one = append(one, it)
		})
		if len(one) > 0 {
			r.add(one)
		}
		r.row.finish()
	})
	var rows []leafRow
	for i := range ranges {
		r := &ranges[i]
		rows = append(rows, r.row)
		l.dirty, l.doomed = append(l.dirty, r.dirty...), append(l.doomed, r.doomed...)
		l.revisions += r.revisions
		l.keyBytes += r.keyBytes
		for _, it := range r.leased {
			if ls := l.leases[it.lease]; ls != nil {
				if ls.keys == nil {
					ls.keys = map[string]struct{}{}
				}
				ls.keys[it.key] = struct{}{}
			}
		}
	}
	l.tree = joinRows(rows)
}

// keyRange is what the records of a range of keys come to.
type keyRange struct {
	compact   api.Revision
	row       leafRow
	dirty     []string
	doomed    []revision
	leased    []*item
	revisions int
	keyBytes  int64
}

// add makes the item of one key from its records, leaving out what compaction has
// given up.
func (r *keyRange) add(records []*item) {
	it := records[len(records)-1]
	var older []revision
	for _, rec := range records[:len(records)-1] {
		older = append(older, rec.rev())
	}
	if len(older) > 0 {
		it.hist = &history{revs: older}
	}
	n := it.garbage(r.compact)
	r.doomed = append(r.doomed, older[:min(n, len(older))]...)
	if n > len(older) {
		r.doomed = append(r.doomed, it.rev())
		return
	}
	if n > 0 {
		it.hist = nil
		if n < len(older) {
			it.hist = &history{revs: slices.Clone(older[n:])}
		}
	}
	r.revisions += 1 + len(older) - n
	r.keyBytes += int64(len(it.key))
	if it.dirty = !it.clean(); it.dirty {
		r.dirty = append(r.dirty, it.key)
	}
	if it.lease != 0 {
		r.leased = append(r.leased, it)
	}
	r.row.add(it)
}

func (l *loaded) loadLeases() (err error) {
	l.leases = map[api.LeaseID]*lease{}
	l.view.Scan(engine.Lease, nil, nil, func(k, v []byte) bool {
		var id api.LeaseID
		ls := &lease{}
		if id, ls.ttl, ls.remaining, err = decodeLease(k, v); err != nil {
			return false
		}
		l.leases[id] = ls
		return !planted.LeaseLost
	})
	return err
}

// The store is read in scanPieces ranges of revisions and put together in keyRanges
// ranges of keys, so that all processors have something to do most of the time: neither
// revisions nor keys need be spread evenly.
const (
	scanPieces = 128
	keyRanges  = 16
	maxGuess   = 1 << 16 // of the records in a piece
)

// inParallel calls fn with each number below n, from the last to the first.
func inParallel(n int, fn func(n int)) {
	var next atomic.Int64
	next.Store(int64(n))
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := next.Add(-1); i >= 0; i = next.Add(-1) {
				fn(int(i))
			}
		})
	}
	wg.Wait()
}

// scanRecords reads and verifies all records. It returns them as items without
// history, in runs sorted by key and revision, and the last revision.
func scanRecords(view engine.View, trusted api.Revision) (_ [][]*item, last api.Revision, err error) {
	bounds, last, err := splitRevisions(view, scanPieces)
	if bounds == nil {
		return nil, 0, err
	}
	var runs [scanPieces][]*item
	var errs [scanPieces]error
	var usual atomic.Int64 // records of a piece, as far as is known
	inParallel(scanPieces, func(n int) {
		runs[n] = make([]*item, 0, min(usual.Load(), maxGuess))
		view.Scan(engine.Key, bounds[n], bounds[n+1], func(k, v []byte) bool {
			var rev revision
			var it *item
			if rev, errs[n] = parseRevision(k); errs[n] == nil {
				it, errs[n] = decodeItem(rev, k, v, trusted)
			}
			runs[n] = append(runs[n], it)
			return errs[n] == nil
		})
		usual.Store(int64(len(runs[n])))
		if errs[n] == nil {
			sortRecords(runs[n])
		}
	})
	for _, err := range errs {
		if err != nil {
			return nil, 0, err
		}
	}
	return slices.DeleteFunc(runs[:], func(run []*item) bool { return len(run) == 0 }), last, nil
}

// splitRevisions returns the bounds of n pieces that hold all records, none if there
// are no records, and the last revision. The outer bounds are open, for keys that are
// no revisions.
func splitRevisions(view engine.View, n int) (bounds [][]byte, last api.Revision, err error) {
	cursor := view.Cursor(engine.Key)
	low, _ := cursor.Seek(nil)
	high, _ := cursor.Last()
	if low == nil {
		return nil, 0, nil
	}
	from, err := parseRevision(low)
	if err != nil {
		return nil, 0, err
	}
	to, err := parseRevision(high)
	if err != nil {
		return nil, 0, err
	}
	bounds = make([][]byte, n+1)
	step := (to.main-from.main)/api.Revision(n) + 1
	for i := 1; i < n; i++ {
		bounds[i] = mainKey(from.main + api.Revision(i)*step)
	}
	return bounds, to.main, nil
}

// decodeItem makes the item of a stored record.
func decodeItem(rev revision, key, value []byte, trusted api.Revision) (*item, error) {
	rec, err := verify(key, value, trusted)
	if err != nil {
		return nil, err
	}
	var f fields
	if err := f.decode(rec); err != nil {
		return nil, fmt.Errorf("revision %d.%d: %w", rev.main, rev.sub, err)
	}
	it := &item{key: string(f.key), mod: rev.main, sub: rev.sub, tomb: rev.tomb}
	if !rev.tomb {
		if f.mod != rev.main || f.create <= 0 || f.create > f.mod || f.version <= 0 {
			return nil, fmt.Errorf("%w: revision %d.%d holds create %d, mod %d, version %d",
				ErrCorrupt, rev.main, rev.sub, f.create, f.mod, f.version)
		}
		it.create, it.version, it.lease = f.create, f.version, f.lease
	}
	return it, nil
}
