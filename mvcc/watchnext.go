package mvcc

import (
	"context"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
)

// maxRound bounds the batches that are taken at once, and so what a sender
// holds on to while the client does not read.
const maxRound = 64

// outgoing is a delivery, or a batch for several watchers of the stream.
type outgoing struct {
	delivery Delivery // when watchers is nil
	batch    *Batch
	watchers []*watcher
}

// Next returns what the client must be told next, waiting for it if need be.
// It fails when ctx ends, when the stream is closed, or when history cannot be
// read; the stream is of no use then.
func (s *WatchStream) Next(ctx context.Context) (Delivery, error) {
	for {
		if d, ok := s.Taken(); ok {
			return d, nil
		}
		if err := ctx.Err(); err != nil {
			return Delivery{}, err
		}
		wait, err := s.refill()
		if err != nil {
			return Delivery{}, err
		}
		if !wait {
			continue
		}
		select {
		case <-s.awake:
		case <-ctx.Done():
			return Delivery{}, ctx.Err()
		}
	}
}

// Poll is Next without the wait: ok is false when there is nothing to tell yet.
func (s *WatchStream) Poll() (d Delivery, ok bool, err error) {
	for {
		if d, ok := s.Taken(); ok {
			return d, true, nil
		}
		if wait, err := s.refill(); wait || err != nil {
			return Delivery{}, false, err
		}
	}
}

// Taken returns what must be told next of what Next or Poll have found with the last one. It
// takes no lock and reads no history.
func (s *WatchStream) Taken() (Delivery, bool) {
	for s.head < len(s.out) {
		o := &s.out[s.head]
		if o.batch == nil {
			s.head++
			return o.delivery, true
		}
		for len(o.watchers) > 0 {
			w := o.watchers[0]
			o.watchers = o.watchers[1:]
			floor := w.floor
			if planted.EventTwice {
				floor--
			}
			if batch := o.batch.from(floor); batch != nil {
				if w.progress {
					w.busy.Store(true)
				}
				return Delivery{Kind: DeliverEvents, ID: w.id, Revision: batch.Revision, Batch: batch, Fragment: w.fragment}, true
			}
		}
		s.head++
	}
	clear(s.out)
	s.out, s.head = s.out[:0], 0
	return Delivery{}, false
}

// refill takes what there is: answers to requests, batches of pending feeds, a
// step of history for lagging ones, and progress when nothing else is left.
// wait means that there was nothing.
func (s *WatchStream) refill() (wait bool, err error) {
	h := s.hub
	h.mu.Lock()
	if s.closed {
		h.mu.Unlock()
		return false, ErrStreamClosed
	}
	s.takeControlsLocked()
	if planted.ProgressEarly {
		s.takeProgressLocked()
	}
	s.takeReadyLocked()
	s.rejoinLocked()
	if len(s.lagging) > 0 {
		return false, s.catchUp() // unlocks
	}
	if len(s.ready) == 0 {
		s.takeProgressLocked()
	}
	s.waiting = len(s.out) == 0
	wait = s.waiting
	h.mu.Unlock()
	return wait, nil
}

func (s *WatchStream) takeControlsLocked() {
	if len(s.controls) == 0 {
		return
	}
	for _, d := range s.controls {
		s.out = append(s.out, outgoing{delivery: d})
	}
	s.controls = s.controls[:0]
	select {
	case s.room <- struct{}{}:
	default:
	}
}

// queueLocked puts a pending feed in line.
func (s *WatchStream) queueLocked(f *feed) {
	f.queued = true
	s.ready = append(s.ready, f)
}

// takeReadyLocked takes a batch of each pending feed, within bounds.
func (s *WatchStream) takeReadyLocked() {
	var more []*feed
	n, bytes := 0, 0
	for ; n < len(s.ready) && n < maxRound && bytes < s.hub.limits.batchBytes; n++ {
		f := s.ready[n]
		f.queued = false
		batch := s.hub.takeLocked(f)
		if batch == nil {
			s.hub.fallBehindLocked(f, f.next)
			continue
		}
		bytes += batch.approxSize()
		s.out = append(s.out, outgoing{batch: batch, watchers: f.watchers})
		if f.state == feedPending {
			more = append(more, f)
		}
	}
	left := copy(s.ready, s.ready[n:])
	clear(s.ready[left:])
	s.ready = s.ready[:left]
	for _, f := range more {
		s.queueLocked(f)
	}
}

// rejoinLocked moves lagging feeds that have everything published into their
// groups.
func (s *WatchStream) rejoinLocked() {
	left := s.lagging[:0]
	for _, f := range s.lagging {
		if f.next <= s.hub.mu.published {
			left = append(left, f)
			continue
		}
		s.hub.mu.stats.Slow -= len(f.watchers)
		s.hub.attachLocked(f)
		s.attempts = 0
	}
	clear(s.lagging[len(left):])
	s.lagging = left
}

// takeProgressLocked answers requests for progress. All feeds are armed, so the
// client knows all events <= published once it has got what is in out.
func (s *WatchStream) takeProgressLocked() {
	at := s.hub.mu.published
	for _, w := range s.askers {
		if w.feed != nil && w.start <= at {
			s.out = append(s.out, outgoing{delivery: Delivery{Kind: DeliverProgress, ID: w.id, Revision: at}})
		}
	}
	clear(s.askers)
	s.askers = s.askers[:0]
	if s.asks > 0 && s.knowsAllLocked(at) {
		for range s.asks {
			s.out = append(s.out, outgoing{delivery: Delivery{Kind: DeliverProgress, ID: NoWatch, Revision: at}})
		}
	}
	s.asks = 0
}

// knowsAllLocked reports whether the stream has watches and none of them waits
// for a revision that is still to come.
func (s *WatchStream) knowsAllLocked(at api.Revision) bool {
	any := false
	for _, w := range s.watchers {
		if w.start > at {
			return false
		}
		any = any || w.feed != nil
	}
	return any
}
