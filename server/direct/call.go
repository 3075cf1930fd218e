package direct

import (
	"context"
	"encoding/binary"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Call is a call whose request has come.
type Call struct {
	Method  int             // index in Options.Methods
	Context context.Context // with the peer and the metadata; calls that send the same share it
	Timeout time.Duration   // that the client has set; 0: none
	Request []byte          // the message, which nobody else has

	conn *Conn
	id   uint32
	kind *kind

	// Until the request is whole, the reader's.
	raw     []byte // with the prefix
	granted bool   // the client may send all of it

	// Under conn.mu.
	owner  Owner
	gone   bool    // nobody listens
	stream *Stream // nil: one message each way
	closed bool    // the client has said all
	window int64
	parked bool // waits for its window

	// The sender's.
	answer Answer
	begun  bool
	left   int    // bytes of the answer, with the prefix
	off    int    // in its first buffer
	prefix []byte // what is left of it
	bytes  [prefixBytes]byte
}

// prefixBytes stand before each message: whether it is compressed, and its length.
const prefixBytes = 5

// Owner is who serves a call.
type Owner interface {
	// Leave tells that nobody waits for the call any more. It still must be Done.
	Leave()
	// Answer is asked once for a call that is Done, when its answer is sent or dropped.
	Answer() Answer
}

// Answer is what became of a call.
type Answer struct {
	Message mem.BufferSlice // the sender frees it
	Status  *status.Status  // nil: OK
	Trailer metadata.MD     // sent with an error
}

// Own says who serves the call. It comes before Done.
func (c *Call) Own(o Owner) {
	c.conn.mu.Lock()
	c.owner = o
	gone := c.gone
	c.conn.mu.Unlock()
	if gone {
		o.Leave()
	}
}

// Conn is the connection that the call came on.
func (c *Call) Conn() *Conn { return c.conn }

// Done tells that the call has ended.
func (c *Call) Done() {
	n := c.conn
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.ended = append(n.mu.ended, c)
	n.kickLocked()
}

// refusal is the owner of a call whose request is none.
type refusal struct{ *status.Status }

func (refusal) Leave()           {}
func (r refusal) Answer() Answer { return Answer{Status: r.Status} }

// feed takes bytes of the request. Once it is whole, or cannot become so, done is true,
// with a refusal if there is one. more is what the client needs to be granted.
func (c *Call) feed(p []byte, isLast bool, most int) (done bool, no *status.Status, more uint32) {
	b := p
	if c.raw != nil {
		c.raw = append(c.raw, p...)
		b = c.raw
	}
	size, whole, no := framed(b, most)
	switch {
	case no != nil:
		return true, no, 0
	case !whole:
		c.keep(p)
		if len(b) >= prefixBytes && !c.granted && !isLast {
			c.granted = true
			more = uint32(size - len(b))
		}
		return isLast, ended(isLast, len(b)), more
	case c.raw == nil, cap(b) > len(b)+len(b)/4: // who has the request may keep it for long
		b = append(make([]byte, 0, len(b)), b...)
	}
	c.Request, c.raw = b[prefixBytes:size:size], nil
	return true, nil, 0
}

// framed looks at a message that b begins with: its size with the prefix, if that is known, and whether it is whole.
func framed(b []byte, most int) (size int, whole bool, no *status.Status) {
	if len(b) < prefixBytes {
		return prefixBytes, false, nil
	}
	size = int(binary.BigEndian.Uint32(b[1:]))
	switch {
	case size > most:
		return 0, false, status.Newf(codes.ResourceExhausted, "grpc: received message larger than max (%d vs. %d)", size, most)
	case len(b) < prefixBytes+size:
	case b[0] == 1:
		return 0, false, status.New(codes.Internal, "grpc: compressed flag set with identity or empty encoding")
	case b[0] != 0:
		return 0, false, status.Newf(codes.Internal, "grpc: received unexpected payload format %d", b[0])
	}
	size += prefixBytes
	return size, len(b) >= size, nil
}

// keep keeps the first bytes of a request; later ones are in raw already.
func (c *Call) keep(p []byte) {
	if c.raw == nil {
		c.raw = append(make([]byte, 0, 2*len(p)+64), p...)
	}
}

// ended is what gRPC's server says of a request that is cut short.
func ended(isLast bool, have int) *status.Status {
	switch {
	case !isLast:
		return nil
	case have < prefixBytes:
		return status.New(codes.Unknown, "EOF")
	}
	return status.New(codes.Unknown, "unexpected EOF")
}
