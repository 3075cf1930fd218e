package direct

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/encoding"
)

// Options say what is taken, and from whom.
type Options struct {
	Methods    []string // full names, of those with one message each way
	Streams    []string // and of those with streams of messages
	MaxRequest int      // bytes of a message
	MaxHeaders uint32   // bytes of a block
	MaxStreams uint32   // calls of a connection
	// PingMin is how often a client may ping while it waits for a call. What comes more
	// often is judged by grpc-go.
	PingMin time.Duration
	Now     func() time.Time
	// Context of the calls of a connection, which ends no earlier than they do.
	Context func(net.Conn) context.Context
	// Begin begins calls that have come together. Whoever takes one calls its Own, and later its Done,
	// which may be within Begin. Begin does not wait for them.
	Begin func(calls []*Call)
	// Serve serves a stream; its error says how that ends. Codec is for its messages.
	Serve func(*Stream) error
	Codec encoding.CodecV2
}

// Conn is a connection as grpc-go sees it.
type Conn struct {
	net.Conn
	o      *Options
	closed func() // with Close
	lends  bool   // Conn is a vectored one

	// The reader's.
	in      *input
	frames  *http2.Framer // of in
	headers *headers
	block   block         // whose headers are coming
	pass    bytes.Buffer  // what grpc-go is to read
	forward *http2.Framer // to pass
	greeted bool          // the preface has passed
	fresh   []*Call       // requests that have come since the last Begin
	newest  uint32        // stream that the client has opened
	unread  uint32        // bytes of calls' requests that the client may send again
	pinged  time.Time
	flooded error // nil: the client reads

	pongs   *pongs
	streams *sync.WaitGroup // their handlers

	writing sync.Mutex // orders what reaches Conn
	out     outbound   // under writing

	mu struct {
		sync.Mutex
		changed sync.Cond // of window, debt or err; uses the lock above
		err     error     // the connection has ended

		calls   map[uint32]*Call // taken, and not answered
		drained chan struct{}    // closed with the last of them; nil: nobody waits
		idle    bool             // takes no more
		newest  uint32           // stream that was taken

		initial int64 // the window of a new stream
		window  int64 // of the connection
		debt    int64
		own     int64 // what a client may send on a new stream
		held    int   // bytes of grpc-go's that wait in out

		ended   []*Call // answers to be fetched
		sending []*Call // answers that go on, in turn
		control []byte  // short frames
		pongs   bool    // pongs knows of some
		spare   []*Call // room for ended
		sent    bool    // something of a call, since the last ping

		again     bool // there is something to send
		gathering int  // who will Send soon
		flushing  bool // somebody sends
	}
}

const (
	frameBytes  = 16 << 10 // the longest payload that everybody takes
	windowBytes = 65535    // of a new connection, and of its streams until a setting says more
	maxWindow   = math.MaxInt32
)

// newConn makes the connection's lower half.
func newConn(conn net.Conn, o *Options, l *Listener) *Conn {
	c := &Conn{Conn: conn, o: o, pongs: &l.pongs, streams: &l.streams, in: newInput(conn)}
	v, ok := conn.(vectored)
	c.lends = ok && v.Vectored()
	c.headers = newHeaders(o.Context(conn), o.MaxHeaders)
	c.frames = http2.NewFramer(io.Discard, c.in)
	c.frames.SetReuseFrames()
	c.frames.SetMaxReadFrameSize(frameBytes)
	c.forward = http2.NewFramer(&c.pass, nil)
	c.mu.changed.L = &c.mu.Mutex
	c.mu.calls = map[uint32]*Call{}
	c.mu.initial, c.mu.window, c.mu.own = windowBytes, windowBytes, windowBytes
	return c
}

// Read implements net.Conn, for grpc-go.
func (c *Conn) Read(p []byte) (int, error) {
	for c.pass.Len() == 0 {
		err := c.next()
		if err == nil {
			err = c.flooded
		}
		if err != nil || !c.whole() {
			c.begin() // nothing more has come with them
		}
		if err != nil {
			c.fail(err)
			return 0, err
		}
	}
	c.begin() // grpc-go may wait for something now
	return c.pass.Read(p)
}

// whole reports whether the next frame has come already.
func (c *Conn) whole() bool {
	const head = 9
	if c.in.Buffered() < head {
		return false
	}
	b, _ := c.in.Peek(head)
	return c.in.Buffered()-head >= int(b[0])<<16|int(b[1])<<8|int(b[2])
}

// begin has calls served, and answers those that end at once.
func (c *Conn) begin() {
	if len(c.fresh) == 0 {
		return
	}
	c.Gather()
	c.o.Begin(c.fresh)
	c.Send()
	clear(c.fresh)
	c.fresh = c.fresh[:0]
}

// fail ends all calls.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.mu.err == nil {
		c.mu.err = err
	}
	var left []Owner
	for id, call := range c.mu.calls {
		call.gone = true
		if call.owner != nil {
			left = append(left, call.owner)
		}
		if call.parked {
			call.parked = false
			c.mu.sending = append(c.mu.sending, call) // to be dropped
		}
		delete(c.mu.calls, id)
	}
	c.drainedLocked()
	c.mu.changed.Broadcast()
	c.kickLocked()
	c.mu.Unlock()
	for _, o := range left {
		o.Leave()
	}
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.fail(net.ErrClosed)
	c.closed()
	return c.Conn.Close()
}

// drain lets grpc-go have the calls to come. The channel is closed when those that were taken
// have been answered.
func (c *Conn) drain() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.idle = true
	if c.mu.drained == nil {
		c.mu.drained = make(chan struct{})
	}
	c.drainedLocked()
	return c.mu.drained
}

func (c *Conn) drainedLocked() {
	if c.mu.drained == nil || len(c.mu.calls) > 0 {
		return
	}
	select {
	case <-c.mu.drained:
	default:
		close(c.mu.drained)
	}
}

var errIllegal = errors.New("an illegal frame")
