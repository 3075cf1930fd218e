package h2test

import (
	"bytes"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// Client is an HTTP/2 client that gives windows as it is told to, and sees that nobody takes
// more. A test's goroutine uses it.
type Client struct {
	Conn    net.Conn
	Framer  *http2.Framer
	Streams map[uint32]*Stream
	Owed    int64   // of the connection's window
	First   int64   // of a new stream's, as the server may know it
	Less    []int64 // by how much First goes down when the server acknowledges a setting
	Away    bool    // a GOAWAY has come, or may
	Last    uint32  // stream that it has seen
	Pongs   int
	Granted int64 // what the server has added to what the client may send
	Closed  bool

	t      *testing.T
	frames chan any // an http2.Frame's copy, or the error that ends them
	fields *hpack.Decoder
	block  []hpack.HeaderField
	window int64
	next   uint32
	enc    *hpack.Encoder // with a table
	text   bytes.Buffer
}

// Stream is one of a Client's.
type Stream struct {
	Path    string
	Window  int64
	Owed    int64
	Granted int64 // what the server has added to what the client may send
	Got     []byte
	Header  map[string]string // and trailers
	Ended   bool
	Killed  bool // by the client: what was on its way still comes
	Cut     bool // by the server
	Reset   http2.ErrCode
}

type data struct {
	id    uint32
	bytes []byte
	ends  bool
}

type headers struct {
	id     uint32
	fields []hpack.HeaderField
	ends   bool
}

type reset struct {
	id   uint32
	code http2.ErrCode
}

type update struct{ id, inc uint32 }

type (
	ack  struct{}
	ping struct {
		data [8]byte
		ack  bool
	}
	goAway struct{ last uint32 }
)

// Dial connects. first is the window of new streams, window that of the connection.
func Dial(t *testing.T, addr net.Addr, first, window int64, tearing int) *Client {
	t.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if tearing > 0 {
		conn = Tear(conn, tearing, 7)
	}
	const usual = 65535
	c := &Client{Conn: conn, t: t, Framer: http2.NewFramer(conn, conn), frames: make(chan any, 1000), window: usual, First: usual, Streams: map[uint32]*Stream{}, next: 1}
	c.enc = hpack.NewEncoder(&c.text)
	c.fields = hpack.NewDecoder(4096, func(f hpack.HeaderField) { c.block = append(c.block, f) })
	_, err = conn.Write([]byte(http2.ClientPreface))
	c.Must(err)
	c.SetFirst(first)
	c.Grant(0, window-c.window)
	go c.read()
	return c
}

// Must ends the test with an error.
func (c *Client) Must(err error) {
	if err != nil {
		c.t.Helper()
		c.t.Fatal(err)
	}
}

// read ends with the connection.
func (c *Client) read() {
	for {
		f, err := c.Framer.ReadFrame()
		if err != nil {
			c.frames <- err
			return
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			if err := c.fragment(f.HeaderBlockFragment(), f.HeadersEnded()); err != nil {
				c.frames <- err
				return
			}
			c.frames <- headers{f.StreamID, c.block, f.StreamEnded()}
			c.block = nil
		case *http2.DataFrame:
			c.frames <- data{f.StreamID, bytes.Clone(f.Data()), f.StreamEnded()}
		case *http2.RSTStreamFrame:
			c.frames <- reset{f.StreamID, f.ErrCode}
		case *http2.WindowUpdateFrame:
			c.frames <- update{f.StreamID, f.Increment}
		case *http2.PingFrame:
			c.frames <- ping{f.Data, f.IsAck()}
		case *http2.SettingsFrame:
			if f.IsAck() {
				c.frames <- ack{}
			}
		case *http2.GoAwayFrame:
			c.frames <- goAway{f.LastStreamID}
		}
	}
}

// fragment reads a header block to its end: frames of others between its own are an error of
// the framer's.
func (c *Client) fragment(b []byte, isLast bool) error {
	for {
		if _, err := c.fields.Write(b); err != nil {
			return err
		}
		if isLast {
			return c.fields.Close()
		}
		f, err := c.Framer.ReadFrame()
		if err != nil {
			return err
		}
		more := f.(*http2.ContinuationFrame)
		b, isLast = more.HeaderBlockFragment(), more.HeadersEnded()
	}
}

// SetFirst sets the window of new streams, which changes that of all: a larger one counts at
// once, a smaller one when the server has said that it knows.
func (c *Client) SetFirst(n int64) {
	c.Must(c.Framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(n)}))
	now := c.First
	for _, d := range c.Less {
		now += d
	}
	delta := n - now
	if delta > 0 {
		c.shift(delta)
		delta = 0
	}
	c.Less = append(c.Less, delta)
}

