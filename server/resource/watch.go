package resource

import (
	"errors"
	"net/http"
	"strconv"
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
}

// errWatchEnds ends a watch in order.
var errWatchEnds = errors.New("the watch ends")

// watch answers GET with watch=true. Once the headers are out, what goes wrong
// is told in the stream.
func (c *call) watch() error {
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

// run sends until the watch's time is over, the client leaves, or history is gone.
func (w *watcher) run(initial []*entry, o *listOptions, timeout time.Duration) error {
	clk, lost := w.call.layer.clock, w.call.layer.pulse.lost()
	deadline := clk.NewTimer(timeout)
	defer deadline.Stop()
	last := clk.NewTimer(max(timeout-lastBookmark, 0))
	defer last.Stop()
	every := clk.NewTicker(bookmarkEvery - time.Duration(w.call.layer.random64()%uint64(bookmarkEvery/10)))
	defer every.Stop()
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
	for {
		wake, err := w.advance()
		if err == nil {
			err = w.out.flush()
		}
		if err != nil {
			return err
		}
		select {
		case <-wake:
			continue
		case <-w.call.ctx.Done():
			return errWatchEnds
		case <-deadline.C():
			return errWatchEnds
		case <-lost:
			return errWatchEnds // another member knows what follows
		case <-last.C():
		case <-every.C():
		}
		if o.bookmarks {
			if err := w.bookmark(false); err != nil {
				return err
			}
		}
	}
}

// advance sends what has happened since at, and returns what to wait for.
func (w *watcher) advance() (<-chan struct{}, error) {
	for {
		applied := w.call.layer.feed.revision()
		changes, wake, ok := w.coll.after(w.at)
		if !ok {
			at, err := replay(w.call.ctx, w.call.layer.store, w.coll, w.at, w.show)
			if err != nil {
				return nil, err
			}
			w.at = max(w.at, at)
			continue
		}
		for _, ch := range changes {
			if err := w.show(ch); err != nil {
				return nil, err
			}
		}
		if len(changes) == 0 {
			if w.coll.isGone() {
				return nil, errWatchEnds
			}
			// Whatever the feed had applied before the look is behind us.
			w.at = max(w.at, applied)
			return wake, nil
		}
	}
}

func (w *watcher) show(ch *change) error {
	w.at = max(w.at, ch.rev)
	if !w.sel.covers(ch.key) {
		return nil
	}
	event, body := ch.seenBy(w.sel)
	if event == "" {
		return nil
	}
	return w.out.write(ch.frame(event, body, w.form))
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
