package lane_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/keelson-io/keelson/server/lane"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// torn hands over what is written, and what is read, in pieces of random sizes.
type torn struct {
	net.Conn
	most int
	mu   sync.Mutex
	rng  *mathrand.Rand
}

func (c *torn) size(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(n, 1+c.rng.IntN(c.most))
}

func (c *torn) Read(p []byte) (int, error) { return c.Conn.Read(p[:c.size(len(p))]) }

func (c *torn) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = c.Conn.Write(p[n : n+c.size(len(p)-n)])
		n += m
	}
	return n, err
}

// listener puts a lane, with torn on both of its sides, before each connection.
type listener struct {
	net.Listener
	most int
	seed uint64
}

func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || l.most == 0 {
		return lane.New(conn), err
	}
	below := &torn{Conn: conn, most: l.most, rng: mathrand.New(mathrand.NewPCG(l.seed, 1))}
	return &torn{Conn: lane.New(below), most: l.most, rng: mathrand.New(mathrand.NewPCG(l.seed, 2))}, nil
}

// watches is a server of endless answers, as a watch is, and of plain ones.
type watches struct {
	seed  uint64
	lines int
	past  atomic.Int64         // lines that went past net/http
	ended sync.Map             // by path: the error of a Write that failed
	own   func(s *lane.Stream) // told of each stream that was taken over
}

// body is what the answer at a path says.
func (h *watches) body(path string) (lines [][]byte) {
	rng := mathrand.New(mathrand.NewPCG(h.seed, uint64(len(path))+uint64(path[len(path)-1])))
	for i := range h.lines {
		line := fmt.Appendf(nil, "%s %d ", path, i)
		line = append(line, bytes.Repeat([]byte{'a' + byte(i%26)}, rng.IntN([]int{10, 1000, 60_000}[rng.IntN(3)]))...)
		lines = append(lines, append(line, '\n'))
	}
	return lines
}

func (h *watches) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path[1] == 'p' {
		w.Header().Set("X-Long", strings.Repeat("{}", 10_000)) // takes two frames
		for _, line := range h.body(r.URL.Path) {
			w.Write(line)
		}
		return
	}
	var b [16]byte
	rand.Read(b[:])
	w.Header().Set("Audit-Id", hex.EncodeToString(b[:]))
	s := lane.Claim(r.Context(), w.Header().Get("Audit-Id"))
	defer s.End()
	ctl := http.NewResponseController(w)
	ctl.Flush()
	given := int64(0)
	told := false
	begin := mathrand.IntN(4) // so many lines go to net/http in any case
	for i, line := range h.body(r.URL.Path) {
		if i < begin || !s.Ready(given) {
			n, err := w.Write(line)
			if given += int64(n); err != nil || ctl.Flush() != nil {
				return
			}
			continue
		}
		if h.own != nil && !told {
			told = true
			h.own(s)
		}
		h.past.Add(1)
		var err error
		if i%2 == 0 || !s.Try(line) {
			err = s.Write(line)
		} else {
			s.Flush()
		}
		if err != nil {
			h.ended.Store(r.URL.Path, err)
			return
		}
	}
}

// serve starts a server; tearing is the longest piece of what is torn, 0: nothing is.
func serve(t *testing.T, h *watches, tearing int) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols), ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		if above, ok := c.(*torn); ok {
			c = above.Conn
		}
		return lane.With(ctx, c.(*lane.Conn))
	}}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	var wait sync.WaitGroup
	wait.Go(func() { s.Serve(&listener{l, tearing, h.seed}) })
	t.Cleanup(func() { s.Close(); wait.Wait() })
	return l.Addr()
}

// client is an HTTP/2 client that gives windows as it is told to, and sees that
// nobody takes more.
type client struct {
	t      *testing.T
	fr     *http2.Framer
	frames chan any // an http2.Frame's copy, or the error that ends them
	window int64    // of the connection
	first  int64    // of a new stream, as the server may know it
	less   []int64  // by how much first goes down when the server acknowledges a setting
	owed   int64    // of the connection's window
	all    map[uint32]*stream
	next   uint32
	away   bool
}

type stream struct {
	path   string
	window int64
	owed   int64
	got    []byte
	ended  bool
	killed bool // by us: what was on its way still comes
	reset  http2.ErrCode
}

type data struct {
	id    uint32
	bytes []byte
	ends  bool
}

type reset struct {
	id   uint32
	code http2.ErrCode
}

type ack struct{}

type goAway struct{}

func dial(t *testing.T, addr net.Addr, first, window int64, tearing int) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if tearing > 0 {
		conn = &torn{Conn: conn, most: tearing, rng: mathrand.New(mathrand.NewPCG(7, 7))}
	}
	c := &client{t: t, fr: http2.NewFramer(conn, conn), frames: make(chan any, 1000), window: 65535, first: 65535, all: map[uint32]*stream{}, next: 1}
	c.must(write(conn, http2.ClientPreface))
	c.setFirst(first)
	c.grant(0, window-c.window)
	go c.read()
	return c
}

