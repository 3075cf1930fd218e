package mvcc

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/keelson-io/keelson/api"
)

// Reasons for which a watch is refused. The texts travel to clients as
// cancel_reason and are etcd's.
var (
	ErrEmptyWatchRange  = errors.New("mvcc: watcher range is empty")
	ErrDuplicateWatchID = errors.New("mvcc: duplicate watch ID provided on the WatchStream")
	// ErrStreamClosed ends Next after Close.
	ErrStreamClosed = errors.New("mvcc: watch stream closed")
)

// NoWatch is the watch id of answers that belong to no watch: refusals, and the
// progress of a whole stream.
const NoWatch int64 = -1

// WatchRequest asks for the events of a key or a range.
type WatchRequest struct {
	ID       int64        // 0 lets the stream choose; every other value is taken as it is
	Key, End []byte       // as everywhere: no End is the one key, "\x00" all from Key on
	Start    api.Revision // first revision wanted; 0 is from now on; may be in the future
	PrevKV   bool
	NoPut    bool
	NoDelete bool
	Progress bool // wants a sign of life at every Tick without events
	Fragment bool // not interpreted here; repeated in each Delivery
}

// DeliveryKind tells what a Delivery is.
type DeliveryKind uint8

// The kinds of deliveries.
const (
	DeliverCreated   DeliveryKind = iota + 1 // Revision: the last one before the watch
	DeliverRefused                           // no watch came of a request; Reason says why
	DeliverCanceled                          // as the client asked
	DeliverCompacted                         // by Compact: history the watch needs is gone
	DeliverEvents                            // Batch
	DeliverProgress                          // all events <= Revision have been delivered
)

// Delivery is one answer of a stream, in the order in which it must be sent.
type Delivery struct {
	Kind     DeliveryKind
	ID       int64
	Revision api.Revision
	Compact  api.Revision
	Reason   string
	Batch    *Batch
	Fragment bool
}

// watcher is one watch of a stream.
type watcher struct {
	id       int64
	start    api.Revision // as requested
	progress bool
	fragment bool

	feed      *feed // guarded by hub.mu; nil once the watch has ended
	compacted bool  // guarded by hub.mu: ended by us, but the id is taken until the client cancels

	// floor is the first revision that it may still get. Written under hub.mu,
	// after the registration by the sender alone.
	floor api.Revision

	busy atomic.Bool // got events since the last Tick
}

// WatchStream is a client's set of watches and the queue of what it must be
// told. Next has one caller, the sender; the other methods may be called from
// anywhere.
type WatchStream struct {
	hub   *hub
	awake chan struct{} // holds a token when there may be something to do
	room  chan struct{} // holds a token when controls were taken

	// Guarded by hub.mu.
	watchers map[int64]*watcher
	synced   map[groupKey]*feed // armed or pending
	ready    []*feed            // the pending ones, first come first served
	lagging  []*feed
	controls []Delivery // answers to requests, in order
	asks     int        // progress requests for the whole stream
	askers   []*watcher // watches to tell their progress
	nextID   int64
	waiting  bool // the sender sleeps and must be woken
	closed   bool

	// Owned by the sender.
	out      []outgoing
	head     int // out[head:] is not delivered yet
	attempts int // steps of catching up since the last one that succeeded
}

// NewWatchStream returns an empty stream. It must be closed.
func (s *Store) NewWatchStream() *WatchStream { return s.hub.newStream() }

// AdoptWatchers moves the open watch streams of old, which an installed snapshot
// replaces, to s, together with the duty to publish to them. expose makes s the
// store that everybody sees: nobody learns of its revision before the watchers
// have it in front of them. Called by the apply goroutine, while nothing is
// sealed and not yet published, and before old is closed.
func (s *Store) AdoptWatchers(old *Store, expose func()) {
	s.hub = old.hub
	s.hub.reset(s, s.Revision(), expose)
}

func (h *hub) newStream() *WatchStream {
	s := &WatchStream{
		hub:      h,
		awake:    make(chan struct{}, 1),
		room:     make(chan struct{}, 1),
		watchers: make(map[int64]*watcher),
		synced:   make(map[groupKey]*feed),
	}
	h.mu.Lock()
	h.mu.stats.Streams++
	h.mu.Unlock()
	return s
}

