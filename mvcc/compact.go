package mvcc

import (
	"slices"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// Compaction in three times:
//
//  1. Compact, on the apply goroutine, moves the compact revision. Reads below
//     it are refused from then on. This is all that is replicated.
//  2. The flusher makes that durable, and trims the index of the keys that have
//     history, a slice at a time under mu. Readers keep the roots they have.
//  3. It deletes the records it trimmed, in batches, in the order in which they
//     lie in the engine. Readers keep the views they have.
//
// A crash in 2 or 3 loses only the list of what is to be deleted: the next Open
// reads all records and finds the same garbage again.

const (
	// trimSlice is how many keys are trimmed while the apply goroutine waits.
	trimSlice = 128
	// trimStep is how many keys one step trims before it lets others flush.
	trimStep = 64 * trimSlice
	// trimRun is about how many records one step looks for, and puts in order.
	trimRun = 8 << 10
	// maxDoomed bounds the list of records to be deleted: 16 bytes each.
	maxDoomed = 1 << 20
)

// compaction is the work under way, owned by the holder of flushing.
type compaction struct {
	active bool
	hash   *hashScan // what it covers is hashed first, or nil
	target api.Revision
	work   []string // keys yet to be looked at
	doomed doomed
	listed bool // what is doomed is deleted before more keys are looked at
	began  time.Time
}

// doomed lists records yet to be deleted, in runs that rise: in one order, all together,
// they take a tenth of a second for a million, in which nobody else has that processor.
type doomed struct {
	runs [][]revision // none is empty
	n    int          // of all
}

// add puts the records in order and keeps them.
func (d *doomed) add(run []revision) {
	if len(run) == 0 {
		return
	}
	slices.SortFunc(run, func(a, b revision) int {
		if a.before(b) {
			return -1
		}
		return 1 // no two are equal
	})
	d.runs = append(d.runs, run)
	d.n += len(run)
}

// take takes the first n records out.
func (d *doomed) take(n int) []revision {
	first := make([]revision, 0, n)
	for range n {
		k := 0
		for i := 1; i < len(d.runs); i++ {
			if d.runs[i][0].before(d.runs[k][0]) {
				k = i
			}
		}
		first = append(first, d.runs[k][0])
		if d.runs[k] = d.runs[k][1:]; len(d.runs[k]) == 0 {
			d.runs = slices.Delete(d.runs, k, k+1)
		}
	}
	d.n -= n
	return first
}

// reclaimed says how far compaction has come.
type reclaimed struct {
	upTo    api.Revision  // every record that a compaction up to here gave up is deleted
	further chan struct{} // closed when another one has taken its place
}

// Reclaimed reports whether every record that a compaction at a revision gave up is
// deleted, durably. If not, the flusher hurries, and further is closed when there is
// reason to ask again; a store that was closed never does so.
func (s *Store) Reclaimed(at api.Revision) (done bool, further <-chan struct{}) {
	r := s.reclaimed.Load()
	if r.upTo >= at {
		return true, nil
	}
	s.wake()
	return false, r.further
}

// Reclaiming reports whether there are records of a compaction yet to be deleted, and
// so more free space soon.
func (s *Store) Reclaiming() bool { return s.reclaimed.Load().upTo < s.CompactRevision() }

// CompactStep does a bounded part of what compaction left to be done, and reports
// whether there is more. Run calls it.
func (s *Store) CompactStep() (more bool, err error) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	select {
	case <-s.failed:
		return false, s.failure
	default:
	}
	c := &s.flushing.compaction
	if !c.active {
		if !s.Reclaiming() {
			return false, nil
		}
		if err := s.startCompaction(c); err != nil {
			return false, err
		}
	}
	if s.hashSome(c) {
		return true, nil
	}
	begin := s.cfg.Clock.Now()
	if !c.listed {
		more = s.trimSome(c)
		s.compacted(CompactionStep{}, begin)
		if more {
			return true, nil
		}
		begin = s.cfg.Clock.Now()
	}
	n := c.doomed.n
	more, err = s.deleteSome(c)
	s.compacted(CompactionStep{Deletes: true, Deleted: n - c.doomed.n, Done: !c.active}, begin)
	return more, err
}

