package direct_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/keelson-io/keelson/server/direct"
	"github.com/keelson-io/keelson/server/h2test"
)

// TestPings: the pings that answers cause are nobody's fault; others are, as with grpc-go alone.
func TestPings(t *testing.T) {
	const many = 20
	ping := func(c *h2test.Client) {
		n := c.Pongs
		c.Must(c.Framer.WritePing(false, [8]byte{1}))
		c.Until("a pong", nil, func() bool { return c.Pongs > n || c.Away })
	}
	t.Run("after answers", func(t *testing.T) {
		c := h2test.Dial(t, start(t, 0, 1000).addr, 65535, 65535, 0)
		for range many {
			id := call(c, taken, "5 now 1")
			c.Until("the answer", nil, func() bool { return c.Streams[id].Ended })
			ping(c)
		}
		if c.Away {
			t.Error("the server sent a GOAWAY")
		}
	})
	t.Run("of one that waits", func(t *testing.T) {
		s := start(t, 0, 1000)
		c := h2test.Dial(t, s.addr, 65535, 65535, 0)
		call(c, taken, "5 wait 1")
		s.find(t, c, "5 wait 1")
		for range many {
			ping(c)
			s.now.Add(int64(pingMin / time.Second))
		}
		if c.Away {
			t.Error("the server sent a GOAWAY")
		}
	})
	t.Run("with no call", func(t *testing.T) {
		c := h2test.Dial(t, start(t, 0, 1000).addr, 65535, 65535, 0)
		id := call(c, taken, "5 now 1")
		c.Until("the answer", nil, func() bool { return c.Streams[id].Ended })
		for n := 0; n < many && !c.Away; n++ {
			ping(c)
		}
		if !c.Away {
			t.Error("the server let them pass")
		}
	})
	t.Run("too many", func(t *testing.T) {
		s := start(t, 0, 1000)
		c := h2test.Dial(t, s.addr, 65535, 65535, 0)
		id := call(c, taken, "5 wait 1")
		s.find(t, c, "5 wait 1")
		for range many {
			if ping(c); c.Away {
				break
			}
		}
		if !c.Away || c.Last < id {
			t.Errorf("GOAWAY: %v, which names stream %d as seen; %d is", c.Away, c.Last, id)
		}
	})
}

// TestPongTravels: clients of gRPC's grant something with each ping, and a pong waits for an answer
// all the same.
func TestPongTravels(t *testing.T) {
	s := start(t, 0, 1000)
	s.l.KeepPongs()
	c := h2test.Dial(t, s.addr, 65535, 65535, 0)
	call(c, taken, "5 wait 1")
	s.find(t, c, "5 wait 1")
	for range 50 {
		n := c.Pongs
		c.Grant(0, 1)
		c.Must(c.Framer.WritePing(false, [8]byte{1}))
		c.Grant(0, 1)
		c.SetFirst(65535)
		c.Until("settings acknowledged", nil, func() bool { return len(c.Less) == 0 })
		if c.Pongs != n {
			t.Fatal("a pong came by itself")
		}
		id := call(c, taken, "5 now 1")
		c.Until("the answer", nil, func() bool { return c.Streams[id].Ended })
		if c.Pongs != n+1 {
			t.Fatalf("%d pongs have come with the answer", c.Pongs-n)
		}
	}
}