// Watch registers a watch and queues the answer that says so. From the return
// on no event of it is missed. On an error nothing is queued.
func (s *WatchStream) Watch(r WatchRequest) (int64, error) {
	key := groupKey{span: newSpan(r.Key, r.End), noPut: r.NoPut, noDelete: r.NoDelete, prev: r.PrevKV}
	if key.empty() {
		return NoWatch, ErrEmptyWatchRange
	}
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.closed {
		return NoWatch, ErrEmptyWatchRange
	}
	id, err := s.chooseIDLocked(r.ID)
	if err != nil {
		return NoWatch, err
	}
	w := &watcher{id: id, start: r.Start, floor: r.Start, progress: r.Progress, fragment: r.Fragment}
	f := &feed{stream: s, key: key, watchers: []*watcher{w}}
	w.feed = f
	s.watchers[id] = w
	h.mu.stats.Watchers++
	if r.Start > 0 && r.Start <= h.mu.published {
		h.lagLocked(f, r.Start)
	} else {
		h.attachLocked(f)
	}
	s.controlLocked(Delivery{Kind: DeliverCreated, ID: id, Revision: h.mu.published})
	return id, nil
}

// chooseIDLocked follows etcd: 0 is the first free number from a counter that
// starts at 0, anything else is the client's choice.
func (s *WatchStream) chooseIDLocked(id int64) (int64, error) {
	if id != 0 {
		if s.watchers[id] != nil {
			return 0, ErrDuplicateWatchID
		}
		return id, nil
	}
	for s.watchers[s.nextID] != nil {
		s.nextID++
	}
	id = s.nextID
	s.nextID++
	return id, nil
}

// Cancel ends a watch and queues the answer; it reports whether the watch was
// there. A watch that compaction ended is there until it is cancelled. Events
// that the sender has taken already still come, before the answer: a progress
// notice among them may count on them.
func (s *WatchStream) Cancel(id int64) bool {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	w := s.watchers[id]
	if w == nil || s.closed {
		return false
	}
	h.endLocked(w)
	delete(s.watchers, id)
	s.controlLocked(Delivery{Kind: DeliverCanceled, ID: id, Revision: h.mu.published})
	return true
}

// Refuse queues the answer to a request that no watch came of.
func (s *WatchStream) Refuse(reason string) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.controlLocked(Delivery{Kind: DeliverRefused, ID: NoWatch, Revision: s.hub.mu.published, Reason: reason})
}

// RequestProgress asks for one DeliverProgress with id NoWatch. It comes when
// every watch of the stream has been told everything up to its revision, and
// never if one of them starts later than that, or if there is none.
func (s *WatchStream) RequestProgress() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.asks < maxControls {
		s.asks++
	}
	s.signal()
}

// Tick asks for the progress of each watch that wants it and that got no events
// since the last Tick. It reports whether the stream is still open.
func (s *WatchStream) Tick() bool {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.closed {
		return false
	}
	s.askers = s.askers[:0] // whoever was not told yet is asked for again
	for _, w := range s.watchers {
		if w.progress && !w.busy.Swap(false) {
			s.askers = append(s.askers, w)
		}
	}
	if len(s.askers) > 0 {
		slices.SortFunc(s.askers, func(a, b *watcher) int { return cmp.Compare(a.id, b.id) })
		s.signal()
	}
	return true
}

// Room waits until the stream may take another request: a client that does not
// read its answers must not make them pile up.
func (s *WatchStream) Room(ctx context.Context) error {
	for {
		s.hub.mu.Lock()
		full := len(s.controls) >= maxControls && !s.closed
		s.hub.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-s.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Revision is the last published one.
func (s *WatchStream) Revision() api.Revision {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.hub.mu.published
}

// Close ends all watches. A waiting Next returns ErrStreamClosed.
func (s *WatchStream) Close() {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.ready = nil // detaching looks through it
	for _, f := range s.synced {
		h.detachLocked(f)
	}
	for _, f := range s.lagging {
		h.mu.stats.Slow -= len(f.watchers)
	}
	for _, w := range s.watchers {
		if !w.compacted {
			h.mu.stats.Watchers--
		}
	}
	s.lagging, s.controls, s.askers, s.asks = nil, nil, nil, 0
	clear(s.watchers)
	h.mu.stats.Streams--
	s.signal()
}

func (s *WatchStream) controlLocked(d Delivery) {
	s.controls = append(s.controls, d)
	s.signal()
}

// signal leaves a token for the sender; one is enough for any number of causes.
func (s *WatchStream) signal() {
	select {
	case s.awake <- struct{}{}:
	default:
	}
}

// endLocked takes a watch out of its feed.
func (h *hub) endLocked(w *watcher) {
	f := w.feed
	if f == nil {
		return // compacted before
	}
	w.feed = nil
	h.mu.stats.Watchers--
	if f.state == feedLagging {
		h.mu.stats.Slow--
	}
	f.watchers = without(f.watchers, w)
	switch {
	case len(f.watchers) > 0:
	case f.state == feedLagging:
		f.stream.lagging = without(f.stream.lagging, f)
	default:
		h.detachLocked(f)
	}
}

// WatchStats returns figures of all watch streams.
func (s *Store) WatchStats() HubStats { return s.hub.statsNow() }
