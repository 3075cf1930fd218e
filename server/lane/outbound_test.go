package lane

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

// sink keeps what is written.
type sink struct {
	net.Conn
	bytes.Buffer
}

func (s *sink) Read(p []byte) (int, error)  { return 0, io.EOF }
func (s *sink) Write(p []byte) (int, error) { return s.Buffer.Write(p) }
func (s *sink) Close() error                { return nil }

func frame(kind, flags byte, id uint32, payload string) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, id), payload...)
}

// taken is a connection with a stream that was taken over.
func taken(conn net.Conn) (*Conn, *Stream) {
	c := New(conn)
	s := &Stream{conn: c, id: 3, window: 1000, taken: true}
	c.mu.speaks, c.mu.lane, c.mu.streams[3] = true, 1000, s
	return c, s
}

// TestWithinAFrame: what comes while the server is within a frame, or within a header block,
// comes right behind that.
func TestWithinAFrame(t *testing.T) {
	own := frame(frameData, 0, 3, "event")
	for name, whole := range map[string][]byte{
		"data":    frame(frameData, 0, 1, "abc"),
		"headers": append(frame(frameHeaders, 0, 1, "abc"), frame(frameContinuation, flagEndHeaders, 1, "def")...),
	} {
		for i := 2; i < 2*len(whole); i++ {
			cut, end := i/2, []byte{}
			if i%2 == 1 {
				end = frame(frameData, flagEndStream, 3, "") // of the stream: nothing may follow it there
			}
			to := &sink{}
			c, s := taken(to)
			if _, err := c.Write(whole[:cut]); err != nil {
				t.Fatal(err)
			}
			if err := s.Write([]byte("event")); err != nil {
				t.Fatal(err)
			}
			for began := time.Now(); ; time.Sleep(time.Millisecond) {
				c.mu.Lock()
				flushing := c.mu.flushing
				c.mu.Unlock()
				if !flushing {
					break
				}
				if time.Since(began) > time.Minute {
					t.Fatal("the flush does not end")
				}
			}
			if _, err := c.Write(append(whole[cut:len(whole):len(whole)], end...)); err != nil {
				t.Fatal(err)
			}
			if want := slices.Concat(whole, own, end); !bytes.Equal(to.Bytes(), want) {
				t.Fatalf("%s cut at %d: %q, want %q", name, cut, to.Bytes(), want)
			}
		}
	}
}

// script is a connection on which all of a text comes, so many bytes at a time.
type script struct {
	sink
	in []byte
	at int
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.in[:min(s.at, len(s.in))])
	s.in = s.in[n:]
	return n, nil
}

// FuzzFrames: however what comes and what goes is cut, it means the same; what comes passes but
// for what is the lane's; no grant is lost or made up.
func FuzzFrames(f *testing.F) {
	window := func(id, n uint32) []byte {
		return frame(frameWindow, 0, id, string(binary.BigEndian.AppendUint32(nil, n)))
	}
	for _, seed := range [][]byte{
		window(3, 100), window(0, 1<<30), window(0, 0), window(3, maxWindow), window(5, 7), frame(frameReset, 0, 3, "code"),
		frame(frameSettings, 0, 0, "\x00\x04\x00\x00\x10\x00"), frame(frameHeaders, flagEndHeaders, 3, "abc"), frame(frameData, flagEndStream, 3, "abc"),
	} {
		f.Add(append(append([]byte(preface), seed...), window(3, 1)...), uint8(1))
		f.Add(append([]byte(preface), seed...), uint8(10))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint8(3))
	f.Fuzz(func(t *testing.T, text []byte, at uint8) {
		type end struct{ window, passed, server, lane, initial int64 }
		run := func(at int) (passed []byte, e end) {
			c, s := taken(&script{in: bytes.Clone(text), at: at})
			passed, _ = io.ReadAll(c)
			for rest := text; len(rest) > 0; rest = rest[min(at, len(rest)):] {
				if piece := rest[:min(at, len(rest))]; c.follow(piece) != len(piece) {
					t.Fatal("nothing waits, but not all may be written")
				}
			}
			return passed, end{s.window, s.passed, c.mu.server, c.mu.lane, c.mu.initial}
		}
		whole, one := run(len(text) + 1)
		cut, two := run(1 + int(at))
		if !bytes.Equal(whole, cut) || one != two {
			t.Fatalf("cut at %d: %q %+v, whole: %q %+v", at, cut, two, whole, one)
		}
		if len(whole) > len(text) || one.lane > laneShare {
			t.Fatalf("%d bytes passed of %d, the lane has %d", len(whole), len(text), one.lane)
		}
		c, _ := taken(&script{in: bytes.Clone(text), at: len(text) + 1})
		io.ReadAll(c)
		if got := c.mu.server + c.mu.lane - windowBytes - 1000; got != granted(text) {
			t.Fatalf("%d granted to the connection, %d in the shares", granted(text), got)
		}
	})
}

// granted is what whole frames grant to the connection.
func granted(text []byte) (n int64) {
	rest, ok := bytes.CutPrefix(text, []byte(preface))
	for ok && len(rest) >= headerBytes {
		length := int(rest[0])<<16 | int(rest[1])<<8 | int(rest[2])
		if rest[3] == frameWindow && length == 4 && binary.BigEndian.Uint32(rest[5:])&maxWindow == 0 && len(rest) >= headerBytes+4 {
			n += int64(binary.BigEndian.Uint32(rest[headerBytes:]) & maxWindow)
		}
		rest = rest[min(len(rest), headerBytes+length):]
	}
	return n
}
