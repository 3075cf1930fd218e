package client

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
)

// EventType says what an Event tells.
type EventType int

// Types of events.
const (
	EventPut      EventType = iota // the key was created or changed
	EventDelete                    // the key was deleted
	EventBookmark                  // nothing happened up to Revision but what was told before
)

// String names the type.
func (t EventType) String() string { return [...]string{"put", "delete", "bookmark"}[t] }

// Event is one step of a watch.
type Event struct {
	Type EventType
	// KV is the key's state after the change. Of a deleted key it has Key, and as
	// Modified the revision of the deletion.
	KV KV
	// Previous is the key's state before the change, if WithPrevious asked for it
	// and there was one.
	Previous *KV
	// Revision is the change's. A watch After it goes on where this event ends,
	// unless More.
	Revision Revision
	// More: the next event is of the same revision, which is not complete before.
	More bool
}

// Watch tells every change of the range, in the order in which they happened,
// each once, until ctx ends. It survives the death of members, changes of the
// leader and broken connections without a gap and without repeating itself.
//
// Without After it begins with the first change after the loop has begun; with
// Bookmarks its first event says after which revision that is. The changes of
// one transaction follow each other directly.
//
// The last pair has the error that ended the watch: the context's, ErrClosed, a
// refusal such as api.ErrPermissionDenied, or a *CompactedError when the next
// change to be told is no longer kept. Then the keys must be read anew.
//
// A reader that is slower than the changes come loses nothing: the watch gives
// up its place in the stream, and reads what it missed from history. Thousands
// of watches share a few streams.
//
//	for ev, err := range c.Watch(ctx, client.Prefix("/jobs/"), client.After(rev)) {
//		if err != nil {
//			return err
//		}
//		...
//	}
func (c *Client) Watch(ctx context.Context, r Range, opts ...WatchOption) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		w := c.newWatch(r, opts)
		if w.until != nil {
			yield = w.upTo(*w.until, yield)
			defer w.poll.Stop()
		}
		if err := c.hub.add(c.core, w); err != nil {
			yield(Event{}, err)
			return
		}
		defer w.stream.remove(w)
		for {
			batches, err := w.take(ctx)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, b := range batches {
				for _, ev := range b.told(c) {
					if !yield(ev, nil) {
						return
					}
				}
			}
		}
	}
}

// upTo makes yield end the watch when all up to rev was told. Bookmarks say that
// it was, and are asked for.
func (w *watch) upTo(rev Revision, yield func(Event, error) bool) func(Event, error) bool {
	w.alone, w.poll = true, time.NewTicker(progressPeriod)
	wanted := w.bookmarks
	w.bookmarks = true
	return func(ev Event, err error) bool {
		if err == nil && ev.Revision > rev {
			return false
		}
		mark := err == nil && ev.Type == EventBookmark
		if (wanted || !mark) && !yield(ev, err) {
			return false
		}
		return !mark || ev.Revision < rev
	}
}

// WatchOption changes what a watch tells.
type WatchOption func(*watch)

// After begins with the first change after a revision: the one that a read
// returned, or that of the last event of an earlier watch.
func After(r Revision) WatchOption { return func(w *watch) { w.next = r + 1 } }

// WithPrevious adds to each event what was there before.
func WithPrevious() WatchOption { return func(w *watch) { w.create.PrevKv = true } }

// Bookmarks adds events without a change, now and then, that say how far the
// watch is: progress for those who keep a revision to come back to.
func Bookmarks() WatchOption { return func(w *watch) { w.bookmarks = true } }

// Until ends the watch, without an error, when all changes up to a revision were
// told: with After, it reads a part of history.
func Until(r Revision) WatchOption { return func(w *watch) { w.until = &r } }

// WithoutPuts leaves out puts.
func WithoutPuts() WatchOption { return without(pb.WatchCreateRequest_NOPUT) }

// WithoutDeletes leaves out deletions.
func WithoutDeletes() WatchOption { return without(pb.WatchCreateRequest_NODELETE) }

func without(f pb.WatchCreateRequest_FilterType) WatchOption {
	return func(w *watch) { w.create.Filters = append(w.create.Filters, f) }
}

// Bounds of what waits for one watch's reader. A single larger batch is taken
// when nothing else waits.
const (
	maxQueuedEvents = 1000
	maxQueuedBytes  = 2 << 20
)

// watch is one Watch: between the stream, which fills its queue, and its reader.
//
// next is the first revision that was not queued: everything before it was, and
// nothing from it on. It survives connections; the events of a revision are
// queued together, so it is exact.
type watch struct {
	create    *pb.WatchCreateRequest // but for id and start
	bookmarks bool
	alone     bool // wants a stream of its own, to ask for progress
	until     *Revision
	poll      *time.Ticker // when to ask for progress; nil: never
	stream    *watchStream
	wake      chan struct{}

	// Guarded by stream.mu.
	id     int64
	next   Revision        // 0: from now on
	held   []*mvccpb.Event // of a revision of which more fragments may come
	paused bool            // not asked for; the reader must catch up first

	mu struct {
		sync.Mutex
		queue  []batch
		events int
		bytes  int
		err    error // what comes after the queue
	}
}

