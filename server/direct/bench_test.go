package direct_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/mem"

	"github.com/keelson-io/keelson/server/direct"
)

// BenchmarkCall is a call that ends at once, ten of which come with each read.
func BenchmarkCall(b *testing.B) {
	const together = 10
	conn := &feed{calls: b.N, together: together}
	conn.prepare()
	l := &direct.Listener{Listener: oneConn{conn, make(chan struct{})}, Options: &direct.Options{
		Methods: []string{taken}, MaxRequest: mostRequest, MaxHeaders: mostHeaders, MaxStreams: 1000, Now: time.Now,
		Context: func(net.Conn) context.Context { return context.Background() },
		Begin: func(calls []*direct.Call) {
			for _, c := range calls {
				c.Own(atOnce{})
				c.Done()
			}
		},
	}}
	below, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := io.Copy(io.Discard, below); err != nil {
		b.Fatal(err)
	}
	if conn.ends < b.N {
		b.Errorf("%d of %d calls were answered", conn.ends, b.N)
	}
}

// atOnce owns calls that have ended when they begin.
type atOnce struct{}

var answer = mem.BufferSlice{mem.SliceBuffer("an answer of some bytes")}

func (atOnce) Leave()                {}
func (atOnce) Answer() direct.Answer { return direct.Answer{Message: answer} }

// feed is a connection whose client calls again and again.
type feed struct {
	net.Conn
	calls, together int
	begun           int
	ends            int
	first, next     []byte // header blocks
	frames          bytes.Buffer
	fr              *http2.Framer
}

func (f *feed) prepare() {
	var out bytes.Buffer
	enc := hpack.NewEncoder(&out)
	all := fields(taken, "user-agent", "a client/1.0", "client-api-version", "3.7")
	f.first, f.next = block(enc, &out, all), block(enc, &out, all) // the next is short
	f.fr = http2.NewFramer(&f.frames, nil)
	f.frames.WriteString(http2.ClientPreface)
}

// Read implements net.Conn: the next calls, and room for their answers.
func (f *feed) Read(p []byte) (int, error) {
	if f.frames.Len() == 0 {
		if f.begun == f.calls {
			return 0, io.EOF
		}
		_ = f.fr.WriteWindowUpdate(0, 1000)
	}
	for i := 0; i < f.together && f.begun < f.calls && f.frames.Len() < 2000; i++ {
		headers := f.next
		if f.begun == 0 {
			headers = f.first
		}
		id := uint32(2*f.begun + 1)
		_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headers, EndHeaders: true})
		_ = f.fr.WriteData(id, true, message("a request of some bytes"))
		f.begun++
	}
	return f.frames.Read(p)
}

// Write implements net.Conn: it counts the streams that end.
func (f *feed) Write(p []byte) (int, error) {
	for b := p; len(b) >= 9; b = b[9+int(binary.BigEndian.Uint32(b)>>8):] {
		if http2.FrameType(b[3]) == http2.FrameHeaders && http2.Flags(b[4])&http2.FlagHeadersEndStream != 0 {
			f.ends++
		}
	}
	return len(p), nil
}

func (f *feed) Close() error { return nil }