// TestHeld: what grpc-go sends because it does not know of answers waits, in order, and
// stops nothing else.
func TestHeld(t *testing.T) {
	s := start(t, 0, 1000)
	const window = 65535
	c := h2test.Dial(t, s.addr, 1<<20, window, 0)
	id := call(c, taken, "60000 now 1")
	c.Until("the answer", nil, func() bool { return c.Streams[id].Ended })
	long := call(c, passed, "40000 now 1")
	after := call(c, passed, "0 fail 2")
	c.Until("both calls", nil, func() bool { return s.passed.Load() == 2 })
	for range 3 { // grpc-go has written what it could: it answers pings after that
		c.Sync()
	}
	if got := len(c.Streams[long].Got); got > window-60_000 {
		t.Errorf("%d bytes came", got)
	}
	c.SetFirst(1000) // what says that the server knows comes behind what was sent before
	next := call(c, taken, "0 fail 3")
	c.Until("the refusal", nil, func() bool { return c.Streams[next].Ended })
	c.Until("the settings", c.Pay, func() bool { return len(c.Less) == 0 })
	if got := len(c.Streams[long].Got); got != 40_005 {
		t.Errorf("the settings have overtaken what was held: %d bytes came", got)
	}
	c.SetFirst(1 << 20)
	c.Until("the rest", c.Pay, func() bool { return c.Streams[long].Ended && c.Streams[after].Ended })
	if !is(c.Streams[long], "40000 now 1") || !is(c.Streams[after], "0 fail 2") || !is(c.Streams[next], "0 fail 3") {
		t.Error("not the answers that were asked for")
	}
	last := call(c, passed, "200000 now 4") // its books are right again
	c.Until("one more", c.Pay, func() bool { return c.Streams[last].Ended })
	if !is(c.Streams[last], "200000 now 4") {
		t.Error("not the last answer")
	}
	c.Pay()
	c.Sync()
	s.conns(t, func(conn *direct.Conn) {
		if got, debt, held := conn.Books(); got != window || debt != 0 || held != 0 {
			t.Errorf("in the end: window %d, debt %d, %d bytes held", got, debt, held)
		}
	})
	owed := call(c, taken, "500 now 5")
	c.Until("an answer", nil, func() bool { return c.Streams[owed].Ended })
	s.conns(t, func(conn *direct.Conn) {
		if got, debt, _ := conn.Books(); got != window-505 || debt != 505 {
			t.Errorf("after an answer of 505 bytes: window %d, debt %d", got, debt)
		}
	})
}

// TestHeldLong: what was held goes on once there is room for all of it, without another word of
// the client's.
func TestHeldLong(t *testing.T) {
	s := start(t, 0, 1000)
	c := h2test.Dial(t, s.addr, 1<<24, 1_100_000, 0)
	id := call(c, taken, "1080000 now 1")
	c.Until("the answer", nil, func() bool { return c.Streams[id].Ended })
	long := call(c, passed, "1000000 now 1")
	c.Until("what there is room for", nil, func() bool { return len(c.Streams[long].Got) > 0 })
	c.Until("grpc-go to wait", nil, func() (waits bool) {
		s.conns(t, func(conn *direct.Conn) {
			_, _, held := conn.Books()
			waits = held > 256<<10
		})
		return waits
	})
	c.Pay()
	c.Until("the rest", nil, func() bool { return c.Streams[long].Ended })
	if !is(c.Streams[long], "1000000 now 1") {
		t.Error("not the answer that was asked for")
	}
}

// TestLongAnswer: one whose windows allow all of it goes on by itself.
func TestLongAnswer(t *testing.T) {
	for _, tear := range []int{0, smallTear} {
		s := start(t, tear, 1000)
		c := h2test.Dial(t, s.addr, 1<<24, 1<<24, 0)
		for _, path := range []string{taken, passed} {
			id := call(c, path, "3000000 now 1")
			c.Until("the answer", nil, func() bool { return c.Streams[id].Ended })
			if !is(c.Streams[id], "3000000 now 1") {
				t.Errorf("%s: %d bytes", path, len(c.Streams[id].Got))
			}
		}
		c.Until("all buffers", nil, func() bool { return s.lent.Load() == 0 })
		if n := s.vectors.Load(); (n > 0) != (tear == 0) {
			t.Errorf("%d writes of several buffers", n)
		}
		if n := s.most.Load(); n > 1200<<10 {
			t.Errorf("a write of %d bytes keeps others waiting", n)
		}
	}
}

// TestMetadata: each call has its own.
func TestMetadata(t *testing.T) {
	s := start(t, 0, 1000)
	c := h2test.Dial(t, s.addr, 65535, 65535, 0)
	for i, more := range [][]string{{"token", "a"}, {"token", "a"}, {"token", "b"}, {"tokem", "b"}, {}, {"token", "a", "token", "b"}, {"token", "a", "grpc-timeout", "3S"}, {"grpc-timeout", "3S", "token", "c"}} {
		var got [2]string
		for j, path := range []string{taken, passed} {
			id := c.Open(false, fields(path, more...)...)
			c.Must(c.Framer.WriteData(id, true, message("0 tell 1")))
			c.Until("the answer", nil, func() bool { return c.Streams[id].Ended })
			got[j] = string(c.Streams[id].Got)
		}
		if got[0] != got[1] || len(got[0]) < 5 {
			t.Errorf("call %d: %q, grpc-go says %q", i, got[0], got[1])
		}
	}
}

