package direct_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/keelson-io/keelson/server/direct"
	"github.com/keelson-io/keelson/server/h2test"
)

// Two methods that do the same: one is taken, grpc-go serves the other; and two with streams.
const (
	taken        = "/t.S/Taken"
	passed       = "/t.S/Passed"
	takenStream  = "/t.S/TakenStream"
	passedStream = "/t.S/PassedStream"
)

const (
	mostRequest = 2 << 20
	mostHeaders = 8 << 10
	pingMin     = 5 * time.Second
)

// served is a server of these, with package direct below it. A request says what is to be
// done: "<bytes of the answer> <how> <number>".
type served struct {
	t    *testing.T
	addr net.Addr
	grpc *grpc.Server
	l    *direct.Listener

	taken, passed atomic.Int64
	lingers       atomic.Int64 // handlers that wait for release
	left, late    atomic.Int64 // streams whose handlers have ended, and those whose time was over
	writes        atomic.Int64
	vectors       atomic.Int64 // those of several buffers
	most          atomic.Int64 // bytes of one of them
	lent          atomic.Int64 // buffers that have not come back
	now           atomic.Int64
	release       chan struct{} // of handlers that linger
	mu            sync.Mutex
	open          map[*direct.Conn]*direct.Conn
	waiting       map[string]*owner // of calls that wait for Leave, by request
}

// bytesCodec leaves messages as they are.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }
func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case []byte:
		return mem.BufferSlice{mem.SliceBuffer(v)}, nil
	case mem.BufferSlice:
		return v, nil
	}
	return nil, errors.New("no bytes")
}
func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b := data.Materialize()
	if bytes.HasPrefix(b, []byte("odd")) {
		return errors.New("odd")
	}
	*v.(*[]byte) = b
	return nil
}

var _ encoding.CodecV2 = bytesCodec{}

// does is what a request asks for.
func does(req []byte) (body []byte, how string, err error) {
	f := strings.Fields(string(req))
	if len(f) < 2 {
		return []byte("short"), "now", nil
	}
	n, _ := strconv.Atoi(f[0])
	body = make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(len(req))}).Read(body)
	switch f[1] {
	case "fail":
		err = status.Error(codes.FailedPrecondition, "it's 100% bröken\n")
	case "explain":
		s, _ := status.New(codes.Aborted, "because").WithDetails(wrapperspb.String("of that"))
		err = s.Err()
	}
	return body, f[1], err
}

// told is what a request's metadata says.
func told(ctx context.Context) []byte {
	md, _ := metadata.FromIncomingContext(ctx)
	return fmt.Appendf(nil, "%v %v", md["token"], md["tokem"])
}

// why goes with errors; it takes several frames.
var why = strings.Repeat("{}", 20_000)

// owner serves a call that was taken.
type owner struct {
	s    *served
	call *direct.Call
	body []byte
	err  error
	left atomic.Bool
	gone chan struct{}
	told atomic.Int64
}

func (o *owner) Leave() {
	if o.left.Swap(true) {
		o.s.t.Error("somebody left twice")
	}
	close(o.gone)
}

func (o *owner) Answer() direct.Answer {
	if o.told.Add(1) > 1 {
		o.s.t.Error("asked twice for an answer")
	}
	if o.err != nil {
		return direct.Answer{Status: status.Convert(o.err), Trailer: metadata.Pairs("why", why)}
	}
	var m mem.BufferSlice
	for b := o.body; len(b) > 0; { // in several buffers
		n := min(len(b), 64<<10)
		part := bytes.Clone(b[:n])
		if !mem.IsBelowBufferPoolingThreshold(n) {
			o.s.lent.Add(1)
		}
		m = append(m, mem.NewBuffer(&part, spoiler{o.s}))
		b = b[n:]
	}
	return direct.Answer{Message: m}
}

// spoiler is a pool that spoils what it is given: nobody may send it any more.
type spoiler struct{ s *served }

