package resource

import (
	"bufio"
	"net/http"
	"sync"
	"time"

	"github.com/keelson-io/keelson/clock"
)

// stallTimeout ends a watch whose client takes nothing for that long.
const stallTimeout = time.Minute

// lineWriter writes a watch's lines. What is buffered goes out with flush.
//
// The guard runs while something is on its way out, and ends the stream if that takes
// too long. It is a timer of ours and no deadline of the connection: with HTTP/2 every
// change of a deadline is a message to the goroutine that serves the connection, and a
// deadline that passes while the watch is quiet would end it.
type lineWriter struct {
	buf   *bufio.Writer
	ctl   *http.ResponseController
	guard clock.Timer
	dirty bool // something is on its way; the guard runs

	mu struct {
		sync.Mutex
		closed bool // the request has been answered: its connection is no longer ours
	}
}

func (c *call) lines() *lineWriter {
	h := c.w.Header()
	h.Set("Content-Type", jsonType)
	h.Set("Cache-Control", "no-cache, private")
	c.w.WriteHeader(http.StatusOK)
	return newLineWriter(c.w, c.layer.clock)
}

// newLineWriter makes a writer whose headers are on their way. It must be closed.
func newLineWriter(w http.ResponseWriter, c clock.Clock) *lineWriter {
	l := &lineWriter{buf: bufio.NewWriterSize(w, 4<<10), ctl: http.NewResponseController(w), dirty: true}
	l.guard = c.AfterFunc(stallTimeout, l.stalled)
	return l
}

// stalled makes the write that is under way fail, and all that follow.
func (l *lineWriter) stalled() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.mu.closed {
		_ = l.ctl.SetWriteDeadline(time.Unix(1, 0)) // without deadlines nothing can end it
	}
}

// close must be called before the request's handler returns.
func (l *lineWriter) close() {
	l.guard.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.closed = true
}

func (l *lineWriter) write(line []byte) error {
	if !l.dirty || l.buf.Available() < len(line) { // what follows goes out, some of it now
		l.dirty = true
		l.guard.Reset(stallTimeout)
	}
	_, err := l.buf.Write(line)
	return err
}

// flush sends what was written.
func (l *lineWriter) flush() error {
	if !l.dirty {
		return nil
	}
	l.dirty = false
	err := l.buf.Flush()
	if err == nil {
		err = l.ctl.Flush()
	}
	l.guard.Stop()
	return err
}
