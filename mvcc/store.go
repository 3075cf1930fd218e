package mvcc

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// maxTailFactor times TailBytes is where apply flushes the tail itself instead
// of letting it grow.
const maxTailFactor = 4

// Store is the multi-version store. See the package comment.
type Store struct {
	cfg    Config
	log    *slog.Logger
	hub    *hub
	leases *leaseTable
	pins   pinCache
	pages  pageCache
	hashes compactionHashes
	space  space
	defrag defrag

	// state is what readers see. It is replaced under mu.
	state atomic.Pointer[state]
	// asked says that the index was read since the last Seal.
	asked atomic.Bool
	// reclaimed changes under flushing.
	reclaimed atomic.Pointer[reclaimed]
	// kick wakes the flusher before its time.
	kick chan struct{}
	// failed is closed when the store cannot go on; failure is set before.
	failed   chan struct{}
	failOnce sync.Once
	failure  error

	// Owned by the apply goroutine: what Publish hands out.
	sealed        *state // not yet exposed, or nil
	sealedEvents  []*Event
	sealedChanges []LeaseChange

	// mu guards the working state: the apply goroutine holds it from Begin to
	// End, others for moments.
	mu struct {
		sync.Mutex
		working
		engine engine.Engine
		// view is the engine after its last commit; nil once the store is closed.
		view    *sharedView
		durable api.Index // view's
	}
	// flushing is held by whoever commits to the engine. Lock order: flushing,
	// the hub's lock, mu, the lease table's.
	flushing struct {
		sync.Mutex
		compaction
	}
}

// working is the state in the making. Its revisions up to the sealed state's
// are final; readers cannot see any of it before it is exposed.
type working struct {
	tree    *tree
	tail    tail
	rev     api.Revision
	compact api.Revision
	touched bool // something changed since the last Seal
	kept    int  // how many more Seals keep the index for readers

	events  []*Event // since the last Seal
	changes []LeaseChange

	// ops are the changes of other buckets that the engine does not have yet;
	// the first is number opsBase.
	ops     []engine.Op
	opsBase int64

	// dirty lists the keys that have history or are tombstones, each once: its
	// item says so too. Compaction looks at no others.
	dirty []string

	revisions int   // records that the index names
	keyBytes  int64 // of all keys in the tree

	chain chain // the rolling hash

	txn WriteTxn // the one transaction, used again and again
}

// state is one state of the store, fixed when it is exposed. The three sources
// of records agree: each record that root names at compact or later is in tail
// or in view, or was made after the state.
type state struct {
	rev     api.Revision
	compact api.Revision
	index   api.Index
	term    api.Term
	root    node   // the index; nil until somebody asks, see indexed
	exact   bool   // root is of this very state, not of a later one
	opsEnd  int64  // number of the first op that is not part of the state
	chain   uint64 // the rolling hash at rev

	tail tailView
	view *sharedView
}

// sharedView is one state of the engine, used by all readers of the states that
// were exposed with it. The store holds one reference while it is current.
type sharedView struct {
	engine.View
	refs atomic.Int64

	index   api.Index
	term    api.Term
	rev     api.Revision // records up to here are in the engine
	compact api.Revision // as stored: what a restart would take for compacted
	ops     int64        // ops before this number are in the engine
	trusted api.Revision // records from here on must have checksums
	chain   api.Revision // where the rolling hash began
	corrupt func(error)  // Config.OnCorrupt
}

// after is a view like v, whose engine's state the caller fills in.
func (v *sharedView) after() *sharedView {
	return &sharedView{
		index: v.index, term: v.term, rev: v.rev, compact: v.compact,
		ops: v.ops, trusted: v.trusted, chain: v.chain, corrupt: v.corrupt,
	}
}

// verify checks a stored record and tells of damage.
func (v *sharedView) verify(key, value []byte) (Record, error) {
	rec, err := verify(key, value, v.trusted)
	if err != nil {
		v.corrupt(err)
	}
	return rec, err
}