// compacted tells of a step that began at begin.
func (s *Store) compacted(step CompactionStep, begin time.Time) {
	if s.cfg.OnCompaction == nil {
		return
	}
	now := s.cfg.Clock.Now()
	step.Took = now.Sub(begin)
	if step.Done {
		step.Since = now.Sub(s.flushing.compaction.began)
	}
	s.cfg.OnCompaction(step)
}

// startCompaction takes the keys that have history. No record may be deleted
// before the compact revision is durable: a restart would serve the gaps.
func (s *Store) startCompaction(c *compaction) error {
	if err := s.flushLocked(); err != nil {
		return err
	}
	s.mu.Lock()
	c.active, c.target, c.began = true, s.mu.view.compact, s.cfg.Clock.Now()
	c.work, s.mu.dirty = s.mu.dirty, nil
	s.mu.Unlock()
	s.startHash(c)
	return nil
}

// trimSome trims some of the keys and reports whether to go on with that.
func (s *Store) trimSome(c *compaction) bool {
	var run []revision
	for n := 0; n < trimStep && len(run) < trimRun && len(c.work) > 0; n += trimSlice {
		k := min(trimSlice, len(c.work))
		s.mu.Lock()
		for _, key := range c.work[:k] {
			run = s.mu.trim(key, c.target, run)
		}
		s.mu.Unlock()
		c.work = c.work[k:]
	}
	c.doomed.add(run)
	if len(c.work) > 0 && c.doomed.n < maxDoomed {
		return true
	}
	s.exposeTrimmed()
	c.listed = true
	return false
}

// trim takes out of the index what compaction at target gave up of one key, and
// adds it to doomed.
func (w *working) trim(key string, target api.Revision, doomed []revision) []revision {
	it := get(w.tree.root, key)
	if it == nil || !it.dirty {
		panic("mvcc: key in the compaction queue is not marked: " + key)
	}
	older := it.older()
	n := it.garbage(target)
	w.revisions -= n
	if n > len(older) {
		w.tree.remove(key)
		w.keyBytes -= int64(len(key))
		return append(append(doomed, older...), it.rev())
	}
	next := *it
	if n > 0 {
		next.hist = nil
		if n < len(older) {
			next.hist = &history{revs: slices.Clone(older[n:])}
		}
	}
	next.dirty = !next.clean()
	if next.dirty {
		w.dirty = append(w.dirty, it.key)
	}
	if next != *it {
		w.tree.set(&next)
	}
	return append(doomed, older[:n]...)
}

// exposeTrimmed gives readers the trimmed index when no write is about to do
// so anyway, so that an idle store gives the memory back.
func (s *Store) exposeTrimmed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.touched || s.sealed != nil {
		return
	}
	if st := *s.state.Load(); st.root != nil {
		st.root, st.exact = s.mu.tree.freeze(), true
		s.state.Store(&st)
	}
}

// deleteSome deletes a batch of the doomed records. With the last one the
// compaction is noted as finished.
func (s *Store) deleteSome(c *compaction) (more bool, err error) {
	n := min(s.cfg.CompactionBatch, c.doomed.n)
	last := n == c.doomed.n && len(c.work) == 0
	var batch engine.Batch
	for _, rev := range c.doomed.take(n) {
		batch.Delete(engine.Key, rev.appendTo(make([]byte, 0, tombstoneKeyLen)))
	}
	if last {
		putRevision(&batch, metaFinished, c.target)
	}
	s.mu.Lock()
	v := s.mu.view
	next := v.after()
	s.mu.Unlock()
	if err := s.commitLocked(&batch, next); err != nil {
		return false, err
	}
	c.listed = c.doomed.n > 0
	if last {
		c.active = false
		close(s.reclaimed.Swap(&reclaimed{c.target, make(chan struct{})}).further)
		return s.Reclaiming(), nil
	}
	return true, nil
}

// clockTimer is a timer that may be off.
type clockTimer struct {
	t clock.Timer
	c <-chan time.Time
}

func (t *clockTimer) start(c clock.Clock, d time.Duration) {
	t.t = c.NewTimer(d)
	t.c = t.t.C()
}

func (t *clockTimer) stop() {
	if t.t != nil {
		t.t.Stop()
		t.t, t.c = nil, nil
	}
}
