package server

import (
	"net"
	"runtime"
	"sync"
	"time"
)

// A write to TLS becomes a system call for each record, of 16 KiB at most, and a full
// frame of HTTP/2 is nine bytes longer than that: its last bytes travel in a record, a
// call and often a packet of their own. A cork below TLS gathers the records of
// a write that takes more than one.
//
// net/http's HTTP/2 server writes frame by frame, whatever waits behind it: the
// frames of a long list, and of an event that many watches of a connection
// are told of. A cork that lingers keeps what it gathered until corkBytes are
// together, or the scheduler has come round without another write.
const (
	recordBytes = 16 << 10
	corkBytes   = 4 * recordBytes
	// corkGap: a write so long after the last one stands alone, and is not kept back.
	corkGap = time.Millisecond
)

// corkBuffers are shared by all connections, each for the time of a write or of
// writes that follow each other.
var corkBuffers = sync.Pool{New: func() any { b := make([]byte, 0, corkBytes+recordBytes/2); return &b }}

// cork lies between TLS and the socket.
type cork struct {
	net.Conn
	lingers bool
	one     sync.Mutex // from hold to release

	mu struct {
		sync.Mutex
		holding bool      // from hold to release
		held    *[]byte   // nil: nothing is held back
		settles bool      // settle runs
		taken   uint64    // counts bytes
		last    time.Time // when somebody wrote
		closing bool      // nothing is kept back any more
		err     error     // of a write that TLS took for done: the records are torn for good
	}
}

// Write implements net.Conn.
func (c *cork) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err != nil {
		return 0, c.mu.err
	}
	if c.mu.held == nil {
		return c.Conn.Write(p)
	}
	if len(*c.mu.held)+len(p) > cap(*c.mu.held) {
		if c.flushLocked(); c.mu.err != nil {
			return 0, c.mu.err
		}
	}
	*c.mu.held = append(*c.mu.held, p...)
	c.mu.taken += uint64(len(p))
	return len(p), nil
}

func (c *cork) flushLocked() {
	if len(*c.mu.held) > 0 {
		_, c.mu.err = c.Conn.Write(*c.mu.held)
		*c.mu.held = (*c.mu.held)[:0]
	}
}

// letGoLocked sends what was gathered, and gathers no more.
func (c *cork) letGoLocked() {
	if c.mu.held != nil {
		c.flushLocked()
		corkBuffers.Put(c.mu.held)
		c.mu.held = nil
	}
}

// alone reports whether a write of n bytes needs no cork.
func (c *cork) alone(n int, now time.Time) bool {
	if n > recordBytes || !c.lingers {
		return n <= recordBytes
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.mu.last
	c.mu.last = now
	return c.mu.held == nil && now.Sub(last) > corkGap
}

// hold begins to gather what is written, until release.
func (c *cork) hold() {
	c.one.Lock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.held == nil {
		c.mu.held = corkBuffers.Get().(*[]byte)
	}
	c.mu.holding = true
}

// release sends what was gathered, at once or when it has settled.
func (c *cork) release(atOnce bool) error {
	defer c.one.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.holding = false
	switch {
	case atOnce || !c.lingers || c.mu.closing:
		c.letGoLocked()
	case !c.mu.settles && c.mu.err == nil:
		c.mu.settles = true
		go c.settle()
	}
	return c.mu.err
}

// settle sends what was gathered once others have had their turn and nobody has
// written meanwhile. A failure closes the socket: who wrote last was told that all is well.
func (c *cork) settle() {
	for seen := uint64(0); ; {
		runtime.Gosched()
		c.mu.Lock()
		if c.mu.taken != seen {
			seen = c.mu.taken
			c.mu.Unlock()
			continue
		}
		if c.mu.settles = false; c.mu.holding {
			c.flushLocked()
		} else {
			c.letGoLocked()
		}
		failed := c.mu.err != nil
		c.mu.Unlock()
		if failed {
			c.Conn.Close()
		}
		return
	}
}

// drain sends what is kept back before the connection closes. If a write is under way
// that the client does not take, the rest is lost with it.
func (c *cork) drain(deadline time.Time) {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	c.mu.closing = true
	if c.mu.held != nil && !c.mu.holding && c.Conn.SetWriteDeadline(deadline) == nil {
		c.letGoLocked()
	}
}