func (c *Client) shift(delta int64) {
	c.First += delta
	for _, s := range c.Streams {
		s.Window += delta
	}
}

// Grant lets the server send more on a stream; 0: on the connection.
func (c *Client) Grant(id uint32, n int64) {
	if n == 0 {
		return
	}
	c.Must(c.Framer.WriteWindowUpdate(id, uint32(n)))
	if id == 0 {
		c.window += n
		return
	}
	c.Streams[id].Window += n
}

// Stream is a new stream, for which nothing has been sent.
func (c *Client) Stream(path string) uint32 {
	id := c.next
	c.next += 2
	c.Streams[id] = &Stream{Path: path, Window: c.First, Header: map[string]string{}}
	return id
}

// Open sends the headers of a request, pairs of names and values.
func (c *Client) Open(ends bool, fields ...string) uint32 {
	path := ""
	for i := 0; i < len(fields); i += 2 {
		if fields[i] == ":path" {
			path = fields[i+1]
		}
	}
	id := c.Stream(path)
	block := c.Block(fields...)
	c.Must(c.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: ends, EndHeaders: true}))
	return id
}

// Block compresses headers, as the connection's next block.
func (c *Client) Block(fields ...string) []byte {
	c.text.Reset()
	for i := 0; i < len(fields); i += 2 {
		c.Must(c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return c.text.Bytes()
}

// Take looks at the next frame; false: there was none for a moment.
func (c *Client) Take(wait time.Duration) bool {
	select {
	case f := <-c.frames:
		c.judge(f)
		return true
	case <-time.After(wait):
		return false
	}
}

func (c *Client) judge(f any) {
	switch f := f.(type) {
	case headers:
		s := c.open(f.id, "headers")
		for _, field := range f.fields {
			s.Header[field.Name] = field.Value
		}
		s.Ended = f.ends
	case data:
		s := c.open(f.id, "data")
		n := int64(len(f.bytes))
		if n > 0 && (n > c.window || n > s.Window) {
			c.t.Fatalf("%d bytes on stream %d: its window is %d, the connection's %d", n, f.id, s.Window, c.window)
		}
		c.window -= n
		s.Window -= n
		c.Owed += n
		s.Owed += n
		s.Got = append(s.Got, f.bytes...)
		s.Ended = f.ends
	case reset:
		if s := c.Streams[f.id]; s != nil {
			s.Ended, s.Cut, s.Reset = true, true, f.code
		}
	case update:
		if f.id == 0 {
			c.Granted += int64(f.inc)
		}
		if s := c.Streams[f.id]; s != nil {
			s.Granted += int64(f.inc)
		}
	case ping:
		if f.ack {
			c.Pongs++
			return
		}
		c.Must(c.Framer.WritePing(true, f.data))
	case ack:
		c.shift(c.Less[0])
		c.Less = c.Less[1:]
	case goAway:
		c.Away, c.Last = true, f.last
	case error:
		c.Closed = true
		if !c.Away {
			c.t.Fatal(f)
		}
	}
}

func (c *Client) open(id uint32, what string) *Stream {
	s := c.Streams[id]
	if s == nil || s.Ended && !s.Killed {
		c.t.Fatalf("%s on stream %d, which is not open", what, id)
	}
	return s
}

// Until takes frames until done, with a look at idle whenever none comes.
func (c *Client) Until(what string, idle func(), done func() bool) {
	c.t.Helper()
	for began := time.Now(); !done(); {
		if time.Since(began) > patience {
			c.t.Fatalf("%s: not in time", what)
		}
		if !c.Take(2*time.Millisecond) && idle != nil {
			idle()
		}
	}
}

// Sync waits until the server has answered a ping, and so until what it sent before has come.
func (c *Client) Sync() {
	c.t.Helper()
	n := c.Pongs
	c.Must(c.Framer.WritePing(false, [8]byte{3}))
	c.Until("a pong", nil, func() bool { return c.Pongs > n })
}

// Pay grants all that was taken.
func (c *Client) Pay() {
	c.Grant(0, c.Owed)
	c.Owed = 0
	for id := range c.Streams {
		c.PayStream(id)
	}
}

// PayStream grants what a stream has taken.
func (c *Client) PayStream(id uint32) {
	if s := c.Streams[id]; !s.Ended && !s.Killed {
		c.Grant(id, s.Owed)
		s.Owed = 0
	}
}