// batch is what is told at once: events of whole revisions, or a bookmark.
type batch struct {
	events   []*mvccpb.Event
	bookmark Revision
}

func (b batch) told(c *Client) []Event {
	if len(b.events) == 0 {
		return []Event{{Type: EventBookmark, Revision: b.bookmark}}
	}
	out := make([]Event, len(b.events))
	for i, m := range b.events {
		ev := Event{KV: c.kv(m.Kv), Revision: Revision(m.Kv.ModRevision)}
		if m.Type == mvccpb.Event_DELETE {
			ev.Type = EventDelete
		}
		if m.PrevKv != nil {
			prev := c.kv(m.PrevKv)
			ev.Previous = &prev
		}
		ev.More = i+1 < len(b.events) && b.events[i+1].Kv.ModRevision == m.Kv.ModRevision
		out[i] = ev
	}
	return out
}

func (c *Client) newWatch(r Range, opts []WatchOption) *watch {
	w := &watch{wake: make(chan struct{}, 1)}
	// Progress keeps next near the present, so that a quiet watch is not
	// overtaken by compaction while its connection is away.
	w.create = &pb.WatchCreateRequest{ProgressNotify: true, Fragment: true}
	w.create.Key, w.create.RangeEnd = c.wire(r)
	for _, o := range opts {
		o(w)
	}
	return w
}

// take returns all that waits, and waits for it.
func (w *watch) take(ctx context.Context) ([]batch, error) {
	var poll <-chan time.Time
	if w.poll != nil {
		poll = w.poll.C
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, &Error{Op: pb.Watch_Watch_FullMethodName, Err: err}
		}
		w.mu.Lock()
		queue, err := w.mu.queue, w.mu.err
		w.mu.queue, w.mu.events, w.mu.bytes = nil, 0, 0
		w.mu.Unlock()
		if len(queue) > 0 {
			return queue, nil
		}
		if err != nil {
			return nil, err
		}
		w.stream.resume(w)
		select {
		case <-w.wake:
		case <-poll:
			w.stream.progress()
		case <-ctx.Done():
		}
	}
}

// put queues a batch, and reports whether there was room.
func (w *watch) put(b batch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	size := 0
	for _, ev := range b.events {
		size += proto.Size(ev)
	}
	if len(w.mu.queue) > 0 {
		if w.mu.events+len(b.events) > maxQueuedEvents || w.mu.bytes+size > maxQueuedBytes {
			return false
		}
		if last := &w.mu.queue[len(w.mu.queue)-1]; len(b.events) == 0 && len(last.events) == 0 {
			last.bookmark = b.bookmark // the newer one says it all
			return true
		}
	}
	w.mu.queue = append(w.mu.queue, b)
	w.mu.events, w.mu.bytes = w.mu.events+len(b.events), w.mu.bytes+size
	w.signal()
	return true
}

// fail ends the watch after what is queued.
func (w *watch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.err == nil {
		w.mu.err = err
	}
	w.signal()
}

func (w *watch) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// arrived queues the events that are complete and reports whether there was
// room. The caller holds stream.mu.
func (w *watch) arrived(events []*mvccpb.Event, more bool) bool {
	if first := slices.IndexFunc(events, func(ev *mvccpb.Event) bool { return Revision(ev.Kv.ModRevision) >= w.next }); first >= 0 {
		w.held = append(w.held, events[first:]...)
	}
	ready := w.held
	if len(ready) == 0 {
		return true
	}
	last := ready[len(ready)-1].Kv.ModRevision
	if w.held = nil; more { // the last revision may go on in the next fragment
		cut := slices.IndexFunc(ready, func(ev *mvccpb.Event) bool { return ev.Kv.ModRevision == last })
		ready, w.held = ready[:cut:cut], slices.Clone(ready[cut:])
		if cut == 0 {
			return true
		}
		last = ready[cut-1].Kv.ModRevision
	}
	if !w.put(batch{events: ready}) {
		w.held = nil
		return false
	}
	w.next = Revision(last) + 1
	return true
}

// reached notes that nothing is missing up to rev. The caller holds stream.mu.
func (w *watch) reached(rev Revision) {
	if rev >= w.next {
		w.next = rev + 1
	}
	if w.bookmarks {
		w.put(batch{bookmark: w.next - 1})
	}
}

// canceled is the error for a watch that the server ended.
func canceled(at string, r *pb.WatchResponse) error {
	if r.CompactRevision != 0 {
		return &CompactedError{Revision: Revision(r.CompactRevision)}
	}
	// The reason is a text; refused permissions come as a printed status.
	text := r.CancelReason
	if _, desc, found := strings.Cut(text, "desc = "); found {
		text = desc
	}
	var err error = api.ErrWatchCanceled
	if known := api.FindError(text); known != nil {
		err = known
	} else if text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return &Error{Op: pb.Watch_Watch_FullMethodName, Endpoint: at, Err: err}
}
