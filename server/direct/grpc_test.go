package direct_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/server/h2test"
)

// headersOf makes the headers of a call to a path.
type headersOf func(path string) []string

func with(more ...string) headersOf {
	return func(path string) []string { return fields(path, more...) }
}

// without leaves a field out, or gives it another value.
func without(name string, instead ...string) headersOf {
	return func(path string) (out []string) {
		all := fields(path)
		for i := 0; i < len(all); i += 2 {
			switch {
			case all[i] != name:
				out = append(out, all[i], all[i+1])
			case len(instead) > 0:
				out = append(out, name, instead[0])
			}
		}
		return out
	}
}

type request struct {
	name   string
	fields headersOf
	body   []byte
	taken  bool // by package direct
	open   bool // the client does not say that this is all
}

// asGRPC are requests, most of them wrong, and who answers them.
func asGRPC() []request {
	plain, ok := with(), message("5 now 1")
	return []request{
		{"plain", plain, ok, true, false},
		{"proto", without("content-type", "application/grpc+proto"), ok, true, false},
		{"proto, failing", without("content-type", "application/grpc+proto"), message("0 fail 1"), true, false},
		{"json", without("content-type", "application/grpc+json"), ok, false, false},
		{"metadata", with("token", "abc", "user-agent", "x/1", "grpc-accept-encoding", "gzip"), ok, true, false},
		{"timeout", with("grpc-timeout", "10S"), ok, true, false},
		{"empty", plain, message(""), true, false},
		{"open", plain, ok, true, true},
		{"open, failing", plain, message("0 fail 1"), true, true},
		{"no body", plain, nil, true, false},
		{"half a prefix", plain, ok[:3], true, false},
		{"half a message", plain, ok[:8], true, false},
		{"compressed", plain, append([]byte{1}, ok[1:]...), true, false},
		{"another format", plain, append([]byte{2}, ok[1:]...), true, false},
		{"too long", plain, []byte{0, 0, 32, 0, 1}, true, false},
		{"as long as may be, cut short", plain, []byte{0, 0, 32, 0, 0}, true, false},
		{"failing", plain, message("0 fail 1"), true, false},
		{"failing with details", plain, message("0 explain 1"), true, false},
		{"two messages", plain, append(bytes.Clone(ok), ok...), true, false},
		{"no time", with("grpc-timeout", "0S"), ok, false, false},
		{"bad timeout", with("grpc-timeout", "5X"), ok, false, false},
		{"long timeout", with("grpc-timeout", "123456789S"), ok, false, false},
		{"GET", without(":method", "GET"), ok, false, false},
		{"no authority", without(":authority"), ok, false, false},
		{"host", func(path string) []string { return append(without(":authority")(path), "host", "x") }, ok, false, false},
		{"connection", with("connection", "close"), ok, false, false},
		{"two authorities", with("host", "a", "host", "b"), ok, false, false},
		{"no content type", without("content-type"), ok, false, false},
		{"text", without("content-type", "text/plain"), ok, false, false},
		{"gzip", with("grpc-encoding", "gzip"), ok, false, false},
		{"binary", with("a-bin", "AAEC"), ok, false, false},
		{"bad binary", with("a-bin", "!"), ok, false, false},
		{"upper case", with("Token", "a"), ok, false, false},
		{"long", with("token", strings.Repeat("x", mostHeaders-2000), "more", strings.Repeat("y", 4000)), ok, false, false},
	}
}

// TestSameAsGRPC: what is wrong with a request gets the answer that grpc-go has for it.
func TestSameAsGRPC(t *testing.T) {
	for _, test := range asGRPC() {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, 0, 1000)
			c := h2test.Dial(t, s.addr, 65535, 65535, 0)
			var got [2]*h2test.Stream
			for i, path := range []string{taken, passed} {
				id := c.Open(false, test.fields(path)...)
				c.Must(c.Framer.WriteData(id, !test.open, test.body))
				got[i] = c.Streams[id]
				c.Until("the answer", nil, func() bool { return got[i].Ended })
				c.Sync()
			}
			ours, theirs := got[0], got[1]
			delete(theirs.Header, "grpc-accept-encoding")
			if fmt.Sprint(ours.Header) != fmt.Sprint(theirs.Header) || !bytes.Equal(ours.Got, theirs.Got) || ours.Cut != theirs.Cut || ours.Reset != theirs.Reset {
				t.Errorf("got  %v %q %v\nwant %v %q %v", ours.Header, ours.Got, ours.Reset, theirs.Header, theirs.Got, theirs.Reset)
			}
			whole := len(ours.Got) > 0 || ours.Header["why"] != ""
			if whole && s.taken.Load() > 0 != test.taken {
				t.Errorf("taken: %d", s.taken.Load())
			}
		})
	}
}

// FuzzFrames: whatever a client sends, nothing panics, every call ends, and the connection does.
func FuzzFrames(f *testing.F) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: firstBlock(fields(taken)), EndHeaders: true})
	_ = fr.WriteData(1, true, message("300 later 1"))
	_ = fr.WriteWindowUpdate(1, 1000)
	_ = fr.WritePing(false, [8]byte{})
	_ = fr.WriteRSTStream(1, http2.ErrCodeCancel)
	f.Add(b.Bytes())
	b.Reset()
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: firstBlock(fields(takenStream)), EndHeaders: true})
	_ = fr.WriteData(1, false, append(message("300 now 1"), message("70000 gather 1")...))
	_ = fr.WriteData(1, true, message("5 fail 1"))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, frames []byte) {
		near, far := net.Pipe() // there are too few ports
		s := startOn(t, oneConn{far, make(chan struct{})}, 0, 10)
		read := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, near); close(read) }()
		_ = near.SetDeadline(time.Now().Add(time.Minute))
		if _, err := near.Write(append([]byte(http2.ClientPreface), frames...)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the server reads no more")
		}
		near.Close()
		<-read
		s.grpc.Stop()
	})
}

// oneConn is a listener with one connection.
type oneConn struct {
	net.Conn
	done chan struct{}
}

func (l oneConn) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	close(l.done)
	return l.Conn, nil
}

func (l oneConn) Addr() net.Addr { return l.LocalAddr() }

// TestClient: gRPC's own client gets what it asks for, whoever answers, with the windows that it
// finds out by itself.
func TestClient(t *testing.T) {
	s := start(t, 0, 1000)
	conn, err := grpc.NewClient(s.addr.String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{}), grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wait sync.WaitGroup
	for i := range 30 {
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		wait.Go(func() {
			for range 40 {
				text := fmt.Sprintf("%d %s %d", rng.IntN([]int{10, 3000, 100_000, 700_000}[rng.IntN(4)]), []string{"now", "later"}[rng.IntN(2)], i)
				ctx, leave := context.WithCancel(ctx)
				gone := rng.IntN(20) == 0
				if gone {
					time.AfterFunc(time.Duration(rng.IntN(2000))*time.Microsecond, leave)
				}
				var got []byte
				err := conn.Invoke(ctx, []string{taken, taken, passed}[rng.IntN(3)], []byte(text), &got)
				leave()
				want, _, _ := does([]byte(text))
				if err == nil && !bytes.Equal(got, want) || err != nil && (!gone || status.Code(err) != codes.Canceled) {
					t.Errorf("%s: %d bytes, %v", text, len(got), err)
				}
			}
		})
	}
	wait.Wait()
	if s.taken.Load() == 0 || s.passed.Load() == 0 {
		t.Errorf("%d calls were taken, %d passed", s.taken.Load(), s.passed.Load())
	}
}