func (spoiler) Get(n int) *[]byte { b := make([]byte, n); return &b }
func (p spoiler) Put(b *[]byte) {
	clear(*b)
	p.s.lent.Add(-1)
}

// vectors is a listener whose connections may send several buffers at once.
type vectors struct {
	net.Listener
	s *served
}

func (l vectors) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return vectored{conn, l.s}, err
}

type vectored struct {
	net.Conn
	s *served
}

func (vectored) Vectored() bool { return true }
func (c vectored) Write(p []byte) (int, error) {
	c.s.writes.Add(1)
	return c.Conn.Write(p)
}
func (c vectored) WriteBuffers(all *net.Buffers) (int64, error) {
	c.s.writes.Add(1)
	c.s.vectors.Add(1)
	n, err := all.WriteTo(c.Conn)
	for most := c.s.most.Load(); n > most && !c.s.most.CompareAndSwap(most, n); {
		most = c.s.most.Load()
	}
	return n, err
}

func (s *served) begin(calls []*direct.Call) {
	for _, c := range calls {
		s.taken.Add(1)
		o := &owner{s: s, call: c, gone: make(chan struct{})}
		var how string
		o.body, how, o.err = does(c.Request)
		if how == "tell" {
			o.body = told(c.Context)
		}
		if how == "close" {
			c.Conn().Close()
		}
		s.mu.Lock()
		s.waiting[string(c.Request)] = o
		s.open[c.Conn()] = c.Conn()
		s.mu.Unlock()
		c.Own(o)
		switch how {
		case "later":
			go c.Done()
		case "wait":
		default:
			c.Done()
		}
	}
}

// conns does something with each connection.
func (s *served) conns(t *testing.T, do func(*direct.Conn)) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) == 0 {
		t.Fatal("no connection")
	}
	for _, c := range s.open {
		do(c)
	}
}

func (s *served) find(t *testing.T, c *h2test.Client, req string) (o *owner) {
	c.Until("the call "+req, nil, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		o = s.waiting[req]
		return o != nil
	})
	return o
}

func (s *served) method(name string) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var req []byte
		if err := dec(&req); err != nil {
			return nil, err
		}
		s.passed.Add(1)
		body, how, err := does(req)
		if how == "wait" {
			<-ctx.Done()
		}
		if how == "tell" {
			body = told(ctx)
		}
		if err != nil {
			_ = grpc.SetTrailer(ctx, metadata.Pairs("why", why))
			return nil, err
		}
		return body, nil
	}}
}

// start starts a server. tear is the longest piece of what is torn, 0: nothing is.
const smallTear = 300

func start(t *testing.T, tear int, streams uint32, more ...grpc.ServerOption) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, l, tear, streams, more...)
}

func startOn(t *testing.T, l net.Listener, tear int, streams uint32, more ...grpc.ServerOption) *served {
	s := &served{t: t, addr: l.Addr(), release: make(chan struct{}), waiting: map[string]*owner{}, open: map[*direct.Conn]*direct.Conn{}}
	s.now.Store(1)
	var below net.Listener = tearing{l, tear, 1}
	if tear != smallTear { // there, answers are copied
		below = vectors{below, s}
	}
	s.l = s.listen(below, streams)
	s.grpc = grpc.NewServer(append(more, grpc.ForceServerCodecV2(bytesCodec{}), grpc.MaxRecvMsgSize(mostRequest), grpc.MaxHeaderListSize(mostHeaders),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingMin}))...)
	s.grpc.RegisterService(&grpc.ServiceDesc{ServiceName: "t.S", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{s.method("Taken"), s.method("Passed")},
		Streams: []grpc.StreamDesc{s.stream("TakenStream"), s.stream("PassedStream")},
	}, s)
	var wait sync.WaitGroup
	wait.Go(func() { s.grpc.Serve(tearing{s.l, tear, 2}) })
	t.Cleanup(func() { s.grpc.Stop(); wait.Wait() })
	return s
}

