package lane

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
)

// What HTTP/2 says (RFC 9113, 3.4, 4.1, 6).
const (
	preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	headerBytes = 9

	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	frameWindow       = 8
	frameContinuation = 9

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4

	settingWindow = 4
	windowBytes   = 65535 // of a new connection, and of its streams until a setting says more
	maxWindow     = 1<<31 - 1
)

const (
	// serverShare is what a client must grant to a connection before the lane takes
	// something, and again whenever the server has less.
	serverShare = 1 << 20
	// laneShare is the most that the lane keeps of what a client grants to a connection.
	laneShare = 8 << 20
	// readBytes hold each frame that is looked at: net/http ends connections that send
	// more than 100 settings at once.
	readBytes = 1 << 10
)

// Conn is a connection as the HTTP/2 server sees it. One that turns out to speak something
// else passes everything, and nobody can take over anything.
type Conn struct {
	net.Conn
	in    *bufio.Reader // with begun, plain and left: owned by who reads
	begun bool
	plain bool
	left  int // of the frame, or the preface, that passes

	writing sync.Mutex // orders what reaches Conn
	out     outbound   // under writing

	mu struct {
		sync.Mutex
		changed sync.Cond // somebody may go on; uses the lock above
		waiting int       // who waits for it
		err     error     // the connection has ended

		speaks  bool  // HTTP/2
		initial int64 // the window of a new stream
		server  int64 // what the client has granted to the connection: the server's share
		lane    int64 // and the lane's
		claims  []*Stream
		streams map[uint32]*Stream

		pending  []piece // in this order
		spare    []piece // room for the next
		size     int     // of pending, and of what is being written
		total    uint64  // counts pieces
		flushing bool
	}
}

// New makes a lane of a connection that has just been accepted.
func New(conn net.Conn) *Conn {
	c := &Conn{Conn: conn, in: bufio.NewReaderSize(conn, readBytes)}
	c.mu.changed.L = &c.mu.Mutex
	c.mu.initial, c.mu.server = windowBytes, windowBytes
	c.mu.streams = map[uint32]*Stream{}
	return c
}

type connKey struct{}

// With gives a connection's handlers its lane.
func With(ctx context.Context, c *Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	for c.left == 0 && !c.plain {
		if err := c.next(); err != nil {
			if c.in.Buffered() == 0 {
				c.fail(err)
				return 0, err
			}
			c.plain = true // the last bytes of a frame that never will be whole
		}
	}
	if !c.plain {
		p = p[:min(len(p), c.left)]
	}
	n, err := c.in.Read(p)
	if !c.plain {
		c.left -= n
	}
	if err != nil {
		c.fail(err)
	}
	return n, err
}

// next looks at what begins now: it is left to pass, or it was the lane's and is gone.
func (c *Conn) next() error {
	if !c.begun {
		return c.begin()
	}
	b, err := c.in.Peek(headerBytes)
	if err != nil {
		return err
	}
	length, kind, flags := int(b[0])<<16|int(b[1])<<8|int(b[2]), b[3], b[4]
	id := binary.BigEndian.Uint32(b[5:]) & maxWindow
	switch {
	case kind == frameReset:
		c.end(id)
	case kind == frameWindow && length == 4:
		if b, err = c.in.Peek(headerBytes + length); err != nil {
			return err
		}
		granted := b[headerBytes:]
		inc := binary.BigEndian.Uint32(granted) & maxWindow
		pass := c.grant(id, inc)
		if pass == 0 && inc > 0 {
			_, err = c.in.Discard(headerBytes + length)
			return err
		}
		binary.BigEndian.PutUint32(granted, pass)
	case kind == frameSettings && flags&flagAck == 0 && id == 0 && length+headerBytes <= readBytes:
		if b, err = c.in.Peek(headerBytes + length); err != nil {
			return err
		}
		c.settings(b[headerBytes:])
	}
	c.left = headerBytes + length
	return nil
}

// begin tells HTTP/2 from all else by its first bytes.
func (c *Conn) begin() error {
	for n := 4; ; n = len(preface) { // the first four cannot begin an HTTP/1.1 request, which may be short
		b, err := c.in.Peek(n)
		if err != nil {
			return err
		}
		if string(b) != preface[:n] {
			c.begun, c.plain = true, true
			return nil
		}
		if n == len(preface) {
			break
		}
	}
	c.begun, c.left = true, len(preface)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.speaks = true
	return nil
}

// grant takes what is the lane's of a WINDOW_UPDATE, and returns what the server shall
// have of it. One that is illegal is the server's business.
func (c *Conn) grant(id, inc uint32) (pass uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int64(inc)
	if id == 0 {
		var ours int64
		if c.mu.server+c.mu.lane+n <= maxWindow {
			ours = max(0, min(n, c.mu.server+n-serverShare, laneShare-c.mu.lane))
		}
		c.mu.lane += ours
		c.mu.server += n - ours
		c.wakeLocked()
		return uint32(n - ours)
	}
	s := c.mu.streams[id]
	if s == nil || s.window+n > maxWindow {
		return inc
	}
	s.window += n
	c.wakeLocked()
	if s.taken {
		return 0
	}
	return inc
}

// settings follows the window of new streams, which changes that of all.
func (c *Conn) settings(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; len(b) >= 6; b = b[6:] {
		value := int64(binary.BigEndian.Uint32(b[2:]))
		if binary.BigEndian.Uint16(b) != settingWindow || value > maxWindow {
			continue
		}
		for _, s := range c.mu.streams {
			s.window += value - c.mu.initial
		}
		c.mu.initial = value
	}
	c.wakeLocked()
}

// end ends the lane's part in a stream.
func (c *Conn) end(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.mu.streams[id]; s != nil {
		delete(c.mu.streams, id)
		s.ended = true
		c.wakeLocked()
	}
}

func (c *Conn) wakeLocked() {
	if c.mu.waiting > 0 {
		c.mu.changed.Broadcast()
	}
}

// fail ends all streams that were taken over.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err == nil {
		c.mu.err = err
		c.wakeLocked()
	}
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.fail(errors.Join(ErrEnded, net.ErrClosed))
	return c.Conn.Close()
}