func write(conn net.Conn, s string) error { _, err := conn.Write([]byte(s)); return err }

func (c *client) must(err error) {
	if err != nil {
		c.t.Helper()
		c.t.Fatal(err)
	}
}

// read ends with the connection.
func (c *client) read() {
	for {
		f, err := c.fr.ReadFrame()
		if err != nil {
			c.frames <- err
			return
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			c.frames <- data{f.StreamID, bytes.Clone(f.Data()), f.StreamEnded()}
		case *http2.RSTStreamFrame:
			c.frames <- reset{f.StreamID, f.ErrCode}
		case *http2.SettingsFrame:
			if f.IsAck() {
				c.frames <- ack{}
			}
		case *http2.GoAwayFrame:
			c.frames <- goAway{}
		}
	}
}

// setFirst sets the window of new streams, which changes that of all: a larger one counts at
// once, a smaller one when the server has said that it knows.
func (c *client) setFirst(n int64) {
	c.must(c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(n)}))
	now := c.first
	for _, d := range c.less {
		now += d
	}
	delta := n - now
	if delta > 0 {
		c.shift(delta)
		delta = 0
	}
	c.less = append(c.less, delta)
}

func (c *client) shift(delta int64) {
	c.first += delta
	for _, s := range c.all {
		s.window += delta
	}
}

func (c *client) grant(id uint32, n int64) {
	if n == 0 {
		return
	}
	c.must(c.fr.WriteWindowUpdate(id, uint32(n)))
	if id == 0 {
		c.window += n
		return
	}
	c.all[id].window += n
}

func (c *client) get(path string) uint32 {
	id := c.next
	c.next += 2
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "x"}, {":path", path}} {
		c.must(enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	c.all[id] = &stream{path: path, window: c.first}
	c.must(c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}))
	return id
}

// take looks at the next frame; false: there was none for a moment.
func (c *client) take(wait time.Duration) bool {
	select {
	case f := <-c.frames:
		c.judge(f)
		return true
	case <-time.After(wait):
		return false
	}
}

func (c *client) judge(f any) {
	switch f := f.(type) {
	case data:
		s := c.all[f.id]
		n := int64(len(f.bytes))
		if s == nil || s.ended && !s.killed {
			c.t.Fatalf("data on stream %d, which is not open", f.id)
		}
		if n > 0 && (n > c.window || n > s.window) {
			c.t.Fatalf("%d bytes on stream %d: its window is %d, the connection's %d", n, f.id, s.window, c.window)
		}
		c.window -= n
		s.window -= n
		c.owed += n
		s.owed += n
		s.got = append(s.got, f.bytes...)
		s.ended = f.ends
	case reset:
		if s := c.all[f.id]; s != nil {
			s.ended, s.reset = true, f.code
		}
	case ack:
		c.shift(c.less[0])
		c.less = c.less[1:]
	case goAway:
		c.away = true
	case error:
		if !c.away {
			c.t.Fatal(f)
		}
	}
}

// until takes frames until done, with a look at idle whenever none comes.
func (c *client) until(what string, idle func(), done func() bool) {
	c.t.Helper()
	for began := time.Now(); !done(); {
		if time.Since(began) > patience {
			c.t.Fatalf("%s: not in time", what)
		}
		if !c.take(2*time.Millisecond) && idle != nil {
			idle()
		}
	}
}

// pay grants all that was taken.
func (c *client) pay() {
	c.grant(0, c.owed)
	c.owed = 0
	for id, s := range c.all {
		if !s.ended && !s.killed {
			c.grant(id, s.owed)
			s.owed = 0
		}
	}
}

func (s *stream) is(lines [][]byte) bool { return bytes.Equal(s.got, bytes.Join(lines, nil)) }

// laneFrom is more than what a client must grant before a lane takes something.
const laneFrom = 1 << 20

// TestWindows: whatever a client grants, and however it is torn, no more comes than that,
// and all of it comes, in order.
func TestWindows(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			rng := mathrand.New(mathrand.NewPCG(seed, 0))
			tearing := []int{0, 5000, 300}[seed%3]
			h := &watches{seed: seed, lines: 60}
			// Either the streams' windows are what is short, or the connection's.
			first, window := int64(20_000), int64(laneFrom+30_000)
			if seed%2 == 1 {
				first = 1 << 20
			}
			c := dial(t, serve(t, h, tearing), first, window, tearing)
			open := map[uint32]bool{}
			for i := range 12 {
				open[c.get(fmt.Sprintf("/%c%d", "wwwp"[i%4], i))] = true
			}
			killed := 0
			c.until("the answers", func() {
				if len(c.less) == 0 && c.first < 5000 {
					c.setFirst(first)
				}
				c.pay()
				for id := range open {
					if c.all[id].ended {
						delete(open, id)
					} else if killed < 2 && rng.IntN(4) == 0 {
						killed++
						c.must(c.fr.WriteRSTStream(id, http2.ErrCodeCancel))
						c.all[id].killed = true
						delete(open, id)
					}
				}
			}, func() bool {
				switch id := uint32(1 + 2*rng.IntN(12)); rng.IntN(40) {
				case 0:
					if len(c.less) == 0 && seed%2 == 0 {
						c.setFirst(rng.Int64N(2 * first))
					}
				case 1:
					if s := c.all[id]; !s.ended && !s.killed {
						c.grant(id, s.owed)
						s.owed = 0
					}
				case 2:
					if seed%2 == 0 {
						c.grant(0, c.owed)
						c.owed = 0
					}
				}
				return len(open) == 0
			})
			for _, s := range c.all {
				if !s.killed && !s.is(h.body(s.path)) {
					t.Errorf("%s: %d bytes, not those that were sent", s.path, len(s.got))
				}
			}
			if h.past.Load() == 0 {
				t.Error("nothing went past net/http")
			}
		})
	}
}

