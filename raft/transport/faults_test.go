package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
)

// wires are the connections that a member dialled, for a test to spoil.
type wires struct {
	mu    sync.Mutex
	conns []net.Conn
	spoil func(conn int, sent int64, p []byte) // changes bytes on their way
	plain bool                                 // gives gRPC the connections themselves
}

func (w *wires) dial(ctx context.Context, url string) (net.Conn, error) {
	c, err := DialURL(ctx, url)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, c)
	if w.plain {
		return c, nil
	}
	return &wire{Conn: c, n: len(w.conns) - 1, spoil: w.spoil}, nil
}

// cut closes all connections so far, as a reset would.
func (w *wires) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

type wire struct {
	net.Conn
	n     int
	sent  int64
	spoil func(conn int, sent int64, p []byte)
}

func (w *wire) Write(p []byte) (int, error) {
	if w.spoil != nil {
		p = bytes.Clone(p)
		w.spoil(w.n, w.sent, p)
	}
	n, err := w.Conn.Write(p)
	w.sent += int64(n)
	return n, err
}

// Connections that break under traffic lose messages, never order, and nobody is
// taken for dead.
func TestGRPCReconnectsUnderTraffic(t *testing.T) {
	w := &wires{}
	a := startMember(t, 1, memberOptions{dial: w.dial})
	b := startMember(t, 2, memberOptions{})
	connect(t, a, b)
	index := uint64(0)
	for round := 2; round <= 6; round++ {
		for range 2000 {
			index++
			a.Send(2, []*raftpb.Message{appendMessage(1, 2, index, []byte("entry"))})
		}
		w.cut()
		a.await(t, round, "up 2")
	}
	a.Send(2, []*raftpb.Message{appendMessage(1, 2, index+1)})
	b.await(t, 1, fmt.Sprintf("message MsgApp from 1 index %d", index+1))
	got := b.received()
	if !slices.IsSorted(got) || len(slices.Compact(got)) != len(b.received()) {
		t.Fatal("the order broke, or a message came twice")
	}
	if a.count("down")+b.count("down") != 0 {
		t.Fatal("a living peer was taken for dead")
	}
	if a.count("unreachable 2") == 0 {
		t.Fatal("Raft was not told that messages may be lost")
	}
	s := a.Stats()[0].Bulk
	if s.Offered != index+1 || s.Offered != s.Sent+s.Dropped || s.Sent < uint64(len(got)) {
		t.Fatalf("%d arrived, stats %+v", len(got), s)
	}
}

// A peer that does not take log entries still hears heartbeats; what does not fit
// is dropped, reported and counted, and the sender's memory stays bounded.
func TestGRPCSlowPeerDoesNotBlockHeartbeats(t *testing.T) {
	release := make(chan struct{})
	a := startMember(t, 1, memberOptions{})
	b := startMember(t, 2, memberOptions{prepare: func(r *recorder) {
		r.hold = func(m *raftpb.Message) {
			if m.GetType() == raftpb.MsgApp {
				<-release
			}
		}
	}})
	connect(t, a, b)
	released := sync.OnceFunc(func() { close(release) })
	defer released()
	entry := make([]byte, 1<<20)
	a.Send(2, []*raftpb.Message{appendMessage(1, 2, 1, entry)})
	a.Send(3, []*raftpb.Message{appendMessage(1, 3, 1)}) // whom it does not know
	a.await(t, 1, "unreachable 3")
	if a.count("unreachable 2") > 0 {
		t.Error("Raft was told of lost messages before any was")
	}
	offered := uint64(1)
	for a.Stats()[0].Bulk.Dropped == 0 {
		offered++
		if offered > 500 {
			t.Fatal("500 MiB were queued for a peer that reads nothing")
		}
		a.Send(2, []*raftpb.Message{appendMessage(1, 2, offered, entry)})
	}
	a.await(t, 1, "unreachable 2")
	sent := time.Now()
	for i := range uint64(100) {
		a.Send(2, []*raftpb.Message{heartbeat(1, 2, i)})
		b.await(t, int(i+1), "message MsgHeartbeat")
	}
	t.Logf("a heartbeat and its wait took %v beside %d MiB of stuck entries", time.Since(sent)/100, offered)
	if b.count("message MsgApp") != 0 {
		t.Fatal("the entries were not stuck")
	}
	released()
	eventually(t, "all that was sent arrives", func() bool {
		s := a.Stats()[0].Bulk
		return s.Offered == s.Sent+s.Dropped && b.count("message MsgApp") == int(s.Sent)
	})
	s := a.Stats()[0].Bulk
	if s.Offered != offered || s.Dropped == 0 {
		t.Fatalf("%d were offered, stats %+v", offered, s)
	}
	if got := b.Stats()[0].Received.Records; got != s.Sent+100 {
		t.Fatalf("%d records were received, %d sent", got, s.Sent+100)
	}
}