func (v *sharedView) acquire() bool {
	for {
		n := v.refs.Load()
		if n == 0 {
			return false
		}
		if v.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (v *sharedView) release() {
	if n := v.refs.Add(-1); n == 0 {
		v.View.Release()
	} else if n < 0 {
		panic(fmt.Sprintf("mvcc: view released too often (%d)", n))
	}
}

// acquire returns the exposed state with a reference to its view.
func (s *Store) acquire() (*state, error) {
	for {
		st := s.state.Load()
		if st.view == nil {
			return nil, ErrClosed
		}
		// A view can only have ended if another took its place in the state.
		if st.view.acquire() {
			return st, nil
		}
	}
}

// keptSeals is for how many Seals after a read each state has its index at once.
const keptSeals = 64

// indexed is acquire for those who read the index, too. An index that has been
// handed out must not change, so the writes after it copy the nodes that they
// touch: half of what a write costs. Where nobody reads, as under many writes of
// controllers that read from caches of their own, none is handed out.
func (s *Store) indexed() (*state, error) {
	if !s.asked.Load() {
		s.asked.Store(true)
	}
	for {
		st, err := s.acquire()
		if err != nil || st.root != nil {
			return st, err
		}
		st.view.release()
		s.handOut()
	}
}

// handOut gives the exposed state its index. What was written since is in there as
// well: it is told from the state by its revisions, as it is for reads of an
// older revision. Nothing that the state can see is missing, because compaction
// takes from the index only what an exposed state has given up.
func (s *Store) handOut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := *s.state.Load()
	if st.root == nil {
		st.root, st.exact = s.mu.tree.freeze(), !s.mu.touched && s.sealed == nil
		s.state.Store(&st)
	}
}

// indexForReadersLocked is the index of the state that is being sealed, or nil when
// nobody has read for a while.
func (s *Store) indexForReadersLocked() node {
	w := &s.mu.working
	if s.asked.Swap(false) {
		w.kept = keptSeals
	}
	if w.kept == 0 {
		return nil
	}
	w.kept--
	return w.tree.freeze()
}

// Applied returns the position in the log of the exposed state.
func (s *Store) Applied() (api.Index, api.Term) {
	st := s.state.Load()
	return st.index, st.term
}

// Durable returns the log index up to which the engine has everything: a
// restart needs the log from the next entry on.
func (s *Store) Durable() api.Index {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.durable
}

// Revision returns the exposed revision.
func (s *Store) Revision() api.Revision { return s.state.Load().rev }

// CompactRevision returns the revision below which history is gone; -1 when
// the store was never compacted.
func (s *Store) CompactRevision() api.Revision { return s.state.Load().compact }

// Seal ends the commands of the log up to index: the working state becomes the
// one that Publish will expose. Called by the apply goroutine.
func (s *Store) Seal(index api.Index, term api.Term) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &s.mu.working
	s.sealed = &state{
		rev: w.rev, compact: w.compact, index: index, term: term,
		root: s.indexForReadersLocked(), exact: true, opsEnd: w.opsBase + int64(len(w.ops)), chain: w.chain.value,
	}
	w.touched = false
	s.sealedEvents = append(s.sealedEvents, w.events...)
	s.sealedChanges = append(s.sealedChanges, w.changes...)
	clear(w.events) // watchers alone decide how long events live
	w.events, w.changes = w.events[:0], w.changes[:0]
}

// Publish hands the sealed events to the watchers and then exposes the sealed
// state to readers, as one step for whoever registers a watch. Called by the
// apply goroutine.
func (s *Store) Publish() {
	if s.sealed == nil {
		return
	}
	s.hub.publish(s.sealed.rev, s.sealedEvents, s.expose)
	clear(s.sealedEvents)
	s.sealedEvents = s.sealedEvents[:0]
	if s.cfg.OnLease != nil {
		for _, c := range s.sealedChanges {
			s.cfg.OnLease(c)
		}
	}
	s.sealedChanges = s.sealedChanges[:0]
	s.limitTail()
}

// expose makes the sealed state the one that readers see.
func (s *Store) expose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed.tail, s.sealed.view = s.mu.tail.view(), s.mu.view
	s.space.tail.Store(s.mu.tail.bytes)
	s.state.Store(s.sealed)
	s.sealed = nil
}

// limitTail wakes the flusher when the tail is due, and flushes it here, on the
// apply goroutine, when the flusher cannot keep up: that is what bounds memory.
func (s *Store) limitTail() {
	s.mu.Lock()
	size := s.mu.tail.bytes
	s.mu.Unlock()
	factor := int64(maxTailFactor)
	if s.defrag.active.Load() {
		factor = rewriteTailFactor
	}
	switch {
	case size > factor*s.cfg.TailBytes:
		if err := s.Flush(); err != nil && !errors.Is(err, ErrClosed) {
			s.log.Error("cannot flush the tail", "bytes", size, "error", err)
		}
	case size > s.cfg.TailBytes:
		s.wake()
	}
}

// wake has the flusher work before its time.
func (s *Store) wake() {
	select {
	case s.kick <- struct{}{}:
	default: // it has been told
	}
}

// PrevRecord implements PrevSource for events that are about to be published:
// the compaction that could delete the record has not begun.
func (s *Store) PrevRecord(rev api.Revision, sub int64) (Record, error) {
	at := revision{main: rev, sub: int32(sub)}
	s.mu.Lock()
	data := s.mu.tail.view().find(at)
	view := s.mu.view
	held := data == nil && view != nil && view.acquire()
	s.mu.Unlock()
	if data != nil {
		return trimTrailer(data), nil
	}
	if !held {
		return nil, ErrClosed
	}
	defer view.release()
	rec, err := view.lookup(at)
	return append(Record(nil), rec...), err
}

// lookup reads a record from the engine.
func (v *sharedView) lookup(at revision) (Record, error) {
	l := lookups{view: v}
	return l.record(at)
}

func trimTrailer(data []byte) Record {
	n := len(data) - trailerLen
	return Record(data[:n:n])
}

// fail stops the store: nothing may be known about what the engine holds.
func (s *Store) fail(err error) {
	s.failOnce.Do(func() {
		s.failure = err
		close(s.failed)
		s.log.Error("the store cannot go on", "error", err)
		if s.cfg.OnFatal != nil {
			s.cfg.OnFatal(err)
		}
	})
}

// Close ends the read side: transactions that are open may be finished, new
// ones get ErrClosed. Run must have returned. The engine is the caller's.
func (s *Store) Close() error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.dropHash(&s.flushing.compaction)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.view == nil {
		return nil
	}
	st := *s.state.Load()
	st.view = nil
	s.state.Store(&st)
	s.mu.view.release()
	s.mu.view = nil
	return nil
}
