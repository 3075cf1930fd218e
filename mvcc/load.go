package mvcc

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"

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
	s.flushing.compaction = compaction{
		active: len(l.doomed) > 0 || l.compact() > l.finished,
		target: l.compact(), doomed: l.doomed, sorted: true,
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
	records, err := scanRecords(view, l.trusted)
	if err != nil {
		return nil, err
	}
	l.rev = max(1, l.compact())
	if n := len(records); n > 0 {
		l.rev = max(l.rev, records[n-1].mod)
		if planted.RevisionReused {
			l.rev--
		}
	}
	if l.foreign {
		l.trusted = l.rev + 1
		if len(records) == 0 && l.index == 0 {
			l.trusted = 0
		}
	}
	if l.rolling, err = readChain(view, l.rev); err != nil {
		return nil, err
	}
	if err := l.loadLeases(); err != nil {
		return nil, err
	}
	sortRecords(records)
	l.buildIndex(records)
	return l, nil
}

// buildIndex builds the tree of the records, which are sorted by key and revision.
func (l *loaded) buildIndex(records []*item) {
	items := records[:0]
	for i := 0; i < len(records); {
		j := i + 1
		for j < len(records) && records[j].key == records[i].key {
			j++
		}
		if it := l.chain(records[i:j]); it != nil {
			items = append(items, it)
		}
		i = j
	}
	l.tree = buildTree(items)
}

// chain makes the item of one key from its records, leaving out what
// compaction has given up, or returns nil if that is all.
func (l *loaded) chain(records []*item) *item {
	it := records[len(records)-1]
	var older []revision
	for _, r := range records[:len(records)-1] {
		older = append(older, r.rev())
	}
	if len(older) > 0 {
		it.hist = &history{revs: older}
	}
	n := it.garbage(l.compact())
	l.doomed = append(l.doomed, older[:min(n, len(older))]...)
	if n > len(older) {
		l.doomed = append(l.doomed, it.rev())
		return nil
	}
	if n > 0 {
		it.hist = nil
		if n < len(older) {
			it.hist = &history{revs: slices.Clone(older[n:])}
		}
	}
	l.revisions += 1 + len(older) - n
	l.keyBytes += int64(len(it.key))
	if it.dirty = !it.clean(); it.dirty {
		l.dirty = append(l.dirty, it.key)
	}
	if ls := l.leases[it.lease]; ls != nil && it.lease != 0 {
		if ls.keys == nil {
			ls.keys = map[string]struct{}{}
		}
		ls.keys[it.key] = struct{}{}
	}
	return it
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

// scanBatch is how many records go from the reader to a decoder at once.
const scanBatch = 1024

// pair is a stored record, aliasing the engine's view.
type pair struct{ key, value []byte }

// scanRecords reads all records in the order of their revisions, as items
// without history. One goroutine walks the engine; the decoders check sums and
// take the records apart.
func scanRecords(view engine.View, trusted api.Revision) ([]*item, error) {
	type job struct {
		n     int
		pairs []pair
	}
	jobs := make(chan job, 16)
	var mu sync.Mutex
	var out [][]*item
	var failed error
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for j := range jobs {
				items, err := decodeAll(j.pairs, trusted)
				mu.Lock()
				for len(out) <= j.n {
					out = append(out, nil)
				}
				out[j.n] = items
				if err != nil && failed == nil {
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	n := 0
	batch := make([]pair, 0, scanBatch)
	view.Scan(engine.Key, nil, nil, func(k, v []byte) bool {
		if batch = append(batch, pair{k, v}); len(batch) == scanBatch {
			jobs <- job{n, batch}
			n++
			batch = make([]pair, 0, scanBatch)
		}
		return true
	})
	jobs <- job{n, batch}
	close(jobs)
	wg.Wait()
	return slices.Concat(out...), failed
}

func decodeAll(pairs []pair, trusted api.Revision) ([]*item, error) {
	items := make([]*item, len(pairs))
	for i, p := range pairs {
		rev, err := parseRevision(p.key)
		if err != nil {
			return nil, err
		}
		if items[i], err = decodeItem(rev, p.key, p.value, trusted); err != nil {
			return nil, err
		}
	}
	return items, nil
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
