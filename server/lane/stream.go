package lane

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/net/http2/hpack"
)

// ErrEnded tells that a stream takes nothing more.
var ErrEnded = errors.New("the stream has ended")

// Stream is a handler's part in a lane. A nil one never is Ready. The handler's goroutine
// uses it, but for End.
type Stream struct {
	conn *Conn
	mark []byte // in its response headers

	// under conn.mu
	id     uint32 // 0: not found yet
	window int64  // what the client has granted
	passed int64  // what the server has sent
	taken  bool
	ended  bool
}

// Claim asks for the stream of a handler whose response headers have this value, and
// have not been sent. Nobody but the handler may know it before.
func Claim(ctx context.Context, value string) *Stream {
	c, _ := ctx.Value(connKey{}).(*Conn)
	if c == nil {
		return nil
	}
	s := &Stream{conn: c}
	// net/http writes what it has not written before as it is, in Huffman's code if that is
	// shorter, after its length (RFC 7541, 5.2).
	s.mark = hpack.AppendHuffmanString([]byte{0x80 | byte(hpack.HuffmanEncodeLength(value))}, value)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.speaks || c.mu.lane == 0 {
		return nil
	}
	c.mu.claims = append(c.mu.claims, s)
	return s
}

// Ready takes the stream over if all that the handler has given to the server has passed.
// From then on the handler must write nothing but here.
func (s *Stream) Ready(given int64) bool {
	if s == nil {
		return false
	}
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.taken && s.id != 0 && s.passed == given && !s.ended && c.mu.initial <= maxWindow/2 {
		s.taken = true
	}
	return s.taken
}

// Write sends p, which nobody may change any more, as soon as the windows allow it. It
// returns when p is on its way.
func (s *Stream) Write(p []byte) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 {
		if s.ended || c.mu.err != nil {
			return ErrEnded
		}
		n := int(min(int64(len(p)), frameBytes, s.roomLocked()))
		if n <= 0 {
			c.mu.waiting++
			c.mu.changed.Wait()
			c.mu.waiting--
			continue
		}
		s.gatherLocked(p[:n])
		p = p[n:]
		c.flushLocked()
	}
	return nil
}

// Try gathers p for the next Flush, or nothing if the windows do not allow all of it now.
func (s *Stream) Try(p []byte) bool {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if int64(len(p)) > s.roomLocked() || s.ended || c.mu.err != nil {
		return false
	}
	for len(p) > 0 {
		n := min(len(p), frameBytes)
		s.gatherLocked(p[:n])
		p = p[n:]
	}
	return true
}

// Flush sends what all streams of the connection have gathered.
func (s *Stream) Flush() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.conn.flushLocked()
}

// Conn is the connection that the stream belongs to.
func (s *Stream) Conn() *Conn { return s.conn }

// roomLocked is how much the stream may send now.
func (s *Stream) roomLocked() int64 {
	return min(s.window, s.conn.mu.lane, int64(maxPending-s.conn.mu.size))
}

func (s *Stream) gatherLocked(p []byte) {
	c := s.conn
	s.window -= int64(len(p))
	c.mu.lane -= int64(len(p))
	c.mu.size += len(p) + pieceCost
	c.mu.total++
	c.mu.pending = append(c.mu.pending, piece{s, p})
}

func (c *Conn) flushLocked() {
	if !c.mu.flushing && len(c.mu.pending) > 0 {
		c.mu.flushing = true
		go c.flush()
	}
}

// End makes a Write that waits, and all that follow, fail.
func (s *Stream) End() {
	if s == nil {
		return
	}
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.ended = true
	if i := slices.Index(c.mu.claims, s); i >= 0 {
		c.mu.claims = slices.Delete(c.mu.claims, i, i+1)
	}
	c.wakeLocked()
}