// TestLeave: the owner of a call hears when its client has left, once, and its answer goes nowhere.
func TestLeave(t *testing.T) {
	s := start(t, 0, 1000)
	c := h2test.Dial(t, s.addr, 65535, 65535, 0)
	first := call(c, taken, "5 wait 1")
	call(c, taken, "5 wait 2")
	one, two := s.find(t, c, "5 wait 1"), s.find(t, c, "5 wait 2")
	c.Must(c.Framer.WriteRSTStream(first, http2.ErrCodeCancel))
	<-one.gone
	one.call.Done()
	id := call(c, taken, "7 now 3")
	c.Until("another answer", nil, func() bool { return c.Streams[id].Ended })
	if len(c.Streams[first].Got) > 0 || two.left.Load() {
		t.Error("the first was answered, or the second left")
	}
	c.Conn.Close()
	<-two.gone
	third := h2test.Dial(t, s.addr, 65535, 65535, 0)
	third.Away = true
	call(third, taken, "5 close 4") // before it has an owner
	<-s.find(t, third, "5 close 4").gone
	two.call.Done()
	await(t, "the questions for answers", func() bool { return one.told.Load()+two.told.Load() == 2 })
}

// TestEndsWithinFrame: a connection that ends in the middle of a frame of grpc-go's asks for the
// answers, too: their owners account for them.
func TestEndsWithinFrame(t *testing.T) {
	near, far := net.Pipe()
	s := &served{t: t, waiting: map[string]*owner{}, open: map[*direct.Conn]*direct.Conn{}}
	l := s.listen(oneConn{far, make(chan struct{})}, 10)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { _, err := io.Copy(io.Discard, conn); ended <- err }()
	go func() { _, err := io.Copy(io.Discard, near); ended <- err }()
	fr := http2.NewFramer(near, nil)
	_, err = near.Write([]byte(http2.ClientPreface))
	err = errors.Join(err, fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: firstBlock(fields(taken)), EndHeaders: true}), fr.WriteData(1, true, message("5 wait 1")))
	if err != nil {
		t.Fatal(err)
	}
	var o *owner
	await(t, "the call", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		o = s.waiting["5 wait 1"]
		return o != nil
	})
	if _, err := conn.Write([]byte{0, 0, 10, byte(http2.FrameData), 0, 0, 0, 0, 3, 'x'}); err != nil {
		t.Fatal(err)
	}
	near.Close()
	<-o.gone
	o.call.Done()
	await(t, "the question", func() bool { return o.told.Load() == 1 })
	<-ended
	<-ended
}

// TestHeldWithinFrame: a frame that has begun goes on although too much is held, which waits for
// its end.
func TestHeldWithinFrame(t *testing.T) {
	near, far := net.Pipe()
	s := &served{t: t}
	conn, err := s.listen(oneConn{far, make(chan struct{})}, 10).Accept()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, near); ended <- err }()
	const frame = 16 << 10
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	for b.Len() < 400<<10 { // the window is a part of that
		_ = fr.WriteData(1, false, make([]byte, frame))
	}
	_ = fr.WritePing(false, [8]byte{})
	all := b.Bytes()
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(all[:len(all)-4]) // the ping has begun
		if err == nil {
			_, err = conn.Write(all[len(all)-4:])
		}
		wrote <- err
	}()
	select {
	case err := <-wrote:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the rest of the frame waits")
	}
	conn.Close()
	<-ended
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// draining lets grpc-go have what comes, and waits until that is so. What was taken before goes on.
func (s *served) draining(c *h2test.Client, path string) (drained <-chan struct{}) {
	s.t.Helper()
	done := make(chan struct{})
	go func() { s.l.Drain(); close(done) }()
	c.Until("grpc-go's turn", func() { call(c, path, "5 now 2") }, func() bool { return s.passed.Load() > 0 })
	select {
	case <-done:
		s.t.Fatal("it did not wait")
	default:
	}
	return done
}

