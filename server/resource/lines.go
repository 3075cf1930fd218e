package resource

import (
	"net/http"
	"sync"
	"time"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/server/lane"
)

// lineWriter writes a watch's lines. They go out with flush: one as it is, several
// gathered.
//
// The guard ends the stream if a write takes too long. It is a timer of ours and no
// deadline of the connection: with HTTP/2 every change of a deadline is a message to the
// goroutine that serves the connection, and a deadline that passes while the watch
// is quiet would end it. Once started it is left to run, for most writes end long before it
// does: it then looks whether the one that is under way is still that which it began with.
type lineWriter struct {
	w     http.ResponseWriter
	ctl   *http.ResponseController
	guard clock.Timer
	past  *lane.Stream // the way past net/http; nil: there is none
	given int64        // bytes that net/http was given
	last  []byte       // a line that is not yet gathered; shared, not ours
	buf   []byte       // lines before it
	dirty bool         // flush has something to do

	mu struct {
		sync.Mutex
		closed  bool   // the request has been answered: its connection is no longer ours
		turn    uint64 // counts writes
		writing bool   // one is under way
		guarded bool   // the guard runs
		began   uint64 // and began with this turn
	}
}

func (c *call) lines() *lineWriter {
	h := c.w.Header()
	h.Set("Content-Type", jsonType)
	h.Set("Cache-Control", "no-cache, private")
	var past *lane.Stream
	if c.r.Header.Get("Audit-Id") == "" { // ours: nobody could guess it
		past = lane.Claim(c.ctx, h.Get("Audit-Id"))
	}
	c.w.WriteHeader(http.StatusOK)
	l := newLineWriter(c.w, c.layer.clock)
	l.past = past
	return l
}

// newLineWriter makes a writer whose headers are on their way. It must be closed.
func newLineWriter(w http.ResponseWriter, c clock.Clock) *lineWriter {
	l := &lineWriter{w: w, ctl: http.NewResponseController(w), dirty: true}
	l.guard = c.AfterFunc(StallTimeout, l.look)
	l.mu.guarded = true
	return l
}

// look makes the write that is under way fail, and all that follow, if it is the one
// that the guard began with.
func (l *lineWriter) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.mu.closed:
	case !l.mu.writing:
		l.mu.guarded = false
	case l.mu.turn != l.mu.began:
		l.mu.began = l.mu.turn
		l.guard.Reset(StallTimeout)
	default:
		_ = l.ctl.SetWriteDeadline(time.Unix(1, 0)) // in HTTP/2 a reset of the stream, which its lane sees pass
	}
}

// close must be called before the request's handler returns.
func (l *lineWriter) close() {
	l.guard.Stop()
	l.past.End()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.closed = true
}

// write takes a line, which nobody may change any more.
func (l *lineWriter) write(line []byte) error {
	l.dirty = true
	if l.last == nil {
		l.last = line
		return nil
	}
	l.buf = append(l.buf, l.last...)
	l.last = line
	if len(l.buf) < flushBytes {
		return nil
	}
	out := l.buf
	l.buf = nil
	return l.send(out, false)
}

// send hands lines over, which nobody may change any more: past net/http if that has let
// all go that it was given.
func (l *lineWriter) send(p []byte, flush bool) (err error) {
	l.begin()
	defer l.end()
	if l.past.Ready(l.given) {
		return l.past.Write(p)
	}
	if len(p) > 0 {
		n, failed := l.w.Write(p)
		l.given, err = l.given+int64(n), failed
	}
	if err == nil && flush {
		err = l.ctl.Flush()
	}
	return err
}

// try sends a line past net/http if it can be sent at once.
func (l *lineWriter) try(line []byte) bool { return !l.dirty && l.past.Try(line) }

// flush sends what was written.
func (l *lineWriter) flush() error {
	if !l.dirty {
		return nil
	}
	out := l.last
	if len(l.buf) > 0 {
		out = append(l.buf, out...)
	}
	l.dirty, l.last, l.buf = false, nil, nil
	return l.send(out, true)
}

func (l *lineWriter) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.turn++
	l.mu.writing = true
	if !l.mu.guarded {
		l.mu.guarded, l.mu.began = true, l.mu.turn
		l.guard.Reset(StallTimeout)
	}
}

func (l *lineWriter) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.writing = false
}