// Bytes that change on their way are refused by the part's checksum; the old
// state stays, and the next try succeeds.
func TestGRPCSnapshotDamagedInFlight(t *testing.T) {
	var harm atomic.Bool
	w := &wires{}
	w.spoil = func(conn int, sent int64, p []byte) {
		if conn < int(classes) || !harm.Load() {
			return
		}
		// Deep inside the stream a byte at a random place is almost surely one
		// of a chunk. Whatever it hits, nothing but the true bytes may arrive.
		if at := 1<<20 - sent; at >= 0 && at < int64(len(p)) {
			p[at] ^= 0x10
			harm.Store(false)
		}
	}
	a := startMember(t, 1, memberOptions{dial: w.dial})
	b := startMember(t, 2, memberOptions{})
	connect(t, a, b)
	harm.Store(true)
	a.SendSnapshot(2, envelope(1, 2), newTestSnapshot(3<<20))
	a.await(t, 1, "snapshot to 2 sent false")
	b.awaitLog(t, "could not receive a snapshot")
	if b.count("snapshot") != 0 {
		t.Fatal("a damaged snapshot was handed over")
	}
	eventually(t, "the damaged file is gone", func() bool {
		entries, err := b.fs.List("/snap")
		return err == nil && len(entries) == 0
	})
	s := newTestSnapshot(3 << 20)
	a.SendSnapshot(2, envelope(1, 2), s)
	a.await(t, 1, "snapshot to 2 sent true")
	if !bytes.Equal(fileContent(t, b.fs, b.recorder.mu.path), s.data) {
		t.Fatal("the second try's file differs")
	}
}

func TestGRPCSnapshotOneAtATime(t *testing.T) {
	hold := make(chan struct{})
	a, b := startMember(t, 1, memberOptions{}), startMember(t, 2, memberOptions{})
	c := startMember(t, 3, memberOptions{})
	connect(t, a, b, c)
	slow := &slowSnapshot{testSnapshot: newTestSnapshot(2 * chunkBytes), started: make(chan struct{}), hold: hold}
	a.SendSnapshot(2, envelope(1, 2), slow)
	<-slow.started
	b.awaitFile(t)
	c.SendSnapshot(2, envelope(3, 2), newTestSnapshot(10))
	c.await(t, 1, "snapshot to 2 sent false")
	close(hold)
	a.await(t, 1, "snapshot to 2 sent true")
}

// slowSnapshot stops after its first chunk.
type slowSnapshot struct {
	*testSnapshot
	started, hold chan struct{}
}

func (s *slowSnapshot) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(s.data[:chunkBytes])
	close(s.started)
	<-s.hold
	if err != nil {
		return int64(n), err
	}
	more, err := w.Write(s.data[chunkBytes:])
	return int64(n + more), err
}

// awaitFile waits until a snapshot is being received.
func (m *member) awaitFile(t *testing.T) {
	t.Helper()
	eventually(t, "a snapshot file", func() bool {
		entries, err := m.fs.List("/snap")
		return err == nil && len(entries) > 0
	})
}

func TestGRPCRandomBytesOnThePort(t *testing.T) {
	a, b := pair(t)
	rng := rand.NewChaCha8([32]byte{1})
	for i := range 30 {
		conn, err := net.Dial("tcp", b.address())
		if err != nil {
			t.Fatal(err)
		}
		junk := make([]byte, 1+i*400)
		rng.Read(junk)
		if i%2 == 1 { // get past the preface
			junk = append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), junk...)
		}
		_, _ = conn.Write(junk) // the server may have hung up
		conn.Close()
	}
	a.Send(2, []*raftpb.Message{heartbeat(1, 2, 5)})
	b.await(t, 1, "message MsgHeartbeat from 1 index 5")
	if b.count("message") != 1 || a.count("down") != 0 {
		t.Fatalf("random bytes had an effect:\n%s", b.recorder)
	}
}

