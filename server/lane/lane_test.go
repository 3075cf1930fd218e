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

	"golang.org/x/net/http2"

	"github.com/keelson-io/keelson/server/h2test"
	"github.com/keelson-io/keelson/server/lane"
)

// listener puts a lane, torn on both of its sides, before each connection.
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
	return h2test.Tear(lane.New(h2test.Tear(conn, l.most, 2*l.seed)), l.most, 2*l.seed+1), nil
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
		if above, ok := c.(*h2test.Torn); ok {
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

func is(s *h2test.Stream, lines [][]byte) bool { return bytes.Equal(s.Got, bytes.Join(lines, nil)) }

func get(c *h2test.Client, path string) uint32 {
	return c.Open(true, ":method", "GET", ":scheme", "http", ":authority", "x", ":path", path)
}

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
			c := h2test.Dial(t, serve(t, h, tearing), first, window, tearing)
			open := map[uint32]bool{}
			for i := range 12 {
				open[get(c, fmt.Sprintf("/%c%d", "wwwp"[i%4], i))] = true
			}
			killed := 0
			c.Until("the answers", func() {
				if len(c.Less) == 0 && c.First < 5000 {
					c.SetFirst(first)
				}
				c.Pay()
				for id := range open {
					if c.Streams[id].Ended {
						delete(open, id)
					} else if killed < 2 && rng.IntN(4) == 0 {
						killed++
						c.Must(c.Framer.WriteRSTStream(id, http2.ErrCodeCancel))
						c.Streams[id].Killed = true
						delete(open, id)
					}
				}
			}, func() bool {
				switch id := uint32(1 + 2*rng.IntN(12)); rng.IntN(40) {
				case 0:
					if len(c.Less) == 0 && seed%2 == 0 {
						c.SetFirst(rng.Int64N(2 * first))
					}
				case 1:
					c.PayStream(id)
				case 2:
					if seed%2 == 0 {
						c.Grant(0, c.Owed)
						c.Owed = 0
					}
				}
				return len(open) == 0
			})
			for _, s := range c.Streams {
				if !s.Killed && !is(s, h.body(s.Path)) {
					t.Errorf("%s: %d bytes, not those that were sent", s.Path, len(s.Got))
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
	c := h2test.Dial(t, serve(t, h, 0), 65535, 65535, 0)
	id := get(c, "/w")
	c.Until("the answer", c.Pay, func() bool { return c.Streams[id].Ended })
	if !is(c.Streams[id], h.body("/w")) || h.past.Load() > 0 {
		t.Errorf("%d bytes, %d lines past net/http", len(c.Streams[id].Got), h.past.Load())
	}
}

// TestStalled: a stream without a window waits alone, and can be ended.
func TestStalled(t *testing.T) {
	owned := make(chan *lane.Stream, 10)
	h := &watches{lines: 60, own: func(s *lane.Stream) { owned <- s }}
	c := h2test.Dial(t, serve(t, h, 0), 65535, 8<<20, 0)
	stalled := get(c, "/w1")
	c.Until("the window's end", nil, func() bool { return c.Streams[stalled].Window == 0 })
	other := get(c, "/w2")
	c.Until("the other's end", func() { c.PayStream(other) }, func() bool { return c.Streams[other].Ended })
	if !is(c.Streams[other], h.body("/w2")) {
		t.Error("the other answer is not what was sent")
	}
	if c.Streams[stalled].Ended {
		t.Fatal("it did not wait")
	}
	(<-owned).End()
	c.Until("the stalled stream's end", nil, func() bool { return c.Streams[stalled].Ended })
	if err, _ := h.ended.Load("/w1"); !errors.Is(err.(error), lane.ErrEnded) {
		t.Errorf("the stalled write: %v", err)
	}
}

// TestIllegalUpdates: what HTTP/2 forbids reaches net/http, which punishes it.
func TestIllegalUpdates(t *testing.T) {
	zero := func(c *h2test.Client, id uint32) {
		c.Must(c.Framer.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4)))
	}
	h := &watches{lines: 60}
	c := h2test.Dial(t, serve(t, h, 0), 65535, 8<<20, 0)
	id := get(c, "/w1")
	c.Until("the window's end", nil, func() bool { return c.Streams[id].Window == 0 })
	if h.past.Load() == 0 {
		t.Fatal("nothing went past net/http")
	}
	zero(c, id)
	c.Until("the stream's end", nil, func() bool { return c.Streams[id].Reset == http2.ErrCodeProtocol })
	c.Until("the handler's end", nil, func() bool { _, ok := h.ended.Load("/w1"); return ok })
	zero(c, 0)
	c.Until("the connection's end", nil, func() bool { return c.Away })
}

// TestReset: a Write that waits ends when the client no longer wants its stream.
func TestReset(t *testing.T) {
	h := &watches{lines: 60}
	c := h2test.Dial(t, serve(t, h, 0), 65535, 8<<20, 0)
	id := get(c, "/w1")
	c.Until("the window's end", nil, func() bool { return c.Streams[id].Window == 0 })
	c.Must(c.Framer.WriteRSTStream(id, http2.ErrCodeCancel))
	c.Until("the handler's end", nil, func() bool { _, ok := h.ended.Load("/w1"); return ok })
}

// TestConnectionEnds: a Write that waits ends with its connection.
func TestConnectionEnds(t *testing.T) {
	h := &watches{lines: 60}
	c := h2test.Dial(t, serve(t, h, 0), 65535, 8<<20, 0)
	id := get(c, "/w1")
	c.Until("the window's end", nil, func() bool { return c.Streams[id].Window == 0 })
	c.Must(c.Framer.WriteGoAway(0, http2.ErrCodeNo, nil))
	c.Must(c.Framer.WriteRawFrame(http2.FrameSettings, 0, 1, nil)) // a connection error
	c.Until("the handler's end", nil, func() bool { _, ok := h.ended.Load("/w1"); return ok })
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
	if _, err := conn.Write([]byte("GET /w HTTP/1.0\r\n\r\n")); err != nil {
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