func (s *served) listen(l net.Listener, streams uint32) *direct.Listener {
	return &direct.Listener{Listener: l, Options: &direct.Options{
		Methods: []string{taken, "/t.S/None"}, MaxRequest: mostRequest, MaxHeaders: mostHeaders, MaxStreams: streams, PingMin: pingMin,
		Now:     func() time.Time { return time.Unix(s.now.Load(), 0) },
		Context: func(net.Conn) context.Context { return context.Background() },
		Begin:   s.begin,
		Streams: []string{"/t.S/NoStream", takenStream},
		Serve:   s.serve,
		Codec:   bytesCodec{},
	}}
}

// tearing tears what passes below and above.
type tearing struct {
	net.Listener
	most int
	seed uint64
}

func (l tearing) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || l.most == 0 {
		return conn, err
	}
	return h2test.Tear(conn, l.most, l.seed), nil
}

// fields are the headers of a plain call.
func fields(path string, more ...string) []string {
	return append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "x", "content-type", "application/grpc", "te", "trailers"}, more...)
}

// block is how a client of its own compresses headers.
func block(enc *hpack.Encoder, out *bytes.Buffer, fields []string) []byte {
	out.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // to memory
	}
	return bytes.Clone(out.Bytes())
}

// firstBlock is the first block of a connection.
func firstBlock(fields []string) []byte {
	var out bytes.Buffer
	return block(hpack.NewEncoder(&out), &out, fields)
}

func message(text string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text)))
	return append(b, text...)
}

func call(c *h2test.Client, path, text string) uint32 {
	id := c.Open(false, fields(path)...)
	c.Must(c.Framer.WriteData(id, true, message(text)))
	return id
}

// is reports whether an answer is the one to a request.
func is(s *h2test.Stream, text string) bool {
	body, _, err := does([]byte(text))
	if err != nil {
		return s.Header["grpc-status"] == "9" && s.Header["grpc-message"] == "it's 100%25 br%C3%B6ken%0A" && s.Header["why"] == why && len(s.Got) == 0
	}
	return s.Header[":status"] == "200" && s.Header["content-type"] == "application/grpc" && s.Header["grpc-status"] == "0" && bytes.Equal(s.Got, message(string(body)))
}

// TestWindows: whatever a client grants, however it is torn, and whoever answers, no more comes
// than that, and all of it comes.
func TestWindows(t *testing.T) {
	for seed := range uint64(9) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			tear := []int{0, 5000, smallTear}[seed%3]
			s := start(t, tear, 1000)
			// Either the streams' windows are what is short, or the connection's.
			first, window := int64(20_000), int64(90_000)
			if seed%2 == 1 {
				first, window = 1<<20, 65_535
			}
			c := h2test.Dial(t, s.addr, first, window, tear)
			open, asked := map[uint32]bool{}, map[uint32]string{}
			const calls = 30
			begin := func(i int) {
				text := fmt.Sprintf("%d %s %d", []int{0, 3, 1000, 5000, 40_000, 150_000}[rng.IntN(6)], []string{"now", "later", "fail"}[i%3], i)
				id := call(c, []string{taken, taken, passed, takenStream, takenStream, passedStream}[rng.IntN(6)], text)
				open[id], asked[id] = true, text
			}
			begun := 0
			for ; begun < calls/2; begun++ {
				begin(begun)
			}
			killed, pings := 0, 0
			c.Until("the answers", func() {
				c.Pay()
				for id := range open {
					if c.Streams[id].Ended {
						delete(open, id)
					} else if killed < 3 && rng.IntN(4) == 0 {
						killed++
						c.Must(c.Framer.WriteRSTStream(id, http2.ErrCodeCancel))
						c.Streams[id].Killed = true
						delete(open, id)
					}
				}
				if begun < calls {
					begin(begun)
					begun++
				}
			}, func() bool {
				switch id := uint32(1 + 2*rng.IntN(begun)); rng.IntN(40) {
				case 0:
					if len(c.Less) == 0 && seed%2 == 0 {
						c.SetFirst(5000 + rng.Int64N(2*first))
					}
				case 1:
					c.PayStream(id)
				case 2:
					c.Grant(0, c.Owed)
					c.Owed = 0
				case 3:
					if pings++; pings <= 3 { // grpc-go may take offence at more
						c.Must(c.Framer.WritePing(false, [8]byte{1}))
					}
				}
				return len(open) == 0 && begun == calls
			})
			c.Until("all buffers", nil, func() bool { return s.lent.Load() == 0 })
			for id, got := range c.Streams {
				if !got.Killed && !is(got, asked[id]) {
					t.Errorf("%s %q: %d bytes, %v, not what was asked for", got.Path, asked[id], len(got.Got), got.Header)
				}
			}
			if s.taken.Load() == 0 || s.passed.Load() == 0 {
				t.Errorf("%d calls were taken, %d passed", s.taken.Load(), s.passed.Load())
			}
		})
	}
}