// connection is a client of a member's that sends messages as they are.
func connection(t *testing.T, m *member) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+m.address(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

// intruder opens a stream with a good handshake of member 1 and sends raw frames.
func intruder(t *testing.T, m *member, method string, desc *grpc.StreamDesc, from uint64) grpc.ClientStream {
	t.Helper()
	id := testIdentity
	if from != 1 {
		id.from = 0
	}
	stream, err := connection(t, m).NewStream(metadata.NewOutgoingContext(t.Context(), id.metadata()), desc, method)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// outcome sends the bytes as one message and returns how the stream ended.
func outcome(stream grpc.ClientStream, b []byte) error {
	_ = stream.SendMsg(&mem.BufferSlice{mem.SliceBuffer(b)}) // the answer tells more
	_ = stream.CloseSend()
	return stream.RecvMsg(new(mem.BufferSlice))
}

func TestGRPCBadFrames(t *testing.T) {
	b := startMember(t, 2, memberOptions{maxFrame: 1 << 20})
	frame := func(records ...record) []byte {
		_, size := nextFrame(records, 1<<30)
		return encodeFrame(records, size).ReadOnlyData()
	}
	cases := []struct {
		name  string
		bytes []byte
		code  codes.Code
	}{
		{"no record", []byte{9, 9, 9}, codes.InvalidArgument},
		{"a length beyond the frame", []byte{byte(recordMessage), 0xff, 0xff, 0xff, 0xff, 0x7f}, codes.InvalidArgument},
		{"a message of another sender", frame(messageRecord(heartbeat(3, 2, 1))), codes.InvalidArgument},
		{"a message to another member", frame(messageRecord(heartbeat(1, 3, 1))), codes.InvalidArgument},
		{"a snapshot among frames", frame(messageRecord(&raftpb.Message{Type: raftpb.MsgSnap.Enum()})), codes.InvalidArgument},
		{"a frame beyond the limit", frame(forwardRecord(1, make([]byte, 3<<20))), codes.ResourceExhausted},
	}
	for _, c := range cases {
		stream := intruder(t, b, streamMethod(bulk), &serviceDesc.Streams[bulk], 1)
		if err := outcome(stream, c.bytes); status.Code(err) != c.code {
			t.Fatalf("%s: %v", c.name, err)
		}
	}
	if b.count("message")+b.count("forwarded") != 0 {
		t.Fatalf("a bad frame was handed over:\n%s", b.recorder)
	}
	b.awaitLog(t, "closed a stream with bytes that make no sense")
	err := outcome(intruder(t, b, streamMethod(control), &serviceDesc.Streams[control], 0), nil)
	if status.Code(err) != codes.FailedPrecondition {
		t.Fatalf("a member without an id: %v", err)
	}
	err = outcome(intruder(t, b, snapshotMethod, &serviceDesc.Streams[2], 1), make([]byte, 100))
	if status.Code(err) != codes.Aborted {
		t.Fatalf("a snapshot of zeros: %v", err)
	}
}

// A message beyond the limit is dropped with a line in the log, and only it.
func TestGRPCHugeMessageIsDropped(t *testing.T) {
	a := startMember(t, 1, memberOptions{maxFrame: 1 << 20})
	b := startMember(t, 2, memberOptions{maxFrame: 1 << 20})
	connect(t, a, b)
	huge := appendMessage(1, 2, 1, make([]byte, 1<<20))
	almost := appendMessage(1, 2, 2, make([]byte, 1<<20-100))
	a.Send(2, []*raftpb.Message{huge, almost, appendMessage(1, 2, 3)})
	b.await(t, 1, "message MsgApp from 1 index 3")
	if got := b.received(); !slices.Equal(got, []uint64{2, 3}) {
		t.Fatalf("got %v", got)
	}
	a.await(t, 1, "unreachable 2")
	a.awaitLog(t, "larger than the peer transport takes")
	if a.Forward(2, 1, make([]byte, 1<<20)) {
		t.Fatal("a huge batch was taken")
	}
}

// A newer stream of the same peer and class takes the older one's place: the
// older may be half open.
func TestGRPCNewStreamReplacesOld(t *testing.T) {
	b := startMember(t, 2, memberOptions{})
	first := intruder(t, b, streamMethod(control), &serviceDesc.Streams[control], 1)
	if _, err := first.Header(); err != nil {
		t.Fatal(err)
	}
	second := intruder(t, b, streamMethod(control), &serviceDesc.Streams[control], 1)
	if err := first.RecvMsg(new(mem.BufferSlice)); status.Code(err) != codes.Aborted {
		t.Fatalf("the older stream: %v", err)
	}
	frame := encodeFrame([]record{messageRecord(heartbeat(1, 2, 4))}, messageSizeInFrame(heartbeat(1, 2, 4)))
	if err := second.SendMsg(&mem.BufferSlice{frame}); err != nil {
		t.Fatal(err)
	}
	b.await(t, 1, "message MsgHeartbeat from 1 index 4")
}

func messageSizeInFrame(m *raftpb.Message) int {
	r := messageRecord(m)
	return sealSize + r.wireSize()
}

// A peer that accepts and says nothing ends each try after the dial timeout.
func TestGRPCSilentPeer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan struct{}, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			accepted <- struct{}{}
		}
	}()
	clk := clock.NewFake(time.Unix(0, 0))
	logs := &logBuffer{}
	a, err := NewGRPC(GRPCConfig{ID: 1, Cluster: 9, Clock: clk, Logger: slog.New(slog.NewTextHandler(logs, nil)), FS: vfs.NewMem(1), SnapDir: "/snap"})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	rec := newRecorder()
	if err := a.Start(rec); err != nil {
		t.Fatal(err)
	}
	a.SetPeers([]Peer{{ID: 2, URLs: []string{"http://" + l.Addr().String()}}})
	for range 3 {
		<-accepted
		eventually(t, "another try", func() bool {
			clk.Advance(dialTimeout)
			return len(accepted) > 0
		})
	}
	if rec.count("down")+rec.count("up") != 0 {
		t.Fatalf("a silent peer is neither up nor surely down:\n%s", rec)
	}
	if n := logs.count("cannot connect"); n == 0 || n > 2 {
		t.Fatalf("%d lines for one reason", n)
	}
}