// TestSmallWindow: a client that grants little to its connection gets all from net/http.
func TestSmallWindow(t *testing.T) {
	h := &watches{lines: 20}
	c := dial(t, serve(t, h, 0), 65535, 65535, 0)
	id := c.get("/w")
	c.until("the answer", c.pay, func() bool { return c.all[id].ended })
	if !c.all[id].is(h.body("/w")) || h.past.Load() > 0 {
		t.Errorf("%d bytes, %d lines past net/http", len(c.all[id].got), h.past.Load())
	}
}

// TestStalled: a stream without a window waits alone, and can be ended.
func TestStalled(t *testing.T) {
	owned := make(chan *lane.Stream, 10)
	h := &watches{lines: 60, own: func(s *lane.Stream) { owned <- s }}
	c := dial(t, serve(t, h, 0), 65535, 8<<20, 0)
	stalled := c.get("/w1")
	c.until("the window's end", nil, func() bool { return c.all[stalled].window == 0 })
	other := c.get("/w2")
	c.until("the other's end", func() { c.grant(other, c.all[other].owed); c.all[other].owed = 0 }, func() bool { return c.all[other].ended })
	if !c.all[other].is(h.body("/w2")) {
		t.Error("the other answer is not what was sent")
	}
	if c.all[stalled].ended {
		t.Fatal("it did not wait")
	}
	(<-owned).End()
	c.until("the stalled stream's end", nil, func() bool { return c.all[stalled].ended })
	if err, _ := h.ended.Load("/w1"); !errors.Is(err.(error), lane.ErrEnded) {
		t.Errorf("the stalled write: %v", err)
	}
}

// TestIllegalUpdates: what HTTP/2 forbids reaches net/http, which punishes it.
func TestIllegalUpdates(t *testing.T) {
	zero := func(c *client, id uint32) {
		c.must(c.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4)))
	}
	h := &watches{lines: 60}
	c := dial(t, serve(t, h, 0), 65535, 8<<20, 0)
	id := c.get("/w1")
	c.until("the window's end", nil, func() bool { return c.all[id].window == 0 })
	if h.past.Load() == 0 {
		t.Fatal("nothing went past net/http")
	}
	zero(c, id)
	c.until("the stream's end", nil, func() bool { return c.all[id].reset == http2.ErrCodeProtocol })
	c.until("the handler's end", nil, func() bool { _, ok := h.ended.Load("/w1"); return ok })
	zero(c, 0)
	c.until("the connection's end", nil, func() bool { return c.away })
}

// TestReset: a Write that waits ends when the client no longer wants its stream.
func TestReset(t *testing.T) {
	h := &watches{lines: 60}
	c := dial(t, serve(t, h, 0), 65535, 8<<20, 0)
	id := c.get("/w1")
	c.until("the window's end", nil, func() bool { return c.all[id].window == 0 })
	c.must(c.fr.WriteRSTStream(id, http2.ErrCodeCancel))
	c.until("the handler's end", nil, func() bool { _, ok := h.ended.Load("/w1"); return ok })
}

// TestConnectionEnds: a Write that waits ends with its connection.
func TestConnectionEnds(t *testing.T) {
	h := &watches{lines: 60}
	c := dial(t, serve(t, h, 0), 65535, 8<<20, 0)
	id := c.get("/w1")
	c.until("the window's end", nil, func() bool { return c.all[id].window == 0 })
	c.must(c.fr.WriteGoAway(0, http2.ErrCodeNo, nil))
	c.must(c.fr.WriteRawFrame(http2.FrameSettings, 0, 1, nil)) // a connection error
	c.until("the handler's end", nil, func() bool { _, ok := h.ended.Load("/w1"); return ok })
}

// TestOtherProtocols: HTTP/1.1 passes, even a request that is shorter than HTTP/2's preface.
func TestOtherProtocols(t *testing.T) {
	h := &watches{lines: 3}
	addr := serve(t, h, 3)
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := write(conn, "GET /w HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(conn); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(got.Bytes(), bytes.Join(h.body("/w"), nil)) {
		t.Errorf("got %d bytes", got.Len())
	}
}
