package resource

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/server/resource/object"
)

// watcher is one watch: a position in a collection's changes, and where what it
// sees of them is written. Owned by the request's goroutine.
type watcher struct {
	call *call
	sel  *Selection
	coll *collection
	form *form
	at   int64 // every change up to this revision has been sent
	out  *lineWriter

	crowd   *crowd    // nil: what it sends goes through net/http
	bell    *bell     // rung when there may be something to do
	losses  uint64    // of the pulse, when the watch began
	changes []*change // the last that were sent: room for the next
	alarm   atomic.Bool
}

// errWatchEnds ends a watch in order.
var errWatchEnds = errors.New("the watch ends")

// watch answers GET with watch=true. Once the headers are out, what goes wrong
// is told in the stream.
func (c *call) watch() error {
	if c.form.yaml {
		return notAcceptable("only the following media types are accepted: " + jsonType + ";stream=watch") // YAML does not end
	}
	o, err := listOptionsOf(c.query)
	if err != nil {
		return err
	}
	if c.Name != "" {
		o.fields = "metadata.name=" + c.Name
	}
	sel, err := selectionOf(c.kind, c.Namespace, o.labels, o.fields)
	if err != nil {
		return err
	}
	if err := c.layer.connected(c.ctx); err != nil {
		return err
	}
	coll, err := c.layer.feed.collection(c.ctx, c.layer.storage(c.kind))
	if err != nil {
		return err
	}
	w := &watcher{call: c, sel: sel, coll: coll, form: c.form}
	synthetic := c.query.Get("sendInitialEvents") == "" && o.rev == 0
	var initial snapshot
	if synthetic || o.initial {
		if initial, err = c.layer.snapshot(c.ctx, c.kind, o.version); err != nil {
			return err
		}
		w.at = initial.rev
	} else if w.at = o.rev; o.rev == 0 {
		if w.at, err = c.layer.freshen(c.ctx, o.version); err != nil {
			return err
		}
	}
	timeout := o.timeout
	if timeout == 0 {
		timeout = minWatchTimeout + time.Duration(c.layer.random64()%uint64(minWatchTimeout))
	}
	w.out = c.lines()
	defer w.out.close()
	end := w.run(initial.within(sel), o, timeout)
	w.tell(end)
	return nil
}

// maxKeptChanges is how much room for changes a watch keeps for the next time.
const maxKeptChanges = 64

// run sends until the watch's time is over, the client leaves, or history is gone.
func (w *watcher) run(initial []*entry, o *listOptions, timeout time.Duration) error {
	w.bell, w.losses = w.coll.listen(), w.call.layer.pulse.losses.Load()
	defer w.coll.leave(w.bell)
	if past := w.out.past; past != nil {
		var leave func()
		w.crowd, leave = w.call.layer.crowds.enter(crowdKey{past.Conn(), w.coll})
		defer leave()
	}
	defer context.AfterFunc(w.call.ctx, w.bell.ring)()
	for _, e := range initial {
		if w.sel.matches(e) {
			if err := w.out.write(appendFrame(nil, eventAdded, w.form.one(e.json))); err != nil {
				return err
			}
		}
	}
	if o.initial && o.bookmarks {
		if err := w.bookmark(true); err != nil {
			return err
		}
	}
	t := w.timetable(timeout)
	alarm := w.call.layer.clock.AfterFunc(t.next(), func() { w.alarm.Store(true); w.bell.ring() })
	defer alarm.Stop()
	for {
		if err := w.advance(); err != nil {
			return err
		}
		if err := w.out.flush(); err != nil {
			return err
		}
		if w.alarm.Swap(false) {
			now := w.call.layer.clock.Now()
			if !now.Before(t.end) {
				return errWatchEnds
			}
			if t.passed(now) && o.bookmarks {
				if err := w.bookmark(false); err != nil {
					return err
				}
			}
			alarm.Reset(t.next())
		}
		w.wait()
	}
}

// over reports whether the client has left, or another member knows what follows.
func (w *watcher) over() bool {
	return w.call.ctx.Err() != nil || w.call.layer.pulse.losses.Load() != w.losses
}

// advance sends what has happened since at.
func (w *watcher) advance() error {
	for {
		if w.over() {
			return errWatchEnds
		}
		applied := w.call.layer.feed.revision()
		changes, ended, ok := w.coll.after(w.changes[:0], w.at)
		w.changes = changes
		if !ok {
			at, err := replay(w.call.ctx, w.call.layer.store, w.coll, w.at, w.show)
			if err != nil {
				return err
			}
			w.at = max(w.at, at)
			continue
		}
		for _, ch := range changes {
			if err := w.show(ch); err != nil {
				return err
			}
		}
		if clear(changes); cap(changes) > maxKeptChanges {
			w.changes = nil
		}
		if ended {
			return errWatchEnds
		}
		// Whatever the feed had applied before the look is behind us.
		w.at = max(w.at, applied)
		return nil
	}
}

func (w *watcher) show(ch *change) error {
	w.at = max(w.at, ch.rev)
	if line := w.line(ch); line != nil {
		return w.out.write(line)
	}
	return nil
}

// line is what the watch sees of a change; nil: nothing.
func (w *watcher) line(ch *change) []byte {
	if !w.sel.covers(ch.key) {
		return nil
	}
	event, body := ch.seenBy(w.sel)
	if event == "" {
		return nil
	}
	return ch.frame(event, body, w.form)
}

// bookmark tells how far the watch is; initialEnd marks the end of the objects
// that were there at its start.
func (w *watcher) bookmark(initialEnd bool) error {
	meta := object.Object{"resourceVersion": strconv.FormatInt(w.at, 10)}
	if initialEnd {
		meta["annotations"] = object.Object{"k8s.io/initial-events-end": "true"}
	}
	var o object.Object
	switch w.form.as {
	case "Table":
		o = object.Object{"kind": "Table", "apiVersion": metaGroup + "/" + w.form.version, "metadata": meta, "columnDefinitions": []any{}, "rows": []any{}}
	case "":
		o = object.Object{"kind": w.call.kind.Name, "apiVersion": w.call.kind.APIVersion(), "metadata": meta}
	default:
		o = object.Object{"kind": w.form.as, "apiVersion": metaGroup + "/" + w.form.version, "metadata": meta}
	}
	if err := w.out.write(appendFrame(nil, eventBookmark, object.Encode(o))); err != nil {
		return err
	}
	return w.out.flush()
}

// tell ends the stream, with an event if the client must know why.
func (w *watcher) tell(end error) {
	var f *Failure
	switch {
	case errors.Is(end, mvcc.ErrCompacted):
		f = expired("too old resource version: " + strconv.FormatInt(w.at, 10))
	case errors.As(end, &f):
	case errors.Is(end, errHistoryGone):
		f = &Failure{Code: http.StatusInternalServerError, Reason: "InternalError", Message: end.Error()}
	default:
		_ = w.out.flush() // the client has left, or all is said
		return
	}
	// An error means that nobody is left to be told.
	_ = w.out.write(appendFrame(nil, eventError, object.Encode(f.status())))
	_ = w.out.flush()
}