func TestNewGRPCChecksItsConfiguration(t *testing.T) {
	good := GRPCConfig{ID: 1, Cluster: 9, Clock: clock.System(), Logger: slog.New(slog.DiscardHandler), FS: vfs.NewMem(1), SnapDir: "/snap"}
	for name, change := range map[string]func(*GRPCConfig){
		"id":     func(c *GRPCConfig) { c.ID = 0 },
		"clock":  func(c *GRPCConfig) { c.Clock = nil },
		"fs":     func(c *GRPCConfig) { c.FS = nil },
		"frames": func(c *GRPCConfig) { c.MaxFrame = 100 },
	} {
		cfg := good
		change(&cfg)
		if _, err := NewGRPC(cfg); err == nil {
			t.Fatalf("%s: accepted", name)
		}
	}
	boom := errors.New("boom")
	good.FS = vfs.NewFault(good.FS, vfs.Rule{Op: vfs.OpList, Err: boom})
	if _, err := NewGRPC(good); !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
}

// A connection whose packets vanish is given up after keepaliveTimeout, which
// needs this option on every dialled socket.
func TestGRPCSocketsGiveUp(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the option is Linux's")
	}
	const tcpUserTimeout = 18
	w := &wires{plain: true}
	a, b := startMember(t, 1, memberOptions{dial: w.dial}), startMember(t, 2, memberOptions{})
	connect(t, a, b)
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, c := range w.conns {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got int
		err = errors.Join(raw.Control(func(fd uintptr) {
			got, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
		}), err)
		if err != nil || got != int(keepaliveTimeout/time.Millisecond) {
			t.Fatalf("connection %d: %d ms, %v", i, got, err)
		}
	}
}

// Close leaves no goroutine of this package or of gRPC behind, whatever was going on.
func TestGRPCCloseEndsAllGoroutines(t *testing.T) {
	a, b := pair(t)
	silent := make(chan struct{})
	b.call = func(ctx context.Context, _ api.MemberID, _ uint8, _ []byte) ([]byte, error) {
		close(silent)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	called := make(chan error, 1)
	go func() {
		_, err := a.GRPC.Call(context.Background(), 2, 1, nil)
		called <- err
	}()
	<-silent
	slow := &slowSnapshot{testSnapshot: newTestSnapshot(2 * chunkBytes), started: make(chan struct{}), hold: make(chan struct{})}
	a.SendSnapshot(2, envelope(1, 2), slow)
	<-slow.started
	b.Close()
	if err := <-called; err == nil {
		t.Fatal("a call to a closed member succeeded")
	}
	close(slow.hold)
	a.await(t, 1, "snapshot to 2 sent false")
	a.Close()
	eventually(t, "the goroutines have ended", func() bool {
		stacks := make([]byte, 1<<20)
		text := string(stacks[:runtime.Stack(stacks, true)])
		for _, stack := range strings.Split(text, "\n\n") {
			if strings.Contains(stack, "transport.(*link)") || strings.Contains(stack, "transport.(*GRPC)") || strings.Contains(stack, "transport.(*eventQueue)") {
				return false
			}
		}
		return true
	})
	if entries, err := b.fs.List("/snap"); err != nil || len(entries) != 0 {
		t.Fatalf("left behind: %v, %v", entries, err)
	}
}
