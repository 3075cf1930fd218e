package direct_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	"github.com/keelson-io/keelson/server/direct"
	"github.com/keelson-io/keelson/server/h2test"
)

func (s *served) stream(name string) grpc.StreamDesc {
	return grpc.StreamDesc{StreamName: name, ServerStreams: true, ClientStreams: true, Handler: func(_ any, ss grpc.ServerStream) error {
		s.passed.Add(1)
		return s.echo(ss)
	}}
}

func (s *served) serve(ss *direct.Stream) error {
	if ss.Method != 1 {
		s.t.Errorf("method %d", ss.Method)
	}
	s.mu.Lock()
	s.open[ss.Conn()] = ss.Conn()
	s.mu.Unlock()
	s.taken.Add(1)
	return s.echo(ss)
}

// echo answers each message of a stream as it says.
func (s *served) echo(ss grpc.ServerStream) error {
	defer func() {
		if errors.Is(ss.Context().Err(), context.DeadlineExceeded) {
			s.late.Add(1)
		}
		s.left.Add(1)
	}()
	for {
		var req []byte
		if err := ss.RecvMsg(&req); err != nil {
			return nil // grpc-go says by itself what is wrong
		}
		body, how, err := does(req)
		switch how {
		case "fail":
			ss.SetTrailer(metadata.Pairs("why", why))
			return err
		case "done":
			ss.SetTrailer(metadata.Pairs("why", "not"))
			return nil
		case "head":
			_ = ss.SetHeader(metadata.Pairs("tip", "a"))
			err = ss.SendHeader(metadata.Pairs("top", "b"))
			if late := ss.SetHeader(metadata.Pairs("late", "c")); late == nil {
				s.t.Error("a header was set that nobody gets")
			}
		case "odd":
			err = ss.SendMsg(7)
		case "tell":
			err = ss.SendMsg(told(ss.Context()))
		case "wait":
			<-ss.Context().Done()
			return errors.New("nobody hears this")
		case "linger":
			s.lingers.Add(1)
			<-s.release
			return nil
		case "gather":
			err = gathered(ss, body)
		default:
			err = ss.SendMsg(s.pieces(body))
		}
		if err != nil {
			return err
		}
	}
}

// pieces are in several buffers, which come back.
func (s *served) pieces(body []byte) mem.BufferSlice {
	return (&owner{s: s, body: body}).Answer().Message
}