// TestDrain: a server that stops finishes what it has taken, and takes nothing more.
func TestDrain(t *testing.T) {
	s := start(t, 0, 1000)
	c := h2test.Dial(t, s.addr, 65535, 65535, 0)
	id := call(c, taken, "5 wait 1")
	o := s.find(t, c, "5 wait 1")
	idle := h2test.Dial(t, s.addr, 65535, 65535, 0)
	other := call(idle, taken, "5 now 1")
	idle.Until("the answer", nil, func() bool { return idle.Streams[other].Ended })
	drained := s.draining(c, taken)
	o.call.Done()
	c.Until("the answer", nil, func() bool { return c.Streams[id].Ended })
	<-drained
	late := h2test.Dial(t, s.addr, 65535, 65535, 0)
	before := s.taken.Load()
	other = call(late, taken, "5 now 1")
	late.Until("the answer", nil, func() bool { return late.Streams[other].Ended })
	late.Conn.Close()
	if s.taken.Load() != before {
		t.Error("a new connection's call was taken")
	}
	if !is(c.Streams[id], "5 wait 1") {
		t.Errorf("%v", c.Streams[id])
	}
	go s.grpc.GracefulStop()
	c.Until("the end", nil, func() bool { return c.Closed })
}

// TestMostStreams: a connection has so many calls at most.
func TestMostStreams(t *testing.T) {
	s := start(t, 0, 2)
	c := h2test.Dial(t, s.addr, 65535, 65535, 0)
	for i := range 2 {
		call(c, taken, fmt.Sprintf("5 wait %d", i))
	}
	id := call(c, taken, "5 now 3")
	c.Until("the refusal", nil, func() bool { return c.Streams[id].Ended })
	if c.Streams[id].Reset != http2.ErrCodeRefusedStream {
		t.Errorf("%v", c.Streams[id])
	}
}

// TestTooLong: a connection ends, as grpc-go's do, at a frame or a field that is longer than the server takes,
// and at a block of headers before the rest of it has come.
func TestTooLong(t *testing.T) {
	const most = 16 << 10 // of a frame
	for name, send := range map[string]func(c *h2test.Client) error{
		"frame": func(c *h2test.Client) error {
			return c.Framer.WriteData(c.Open(false, fields(taken)...), true, make([]byte, most+1))
		},
		"field": func(c *h2test.Client) error {
			block := c.Block(fields(taken, "token", strings.Repeat("~", mostHeaders+1))...)
			return c.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true})
		},
		"block": func(c *h2test.Client) error {
			block := c.Block(fields(taken, "token", strings.Repeat("~", 4*most))...)
			err := c.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:most]})
			return errors.Join(err, c.Framer.WriteContinuation(1, false, block[most:2*most]))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := h2test.Dial(t, start(t, 0, 1000).addr, 65535, 65535, 0)
			c.Away = true // it need not be told why
			c.Must(send(c))
			c.Until("the end", nil, func() bool { return c.Closed })
		})
	}
}

// TestSmallTable: who has no room for a table of headers is served by grpc-go, which says so.
func TestSmallTable(t *testing.T) {
	s := start(t, 0, 1000)
	c := h2test.Dial(t, s.addr, 65535, 65535, 0)
	c.Must(c.Framer.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}))
	c.Less = append(c.Less, 0)
	id := call(c, taken, "5 now 1")
	c.Until("the answer", nil, func() bool { return c.Streams[id].Ended })
	if !is(c.Streams[id], "5 now 1") || s.taken.Load() > 0 {
		t.Errorf("%v, %d taken", c.Streams[id], s.taken.Load())
	}
}

// TestReadsNothing: a client that causes short frames and reads none is cut off.
func TestReadsNothing(t *testing.T) {
	s := start(t, 0, 2)
	c := h2test.Dial(t, s.addr, 1<<30, 1<<30, 0)
	call(c, taken, "5 wait 1")
	o := s.find(t, c, "5 wait 1")
	call(c, taken, "30000000 now 1")
	for { // each of these is refused
		block := c.Block(fields(taken)...)
		if c.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.Stream(taken), BlockFragment: block, EndHeaders: true}) != nil {
			break
		}
	}
	<-o.gone
}
