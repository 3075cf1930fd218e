package mvcc

import (
	"context"
	"fmt"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// A step that deletes records is followed by a rest of leastRest to maxRest: of
// restFactor times what the step took, so that most of the disk's time is the log's.
const (
	leastRest  = 10 * time.Millisecond
	restFactor = 2
)

// Run is the flusher: it brings the tail into the engine, in time or when it
// has grown, and deletes what compaction gave up. It returns nil after a last
// flush when ctx ends, or the error after which the store cannot go on.
func (s *Store) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { s.defrag.ending.Store(true) })()
	ticker := s.cfg.Clock.NewTicker(s.cfg.FlushInterval)
	defer ticker.Stop()
	var pause clockTimer
	defer func() { pause.stop() }()
	for {
		select {
		case <-ctx.Done():
			return s.Flush()
		case <-s.failed:
			return s.failure
		case <-s.kick:
			if err := s.Flush(); err != nil {
				return err
			}
			if pause.c == nil {
				pause.start(s.cfg.Clock, 0)
			}
		case now := <-ticker.C():
			s.pins.expire(now, s.CompactRevision())
			s.pages.expire(now)
			if err := s.Flush(); err != nil {
				return err
			}
			if pause.c == nil {
				pause.start(s.cfg.Clock, 0)
			}
		case <-pause.c:
			began := s.cfg.Clock.Now()
			more, err := s.CompactStep()
			if err != nil {
				return err
			}
			pause.stop()
			if more {
				pause.start(s.cfg.Clock, min(max(leastRest, restFactor*s.cfg.Clock.Now().Sub(began)), maxRest))
			}
		}
	}
}

// Flush makes the exposed state durable. It may be called by any goroutine.
func (s *Store) Flush() error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	return s.flushLocked()
}

// flushLocked commits what the exposed state has beyond the engine. The commit
// is one engine transaction: a crash before it leaves the previous state, from
// whose index the log is replayed; a crash after it leaves this one.
func (s *Store) flushLocked() error {
	st, done, err := s.startFlush()
	if err != nil || st == nil {
		return err
	}
	defer done()
	var batch engine.Batch
	putRecords(&batch, st, st.view.rev)
	s.mu.Lock()
	batch.Ops = append(batch.Ops, s.mu.ops[:st.opsEnd-s.mu.opsBase]...)
	s.mu.Unlock()
	if st.compact > st.view.compact {
		putRevision(&batch, metaScheduled, st.compact)
	}
	putPosition(&batch, st.index, st.term, st.view.trusted)
	putChain(&batch, st.view.chain, st.rev, st.chain)
	next := st.view.after()
	next.index, next.term, next.rev, next.compact, next.ops = st.index, st.term, st.rev, st.compact, st.opsEnd
	return s.commitLocked(&batch, next)
}

// startFlush returns the exposed state with its view held, or nil when the
// engine has all of it.
func (s *Store) startFlush() (st *state, done func(), err error) {
	select {
	case <-s.failed:
		return nil, nil, s.failure
	default:
	}
	st, err = s.acquire()
	if err != nil {
		return nil, nil, err
	}
	v := st.view
	if st.index == v.index && st.rev == v.rev && st.compact == v.compact && st.opsEnd == v.ops {
		v.release()
		return nil, nil, nil
	}
	s.mu.Lock()
	s.mu.tail.cut()
	s.mu.Unlock()
	return st, v.release, nil
}

// putRecords adds the records after flushed in the order of their keys.
func putRecords(t *engine.Batch, st *state, flushed api.Revision) {
	n := 0
	count := func(revision, []byte) bool { n++; return true }
	st.tail.scan(flushed+1, st.rev, count)
	t.Ops = make([]engine.Op, 0, n+16)
	keys := make([]byte, 0, n*tombstoneKeyLen)
	st.tail.scan(flushed+1, st.rev, func(rev revision, data []byte) bool {
		start := len(keys)
		keys = rev.appendTo(keys)
		t.Put(engine.Key, keys[start:len(keys):len(keys)], data)
		return true
	})
}

// commitLocked commits a batch and puts the engine's new state under readers.
// After an error nobody knows what the engine holds, so the store ends.
func (s *Store) commitLocked(batch *engine.Batch, next *sharedView) error {
	s.mu.Lock()
	e := s.mu.engine
	s.mu.Unlock()
	err := e.Commit(batch)
	var view engine.View
	if err == nil {
		view, err = e.View()
	}
	if err != nil {
		err = fmt.Errorf("mvcc: flush to index %d: %w", next.index, err)
		s.fail(err)
		return err
	}
	next.View = view
	next.refs.Store(1)
	s.adoptView(next)
	s.space.measure(e.Stats())
	return nil
}

// adoptView replaces the engine's state that readers use, and drops from the
// tail and the list of changes what it holds.
func (s *Store) adoptView(next *sharedView) {
	s.mu.Lock()
	old := s.mu.view
	s.mu.view, s.mu.durable = next, next.index
	s.mu.tail.drop(next.rev)
	s.space.tail.Store(s.mu.tail.bytes)
	if n := next.ops - s.mu.opsBase; n > 0 {
		s.mu.ops = append([]engine.Op(nil), s.mu.ops[n:]...)
		s.mu.opsBase = next.ops
	}
	st := *s.state.Load()
	st.tail, st.view = s.mu.tail.view(), next
	s.state.Store(&st)
	s.mu.Unlock()
	old.release()
}