// gathered sends each byte by itself, and all of them at once.
func gathered(ss grpc.ServerStream, body []byte) error {
	if d, ok := ss.(*direct.Stream); ok {
		d.Gather()
		defer d.Send()
	}
	for i := range body {
		if err := ss.SendMsg(body[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// TestStreamsSameAsGRPC: whatever comes on a stream, grpc-go would say the same.
func TestStreamsSameAsGRPC(t *testing.T) {
	ok := message("5 now 1")
	twice := append(bytes.Clone(ok), message("70000 now 2")...)
	plain := with()
	for _, test := range []request{
		{"two messages", plain, twice, true, false},
		{"two messages, open", plain, twice, true, true},
		{"no message", plain, nil, true, false},
		{"an empty one", plain, message(""), true, false},
		{"failing", plain, message("5 fail 1"), true, false},
		{"failing later", plain, append(bytes.Clone(twice), message("5 fail 1")...), true, false},
		{"failing, open", plain, append(bytes.Clone(ok), message("5 fail 1")...), true, true},
		{"ending", plain, append(bytes.Clone(ok), message("5 done 1")...), true, true},
		{"ending at once", plain, message("5 done 1"), true, true},
		{"header", plain, append(message("5 head 1"), ok...), true, false},
		{"header alone", plain, message("5 head 1"), true, false},
		{"header too late", plain, append(bytes.Clone(ok), message("5 head 1")...), true, false},
		{"half a prefix", plain, ok[:3], true, false},
		{"half a message", plain, ok[:8], true, false},
		{"half of the second", plain, twice[:len(ok)+9], true, false},
		{"compressed", plain, append([]byte{1}, ok[1:]...), true, true},
		{"another format", plain, append([]byte{2}, ok[1:]...), true, true},
		{"too long", plain, []byte{0, 0, 32, 0, 1}, true, true},
		{"too long, second", plain, append(bytes.Clone(ok), 0, 0, 32, 0, 1), true, true},
		{"not readable", plain, message("odd"), true, true},
		{"not writable", plain, message("5 odd 1"), true, true},
		{"many small ones", plain, message("3000 gather 1"), true, false},
		{"metadata", with("token", "abc"), message("5 tell 1"), true, false},
		{"timeout", with("grpc-timeout", "10S"), ok, true, false},
		{"gzip", with("grpc-encoding", "gzip"), ok, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, 0, 1000)
			c := h2test.Dial(t, s.addr, 1<<20, 1<<20, 0)
			var got [2]*h2test.Stream
			for i, path := range []string{takenStream, passedStream} {
				id := c.Open(false, test.fields(path)...)
				c.Must(c.Framer.WriteData(id, !test.open, test.body))
				got[i] = c.Streams[id]
				want := test.open && strings.HasPrefix(test.name, "two")
				c.Until("the answers", nil, func() bool { return got[i].Ended || want && len(got[i].Got) == 70015 })
				c.Sync()
				if want && got[i].Ended {
					t.Error("it has ended")
				}
			}
			ours, theirs := got[0], got[1]
			delete(theirs.Header, "grpc-accept-encoding")
			if fmt.Sprint(ours.Header) != fmt.Sprint(theirs.Header) || !bytes.Equal(ours.Got, theirs.Got) || test.taken && ours.Cut != theirs.Cut || ours.Reset != theirs.Reset {
				t.Errorf("got  %v %d bytes %v %v\nwant %v %d bytes %v %v", ours.Header, len(ours.Got), ours.Cut, ours.Reset, theirs.Header, len(theirs.Got), theirs.Cut, theirs.Reset)
			}
			if s.taken.Load() > 0 != test.taken {
				t.Errorf("taken: %d", s.taken.Load())
			}
		})
	}
}

// TestStreamBackpressure: of what a client does not read, no more waits than is allowed, and whoever
// waits for it hears when it leaves.
func TestStreamBackpressure(t *testing.T) {
	for _, leave := range []string{"reset", "close"} {
		s := start(t, 0, 1000)
		c := h2test.Dial(t, s.addr, 0, 1<<20, 0)
		id := c.Open(false, fields(takenStream)...)
		other := c.Open(false, fields(takenStream)...)
		c.Until("the streams", nil, func() bool { return s.taken.Load() == 2 })
		long := message(fmt.Sprint(direct.StreamBytes/8, " now 1"))
		for range 100 {
			c.Must(c.Framer.WriteData(id, false, long))
		}
		var waits, most int
		c.Until("a full queue", nil, func() bool {
			s.conns(t, func(conn *direct.Conn) { waits = conn.Waiting(id) })
			most = max(most, waits)
			return waits >= direct.StreamBytes
		})
		c.Grant(id, 1000)
		c.Until("something", nil, func() bool { return len(c.Streams[id].Got) == 1000 })
		c.Sync()
		s.conns(t, func(conn *direct.Conn) { most = max(most, conn.Waiting(id)) })
		if limit := direct.StreamBytes + direct.StreamBytes/8 + 5; most > limit {
			t.Errorf("%d bytes wait; %d are the most", most, limit)
		}
		c.Grant(other, 1000)
		c.Must(c.Framer.WriteData(other, true, message("5 now 2"))) // the first one is in nobody's way
		c.Until("another answer", nil, func() bool { return c.Streams[other].Ended })
		if leave == "reset" {
			c.Must(c.Framer.WriteRSTStream(id, http2.ErrCodeCancel))
		} else {
			c.Away = true
			c.Conn.Close()
		}
		await(t, "the handlers' end", func() bool { return s.left.Load() == 2 })
		await(t, "all buffers", func() bool { return s.lent.Load() == 0 })
	}
}

// TestStreamRequests: a client may send a window's worth that nobody receives, as much as a message
// needs, and again what was received; who sends more is cut off.
func TestStreamRequests(t *testing.T) {
	for _, own := range []int{65535, 1 << 20} { // grpc-go's settings may allow more
		s := start(t, 0, 1000, grpc.InitialWindowSize(int32(own)))
		c := h2test.Dial(t, s.addr, 1<<20, 1<<20, 0)
		c.Sync() // behind the settings
		usual := 65535
		used := 0 // of the connection's window
		write := func(id uint32, p []byte, padding int) {
			n := len(p)
			if padding > 0 {
				n += padding + 1
			}
			if used += n; usual+int(c.Granted)-used < 0 {
				c.Until("room", nil, func() bool { return usual+int(c.Granted)-used >= 0 })
			}
			if padding > 0 {
				c.Must(c.Framer.WriteDataPadded(id, false, p, make([]byte, padding)))
				return
			}
			c.Must(c.Framer.WriteData(id, false, p))
		}
		const frame = 1000
		stuck := c.Open(false, fields(takenStream)...)
		write(stuck, message("5 wait 1"), 0)
		for left := own - 13; left > 0; left -= frame {
			write(stuck, make([]byte, min(left, frame)), 0)
		}
		busy := c.Open(false, fields(takenStream)...)
		st := c.Streams[busy]
		rng := rand.New(rand.NewPCG(1, 2))
		var want []byte
		sent := 0
		for i := range 40 {
			text := fmt.Sprint(i, " now ", strings.Repeat("x", []int{3, 3000, 200_000}[rng.IntN(3)]))
			body, _, _ := does([]byte(text))
			want = append(want, message(string(body))...)
			for b := message(text); len(b) > 0; {
				room := func() int { return own + int(st.Granted) - sent }
				c.Until("room", nil, func() bool { return room() > 0 }) // for a byte: who needs more is sent that much
				n := min(len(b), 1+rng.IntN(frame), room())
				padding, whole := 0, n
				if more := rng.IntN(3) * 50; more > 0 && room() > n+more {
					padding, whole = more, n+more+1
				}
				write(busy, b[:n], padding)
				sent, b = sent+whole, b[n:]
			}
		}
		c.Until("the answers", nil, func() bool { return len(st.Got) == len(want) })
		if !bytes.Equal(st.Got, want) {
			t.Error("not the answers that were asked for")
		}
		if most := own + 200_000; own+int(st.Granted)-sent > most {
			t.Errorf("the client may send %d bytes more; %d are enough", own+int(st.Granted)-sent, most)
		}
		if c.Streams[stuck].Ended || c.Streams[stuck].Granted > 0 {
			t.Errorf("what nobody receives: %+v", c.Streams[stuck])
		}
		write(stuck, []byte{1}, 0)
		c.Until("the end", nil, func() bool { return c.Streams[stuck].Ended })
		if c.Streams[stuck].Reset != http2.ErrCodeFlowControl {
			t.Errorf("it was ended with %v", c.Streams[stuck].Reset)
		}
		await(t, "its handler's end", func() bool { return s.left.Load() == 1 })
	}
}

// TestStreamTimeout: when the time that a client has set is over, its stream is reset, whatever
// the handler says then, or does not.
func TestStreamTimeout(t *testing.T) {
	s := start(t, 0, 1000)
	c := h2test.Dial(t, s.addr, 65535, 65535, 0)
	for _, text := range []string{"5 wait 1", "5 now 1", "5 linger 1"} { // until its time is over, to receive, or for something else
		id := c.Open(false, fields(takenStream, "grpc-timeout", "20m")...)
		c.Must(c.Framer.WriteData(id, false, message(text)))
		c.Until("the end", nil, func() bool { return c.Streams[id].Ended })
		if st := c.Streams[id]; st.Reset != http2.ErrCodeCancel || st.Header["grpc-status"] != "" {
			t.Errorf("%s: %v", text, st)
		}
	}
	close(s.release)
	await(t, "the handlers' end", func() bool { return s.left.Load() == 3 })
	if n := s.late.Load(); n != 3 {
		t.Errorf("%d of 3 handlers have heard why", n)
	}
}

// TestGathered: what is sent between Gather and Send goes with one write, or with those of others.
func TestGathered(t *testing.T) {
	s := start(t, 0, 1000)
	c := h2test.Dial(t, s.addr, 1<<20, 1<<20, 0)
	for _, n := range []int{5000, 30_000} { // with prefixes, more than may wait
		id := c.Open(false, fields(takenStream)...)
		c.Sync()
		before := s.writes.Load()
		c.Must(c.Framer.WriteData(id, false, message(fmt.Sprint(n, " gather 1"))))
		c.Until("all", nil, func() bool { return len(c.Streams[id].Got) == 6*n })
		if writes, most := s.writes.Load()-before, int64(5+6*n/direct.StreamBytes*2); writes > most {
			t.Errorf("%d messages took %d writes; %d are enough", n, writes, most)
		}
	}
}

// TestDrainStreams: a server that stops waits for streams, too, and for their handlers.
func TestDrainStreams(t *testing.T) {
	s := start(t, 0, 1000)
	c := h2test.Dial(t, s.addr, 65535, 65535, 0)
	id := c.Open(false, fields(takenStream)...)
	c.Until("the stream", nil, func() bool { return s.taken.Load() > 0 })
	drained := s.draining(c, takenStream)
	c.Must(c.Framer.WriteData(id, true, message("5 now 1")))
	c.Until("the answer", nil, func() bool { return c.Streams[id].Ended })
	<-drained
	if !is(c.Streams[id], "5 now 1") {
		t.Errorf("%v", c.Streams[id])
	}
}

// TestWaitStreams: handlers end after their clients have left, and somebody waits for them.
func TestWaitStreams(t *testing.T) {
	s := start(t, 0, 1000)
	c := h2test.Dial(t, s.addr, 65535, 65535, 0)
	id := c.Open(false, fields(takenStream)...)
	c.Must(c.Framer.WriteData(id, false, message("5 linger 1")))
	c.Until("the handler", nil, func() bool { return s.lingers.Load() > 0 })
	c.Must(c.Framer.WriteRSTStream(id, http2.ErrCodeCancel))
	waited := make(chan struct{})
	go func() { s.l.Wait(); close(waited) }()
	c.Sync()
	select {
	case <-waited:
		t.Error("nobody waits for the handler")
	default:
	}
	close(s.release)
	<-waited
}
