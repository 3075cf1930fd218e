package direct

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// outbound is where grpc-go is in its frames.
type outbound struct {
	*gathered // what is about to be written; nil: nobody writes

	head [headBytes]byte
	have int // of head
	left int // of the frame's payload
	to   course
	open bool // within a header block that is being written

	held  []byte // whole frames, and perhaps the beginning of one
	frame []byte // that is to be whole
}

const headBytes = 9 // of a frame

// course is where a frame of grpc-go's goes.
type course uint8

const (
	through course = iota
	hold
	whole // is looked at when all of it is there
)

// between reports whether a frame may be written now.
func (o *outbound) between() bool { return !o.open && (o.left == 0 || o.to != through) }

// maxHeld bounds what grpc-go has written too early; then it waits.
const maxHeld = 256 << 10

// Write implements net.Conn, for grpc-go.
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.enter(); err != nil {
		return 0, err
	}
	defer c.writing.Unlock()
	c.room()
	c.follow(p)
	c.mu.Lock()
	if c.mu.held = len(c.out.held); c.mu.held > 0 {
		c.mu.again = true // what was held may have been kept by a frame that was not whole
	}
	c.mu.Unlock()
	if err := c.put(); err != nil {
		return 0, err
	}
	return len(p), c.send() // what has waited for the end of a frame
}

// enter takes writing once not too much is held. A frame that has begun goes on in any case: what
// is held waits for its end.
func (c *Conn) enter() error {
	for {
		c.writing.Lock()
		c.mu.Lock()
		if err := c.mu.err; err != nil {
			c.mu.Unlock()
			c.writing.Unlock()
			return err
		}
		if c.mu.held <= maxHeld || !c.out.between() {
			c.mu.Unlock()
			return nil
		}
		c.writing.Unlock()
		c.mu.changed.Wait()
		c.mu.Unlock()
	}
}

// follow goes through what grpc-go writes.
func (c *Conn) follow(p []byte) {
	for o := &c.out; len(p) > 0; {
		if o.left == 0 {
			n := copy(o.head[o.have:], p)
			o.have, p = o.have+n, p[n:]
			if o.have == headBytes {
				c.frameBegins()
			}
			continue
		}
		n := min(o.left, len(p))
		o.add(p[:n])
		o.left, p = o.left-n, p[n:]
		if o.left == 0 {
			c.frameEnds()
		}
	}
}

// frameBegins looks at the head of a frame.
func (c *Conn) frameBegins() {
	o := &c.out
	o.have = 0
	o.left = int(o.head[0])<<16 | int(o.head[1])<<8 | int(o.head[2])
	kind := http2.FrameType(o.head[3])
	switch kind {
	case http2.FrameContinuation: // goes with its block
	case http2.FrameData:
		c.mu.Lock()
		if o.to = through; len(o.held) > 0 || int64(o.left) > c.mu.window {
			o.to = hold
		} else {
			c.mu.window -= int64(o.left)
		}
		c.mu.Unlock()
	case http2.FrameHeaders, http2.FrameRSTStream:
		if o.to = through; len(o.held) > 0 {
			o.to = hold
		}
	case http2.FrameGoAway, http2.FrameSettings:
		o.to = whole
	default:
		o.to = through
	}
	if o.to == through && (kind == http2.FrameHeaders || kind == http2.FrameContinuation) {
		o.open = http2.Flags(o.head[4])&http2.FlagHeadersEndHeaders == 0
	}
	o.add(o.head[:])
	if o.left == 0 {
		c.frameEnds()
	}
}

func (o *outbound) add(p []byte) {
	switch o.to {
	case through:
		o.buf = append(o.buf, p...)
	case hold:
		o.held = append(o.held, p...)
	case whole:
		o.frame = append(o.frame, p...)
	}
}

// frameEnds lets a frame go that had to be whole.
func (c *Conn) frameEnds() {
	o := &c.out
	if o.to != whole {
		return
	}
	o.to = through
	payload := o.frame[headBytes:]
	if http2.FrameType(o.frame[3]) == http2.FrameSettings {
		if c.ownWindow(payload); len(o.held) > 0 { // it may acknowledge smaller windows
			o.to = hold
		}
	} else if len(payload) >= 4 {
		// Nothing that was taken is unseen: clients would call it again elsewhere.
		c.mu.Lock()
		last := binary.BigEndian.Uint32(payload)
		binary.BigEndian.PutUint32(payload, max(last, c.mu.newest))
		c.mu.Unlock()
	}
	o.add(o.frame)
	o.frame, o.to = nil, through
}

// releaseLocked lets go what was held, as far as the window allows.
func (c *Conn) releaseLocked() {
	o := &c.out
	for len(o.held) > 0 {
		n, data := firstUnit(o.held)
		if n == 0 || data > c.mu.window {
			break
		}
		c.mu.window -= data
		o.buf = append(o.buf, o.held[:n]...)
		o.held = o.held[n:]
	}
	if len(o.held) == 0 {
		o.held = nil
	}
	if c.mu.held != len(o.held) {
		c.mu.held = len(o.held)
		c.mu.changed.Broadcast()
	}
}

// firstUnit is the length of the first frame, or header block, and what it takes of
// the window; 0: it is not whole yet.
func firstUnit(b []byte) (n int, data int64) {
	for at := 0; ; {
		if len(b)-at < headBytes {
			return 0, 0
		}
		size := int(b[at])<<16 | int(b[at+1])<<8 | int(b[at+2])
		kind, flags := http2.FrameType(b[at+3]), http2.Flags(b[at+4])
		if at += headBytes + size; at > len(b) {
			return 0, 0
		}
		if kind == http2.FrameData {
			return at, int64(size)
		}
		if kind != http2.FrameHeaders && kind != http2.FrameContinuation || flags&http2.FlagHeadersEndHeaders != 0 {
			return at, 0
		}
	}
}
