package server

import (
	"net"
	"sync"
)

// A write to TLS becomes a system call for each record, of 16 KiB at most, and a full
// frame of HTTP/2 is nine bytes longer than that: its last bytes travel in a record, a
// call and often a packet of their own. A cork below TLS gathers the records of
// a write that takes more than one.
const (
	recordBytes = 16 << 10
	corkBytes   = 4 * recordBytes
)

// corkBuffers are shared by all connections, each for the time of a write.
var corkBuffers = sync.Pool{New: func() any { b := make([]byte, 0, corkBytes+recordBytes/2); return &b }}

// cork lies between TLS and the socket.
type cork struct {
	net.Conn
	one sync.Mutex // from hold to release

	mu struct {
		sync.Mutex
		held *[]byte // nil: nothing is held back
		err  error   // of a write that TLS took for done: the records are torn for good
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
	return len(p), nil
}

func (c *cork) flushLocked() {
	if len(*c.mu.held) > 0 {
		_, c.mu.err = c.Conn.Write(*c.mu.held)
		*c.mu.held = (*c.mu.held)[:0]
	}
}

// hold begins to gather what is written, until release.
func (c *cork) hold() {
	c.one.Lock()
	buf := corkBuffers.Get().(*[]byte)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.held = buf
}

// release sends what was gathered.
func (c *cork) release() error {
	defer c.one.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushLocked()
	corkBuffers.Put(c.mu.held)
	c.mu.held = nil
	return c.mu.err
}
