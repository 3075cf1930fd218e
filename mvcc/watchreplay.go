package mvcc

import (
	"errors"
	"fmt"
	"slices"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
)

// replay is one step in which a stream's lagging feeds read history together.
type replay struct {
	source       watchSource
	from, target api.Revision // revisions to read, at most
	through      api.Revision // revisions that were read to the end
	runs         []*run
	match        matcher[*run]
	hits         []*run
	seen, bytes  int
	limits       hubLimits
}

// run is what one feed gets of a step.
type run struct {
	feed     *feed
	key      groupKey
	next     api.Revision
	watchers []*watcher
	events   []*Event
	err      error        // a previous value that it needs cannot be read
	failed   api.Revision // of the event with that value
}

// maxAttempts is after how many steps of history a watcher that still finds
// the writer ahead by a few revisions reads them under the hub's lock.
const maxAttempts = 8

// catchUp reads a step of history for the lagging feeds. It is called with
// hub.mu held and releases it, before the reading unless that is very short.
func (s *WatchStream) catchUp() error {
	h := s.hub
	s.cancelCompactedLocked(h.mu.source.CompactRevision())
	if len(s.lagging) == 0 {
		h.mu.Unlock()
		return nil
	}
	r := s.newReplayLocked()
	s.attempts++
	if s.attempts > maxAttempts && r.target-r.from < maxReplayLocked {
		defer h.mu.Unlock()
		return s.finishLocked(r, r.read())
	}
	h.mu.Unlock()
	err := r.read()
	h.mu.Lock()
	defer h.mu.Unlock()
	return s.finishLocked(r, err)
}

func (s *WatchStream) newReplayLocked() *replay {
	r := &replay{source: s.hub.mu.source, target: s.hub.mu.published, limits: s.hub.limits}
	r.from = r.target
	for _, f := range s.lagging {
		run := &run{feed: f, key: f.key, next: r.target + 1, watchers: f.watchers}
		for _, w := range f.watchers {
			run.next = min(run.next, max(f.next, w.floor))
		}
		r.runs = append(r.runs, run)
		r.from = min(r.from, run.next)
		if planted.EventTwice && r.from > max(2, s.hub.mu.source.CompactRevision()) {
			r.from--
		}
	}
	return r
}

// read takes events from history up to the target or a bound, whole revisions.
func (r *replay) read() error {
	if len(r.runs) > 1 {
		for _, run := range r.runs {
			r.match.add(run.key.span, run)
		}
	}
	last := r.from - 1
	full := false
	err := r.source.History(r.from, r.target, func(e *Event) bool {
		if e.Rev != last && (r.bytes >= r.limits.batchBytes || r.seen >= r.limits.replayEvents) {
			full = true
			r.through = last
			return false
		}
		if e.Rev < last || e.Rev < r.from || e.Rev > r.target {
			panic(fmt.Sprintf("watch hub: history has revision %d after %d in [%d, %d]", e.Rev, last, r.from, r.target))
		}
		last = e.Rev
		r.take(e)
		return true
	})
	if err == nil && !full {
		r.through = r.target
	}
	return err
}

func (r *replay) take(e *Event) {
	r.seen++
	r.hits = r.hits[:0]
	switch {
	case len(r.runs) > 1:
		r.hits = r.match.match(e.Key, r.hits)
	case r.runs[0].key.contains(e.Key):
		r.hits = append(r.hits, r.runs[0])
	}
	for _, run := range r.hits {
		if e.Rev < run.next && !planted.EventTwice || run.key.skips(e) || run.err != nil {
			continue
		}
		if run.key.prev {
			if run.err = e.FixPrev(); run.err != nil {
				run.failed = e.Rev
				continue
			}
		}
		run.events = append(run.events, e)
		r.bytes += e.WireSize(run.key.prev)
	}
}

// finishLocked queues what a step found and moves its feeds on.
func (s *WatchStream) finishLocked(r *replay, err error) error {
	if s.closed {
		return ErrStreamClosed
	}
	compact := s.hub.mu.source.CompactRevision()
	if r.source != s.hub.mu.source {
		return nil // a snapshot was installed: begin again with the new store
	}
	if err != nil {
		if !errors.Is(err, ErrCompacted) || compact <= r.from {
			return fmt.Errorf("watch: reading history of revisions %d to %d: %w", r.from, r.target, err)
		}
		return nil // compacted meanwhile: the next step cancels whom it concerns
	}
	for _, run := range r.runs {
		switch {
		case run.err == nil:
			run.queue(s, r)
		case errors.Is(run.err, ErrCompacted):
			// The revision is still there, its previous values are not. Who
			// asks again from the revision we name must not come back here.
			s.overtakenLocked(run.feed, run.failed+1, max(compact, run.failed+1))
		default:
			return fmt.Errorf("watch: reading a previous value: %w", run.err)
		}
	}
	return nil
}

func (run *run) queue(s *WatchStream, r *replay) {
	if len(run.events) > 0 {
		batch := newBatch(run.events, run.key.prev)
		if r.through == r.target {
			batch.Revision = r.target
		}
		s.out = append(s.out, outgoing{batch: batch, watchers: run.watchers})
	}
	run.feed.next = max(run.feed.next, r.through+1)
}

// cancelCompactedLocked ends the lagging watches that need history from before
// the compact revision.
func (s *WatchStream) cancelCompactedLocked(compact api.Revision) {
	for _, f := range slices.Clone(s.lagging) {
		if planted.CompactedSilence {
			f.next = max(f.next, compact)
		} else if f.next < compact {
			s.overtakenLocked(f, compact, compact)
		}
	}
}

// overtakenLocked moves a lagging feed on to revision next and ends its watches
// that need what is before, telling them to start from compact. Those that
// start later only skip it. Events that were taken before still go out.
func (s *WatchStream) overtakenLocked(f *feed, next, compact api.Revision) {
	f.next = next
	for _, w := range slices.Clone(f.watchers) {
		if w.floor >= next {
			continue
		}
		s.hub.endLocked(w)
		w.compacted = true
		s.out = append(s.out, outgoing{delivery: Delivery{Kind: DeliverCompacted, ID: w.id, Compact: compact}})
	}
}