// TestLongRequest: a request is granted the room that it needs, in pieces of any kind.
func TestLongRequest(t *testing.T) {
	s := start(t, 3000, 1000)
	c := h2test.Dial(t, s.addr, 65535, 65535, 3000)
	text := "10 now " + strings.Repeat("x", 1<<20)
	const usual = 65535
	used := int64(0)       // of the connection's window
	for round := range 3 { // the connection's window is needed many times
		id := c.Open(false, fields(taken)...)
		st := c.Streams[id]
		body := message(text)
		c.Must(c.Framer.WriteData(id, false, body[:2])) // the prefix in two
		body, used = body[2:], used+2
		own := int64(2)
		for len(body) > 0 {
			const padding = 250
			n := min(len(body), 700)
			whole := int64(n) + padding + 1
			room := func() bool { return usual+st.Granted-own >= whole && usual+c.Granted-used >= whole }
			if !room() {
				c.Until("room", nil, room)
			}
			c.Must(c.Framer.WriteDataPadded(id, false, body[:n], make([]byte, padding)))
			body, own, used = body[n:], own+whole, used+whole
		}
		c.Until("the answer", nil, func() bool { return st.Ended })
		c.Sync()
		if !is(st, text) || !st.Cut || st.Reset != http2.ErrCodeNo { // the client has not said that this is all
			t.Fatalf("round %d: %v", round, st)
		}
		if st.Granted > own {
			t.Errorf("round %d: %d bytes were granted for %d", round, st.Granted, own)
		}
	}
	if c.Granted > used {
		t.Errorf("%d bytes of the connection's window were granted for %d", c.Granted, used)
	}
	if s.taken.Load() != 3 {
		t.Errorf("%d calls were taken", s.taken.Load())
	}
}

// TestPieces: headers in several frames, with a priority.
func TestPieces(t *testing.T) {
	s := start(t, 0, 1000)
	c := h2test.Dial(t, s.addr, 65535, 65535, 0)
	for _, path := range []string{taken, passed} {
		id := c.Stream(path)
		block := c.Block(fields(path, "token", strings.Repeat("x", 100))...)
		c.Must(c.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:3], Priority: http2.PriorityParam{Weight: 3}}))
		c.Must(c.Framer.WriteContinuation(id, false, block[3:4]))
		c.Must(c.Framer.WriteContinuation(id, true, block[4:]))
		c.Must(c.Framer.WriteData(id, true, message("20 now 2")))
		c.Until("the answer", nil, func() bool { return c.Streams[id].Ended })
		if !is(c.Streams[id], "20 now 2") {
			t.Errorf("%s: %v", path, c.Streams[id])
		}
	}
	if s.taken.Load() != 1 || s.passed.Load() != 1 {
		t.Errorf("%d calls were taken, %d passed", s.taken.Load(), s.passed.Load())
	}
}
