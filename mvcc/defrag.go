package mvcc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/keelson-io/keelson/mvcc/engine"
)

// Defragmentation copies the live content of the engine into a fresh file while
// the store goes on working: reads use the old file, writes gather in the tail,
// and no commit is made until the new file has taken the old one's place. The
// copy is made in portions with rests between them, so that the disk and the
// processor stay with those who wait for them. The old file
// goes in portions, too, once nobody reads it.
//
// A crash at any moment leaves one whole file or the other, of the same content;
// what the tail held is in the log.

const (
	// rewriteTailFactor takes the place of maxTailFactor while the engine is
	// rewritten: beyond that times TailBytes the rewrite is given up for the tail.
	rewriteTailFactor = 16
	// maxRest bounds the rest after a portion, or a step of compaction.
	maxRest = 100 * time.Millisecond
)

// Errors of Defragment.
var (
	// ErrDefragGaveWay: too much was written meanwhile. Nothing has changed.
	ErrDefragGaveWay = errors.New("mvcc: defragmentation gave way to writes")
)

// defrag is what a rewrite under way and the rest of the store know of each other.
type defrag struct {
	active atomic.Bool // a rewrite holds flushing
	ending atomic.Bool // the flusher is about to end: give up
}

// Space tells what the store's content takes on disk, in bytes.
type Space struct {
	Allocated int64 // the file
	InUse     int64 // its part that is not free
	Tail      int64 // applied, not yet in the file
}

// Needed is the size of the file once the tail is in it: the tail fills free
// space first.
func (s Space) Needed() int64 { return max(s.Allocated, s.InUse+s.Tail) }

// space holds the figures of the last flush and of the last publication.
type space struct{ allocated, inUse, tail atomic.Int64 }

func (s *space) measure(e engine.Stats) {
	s.allocated.Store(e.Allocated)
	s.inUse.Store(e.InUse)
}

// Space returns the figures without waiting for anybody.
func (s *Store) Space() Space {
	return Space{Allocated: s.space.allocated.Load(), InUse: s.space.inUse.Load(), Tail: s.space.tail.Load()}
}

// Defragment rewrites the engine's file without its free space and returns the
// figures before and after. Any goroutine; it blocks neither reads nor writes.
// When it returns an error nothing has changed.
func (s *Store) Defragment(ctx context.Context) (before, after engine.Stats, err error) {
	p := pacer{s: s, ctx: ctx, last: s.cfg.Clock.Now()}
	e, before, after, err := s.rewrite(p.rest)
	if err != nil {
		return before, after, err
	}
	if err := e.Discard(p.rest); err != nil {
		s.log.Warn("cannot give the space of the old file back in portions", "error", err)
	}
	return before, after, nil
}

// rewrite has the engine rewritten, and puts the new file under readers.
func (s *Store) rewrite(rest func() error) (e engine.Engine, before, after engine.Stats, err error) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	if err := s.flushLocked(); err != nil {
		return nil, before, after, err
	}
	s.mu.Lock()
	e, closed := s.mu.engine, s.mu.view == nil
	s.mu.Unlock()
	if closed {
		return nil, before, after, ErrClosed
	}
	before = e.Stats()
	s.defrag.active.Store(true)
	defer s.defrag.active.Store(false)
	if err := e.Rewrite(rest); err != nil {
		return nil, before, before, fmt.Errorf("mvcc: defragment: %w", err)
	}
	if err := s.adoptRewritten(e); err != nil {
		return nil, before, before, err
	}
	after = e.Stats()
	s.space.measure(after)
	return e, before, after, nil
}

// adoptRewritten puts the new file under readers. It holds what the old one did.
func (s *Store) adoptRewritten(e engine.Engine) error {
	view, err := e.View()
	if err != nil {
		err = fmt.Errorf("mvcc: defragment: %w", err)
		s.fail(err)
		return err
	}
	s.mu.Lock()
	v := s.mu.view
	s.mu.Unlock()
	next := v.after()
	next.View = view
	next.refs.Store(1)
	s.adoptView(next)
	return nil
}

// pacer lets the engine's rewrite rest between portions.
type pacer struct {
	s    *Store
	ctx  context.Context
	last time.Time // end of the last rest
}

// rest waits as long as the portion took, unless the tail is filling up, and
// says whether to go on.
func (p *pacer) rest() error {
	switch {
	case p.s.defrag.ending.Load():
		return ErrClosed
	case p.s.Space().Tail > rewriteTailFactor*p.s.cfg.TailBytes:
		return ErrDefragGaveWay
	}
	now := p.s.cfg.Clock.Now()
	rest := min(now.Sub(p.last), maxRest)
	if p.s.Space().Tail > rewriteTailFactor/2*p.s.cfg.TailBytes {
		rest = 0
	}
	if rest > 0 {
		timer := p.s.cfg.Clock.NewTimer(rest)
		defer timer.Stop()
		select {
		case <-timer.C():
		case <-p.ctx.Done():
		case <-p.s.failed:
			return p.s.failure
		}
	}
	p.last = p.s.cfg.Clock.Now()
	return p.ctx.Err()
}
