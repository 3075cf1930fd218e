package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
)

// member is a GRPC transport on a loopback port, with its recorder and its log.
type member struct {
	*GRPC
	*recorder
	id   api.MemberID
	url  string
	fs   vfs.FS
	logs *logBuffer
}

// memberOptions change how a member is made.
type memberOptions struct {
	cluster  api.ClusterID
	address  string // of an earlier process to take over; empty for any
	dial     func(ctx context.Context, url string) (net.Conn, error)
	tls      *tls.Config
	maxFrame int
	prepare  func(*recorder)
	handler  Handler // instead of the recorder
	files    string  // a real directory for snapshots, instead of memory
	network  string

	peerless    bool // it is not told its peers, not even that there are none
	incarnation uint64
	announce    func(context.Context) ([]byte, error)
}

func startMember(t testing.TB, id api.MemberID, opt memberOptions) *member {
	t.Helper()
	if opt.cluster == 0 {
		opt.cluster = 9
	}
	network, address := "tcp", opt.address
	if opt.network != "" {
		network = opt.network
	}
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{recorder: newRecorder(), id: id, fs: vfs.NewMem(1), logs: &logBuffer{}}
	dir := "/snap"
	if opt.files != "" {
		m.fs, dir = vfs.OS(), opt.files
	}
	switch {
	case network == "unix":
		m.url = "unix://" + l.Addr().String()
	case opt.tls != nil:
		m.url = "https://" + l.Addr().String()
	default:
		m.url = "http://" + l.Addr().String()
	}
	m.GRPC, err = NewGRPC(GRPCConfig{
		ID: id, Cluster: opt.cluster, Clock: clock.System(), Logger: slog.New(slog.NewTextHandler(m.logs, nil)),
		Dial: opt.dial, TLS: opt.tls, FS: m.fs, SnapDir: dir, MaxFrame: opt.maxFrame,
		Incarnation: opt.incarnation, URLs: []string{m.url}, Announce: opt.announce,
	})
	if err != nil {
		t.Fatal(err)
	}
	if opt.prepare != nil {
		opt.prepare(m.recorder)
	}
	served := make(chan error, 1)
	go func() { served <- m.Serve(l) }()
	var h Handler = m.recorder
	if opt.handler != nil {
		h = opt.handler
	}
	if err := m.Start(h); err != nil {
		t.Fatal(err)
	}
	if !opt.peerless {
		m.SetPeers(nil)
	}
	t.Cleanup(func() {
		m.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return m
}

func (m *member) peer() Peer      { return Peer{ID: m.id, URLs: []string{m.url}} }
func (m *member) address() string { return strings.TrimPrefix(m.url, "http://") }

// hearsNobody: no stream of another member comes here.
func (m *member) hearsNobody() bool {
	m.GRPC.mu.Lock()
	defer m.GRPC.mu.Unlock()
	return len(m.GRPC.mu.inbound) == 0
}

// connect makes the members each other's peers and waits until all are up.
func connect(t testing.TB, members ...*member) {
	t.Helper()
	var peers []Peer
	for _, m := range members {
		peers = append(peers, m.peer())
	}
	for _, m := range members {
		m.SetPeers(peers)
	}
	for _, m := range members {
		m.await(t, len(members)-1, "up ")
	}
}

func pair(t testing.TB) (*member, *member) {
	t.Helper()
	a, b := startMember(t, 1, memberOptions{}), startMember(t, 2, memberOptions{})
	connect(t, a, b)
	return a, b
}

type logBuffer struct {
	mu struct {
		sync.Mutex
		bytes.Buffer
	}
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.Write(p)
}

func (b *logBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.mu.String(), text)
}

// awaitLog waits until the log holds the text.
func (m *member) awaitLog(t testing.TB, text string) {
	t.Helper()
	eventually(t, text, func() bool { return m.logs.count(text) > 0 })
}

// eventually polls for a condition that nothing announces.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestStranger: a member that lags does not know who was added, and must answer it
// all the same, until it hears that this one was removed.
func TestStranger(t *testing.T) {
	a, b := startMember(t, 1, memberOptions{}), startMember(t, 2, memberOptions{})
	a.SetPeers([]Peer{b.peer()})
	b.await(t, 1, "up 1")
	b.SetPeers(nil) // a change among those that it knows
	b.Send(1, []*raftpb.Message{heartbeat(2, 1, 5)})
	a.await(t, 1, "message MsgHeartbeat from 2 index 5")
	b.SetPeers([]Peer{a.peer()})
	b.Send(1, []*raftpb.Message{heartbeat(2, 1, 6)})
	a.await(t, 1, "message MsgHeartbeat from 2 index 6")
	b.SetPeers(nil)
	if b.link(1) != nil {
		t.Error("one that was known and left keeps its link")
	}
	b.Refuse(1)
	a.SetPeers(nil)
	a.SetPeers([]Peer{b.peer()})
	a.awaitLog(t, ErrRemoved.Error())
	if b.link(1) != nil {
		t.Error("one that was removed has a link")
	}
}

func TestStrangersAreBounded(t *testing.T) {
	m := startMember(t, 1, memberOptions{})
	m.introduce(2, nil)
	m.introduce(2, make([]string, strangerURLs+1))
	m.introduce(2, []string{strings.Repeat("x", strangerLength+1)})
	if m.link(2) != nil {
		t.Error("a link to nowhere")
	}
	for id := range api.MemberID(maxStrangers + 5) {
		m.introduce(id+2, []string{"http://127.0.0.1:1"})
	}
	if n := len(m.Stats()); n != maxStrangers {
		t.Errorf("%d links to strangers, %d are the most", n, maxStrangers)
	}
}

func TestGRPCDelivers(t *testing.T) {
	a, b := pair(t)
	for i := range uint64(500) {
		a.Send(2, []*raftpb.Message{appendMessage(1, 2, i, []byte("one"), bytes.Repeat([]byte("x"), 3000)), heartbeat(1, 2, 10000+i)})
	}
	b.Send(1, []*raftpb.Message{heartbeat(2, 1, 5)})
	if !a.Forward(2, 6, []byte("proposals")) {
		t.Fatal("a forward to a connected peer was refused")
	}
	b.await(t, 500, "message MsgApp from 1")
	b.await(t, 500, "message MsgHeartbeat from 1")
	b.await(t, 1, `forwarded from 1 term 6 "proposals"`)
	a.await(t, 1, "message MsgHeartbeat from 2 index 5")
	var appends, beats []uint64
	for _, i := range b.received() {
		if i < 10000 {
			appends = append(appends, i)
		} else {
			beats = append(beats, i)
		}
	}
	if !slices.IsSorted(appends) || !slices.IsSorted(beats) {
		t.Fatal("a class lost its order")
	}
	s := a.Stats()[0]
	if s.Bulk.Offered != 501 || s.Bulk.Sent != 501 || s.Control.Sent != 500 || s.UpSince.IsZero() {
		t.Fatalf("stats %+v", s)
	}
}

func TestGRPCOverUnixSocket(t *testing.T) {
	dir := t.TempDir()
	a := startMember(t, 1, memberOptions{network: "unix", address: filepath.Join(dir, "a")})
	b := startMember(t, 2, memberOptions{network: "unix", address: filepath.Join(dir, "b")})
	connect(t, a, b)
	a.Send(2, []*raftpb.Message{heartbeat(1, 2, 5)})
	b.await(t, 1, "message MsgHeartbeat from 1 index 5")
	b.Close()
	a.await(t, 1, "down 2")
}

// A member that ends is reported as down at once, and up when it is back; the
// link needs nobody's help.
func TestGRPCPeerDiesAndReturns(t *testing.T) {
	a, b := pair(t)
	address := b.address()
	for round := 1; round <= 3; round++ {
		killed := time.Now()
		b.Close()
		a.await(t, round, "down 2")
		t.Logf("seen as down after %v", time.Since(killed))
		if a.Forward(2, 1, nil) {
			t.Fatal("a forward to a dead peer was taken")
		}
		a.Send(2, []*raftpb.Message{appendMessage(1, 2, 1)})
		a.await(t, round, "unreachable 2")
		b = startMember(t, 2, memberOptions{address: address})
		b.SetPeers([]Peer{a.peer()})
		a.await(t, round+1, "up 2")
		a.Send(2, []*raftpb.Message{heartbeat(1, 2, uint64(round))})
		b.await(t, 1, fmt.Sprintf("message MsgHeartbeat from 1 index %d", round))
	}
	if got := a.count("down 2"); got != 3 {
		t.Fatalf("down was told %d times for 3 deaths", got)
	}
}

// PeerDown must also come when only the dead peer's own streams had worked.
func TestGRPCDownIsToldAgainAfterAnInboundStream(t *testing.T) {
	a := startMember(t, 1, memberOptions{})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := closed.Addr().String()
	closed.Close()
	a.SetPeers([]Peer{{ID: 2, URLs: []string{"http://" + address}}})
	a.await(t, 1, "down 2")
	b := startMember(t, 2, memberOptions{}) // it dials, but cannot be dialled
	b.SetPeers([]Peer{a.peer()})
	b.await(t, 1, "up 1")
	b.Close()
	a.await(t, 2, "down 2")
}

func TestGRPCWrongCluster(t *testing.T) {
	a := startMember(t, 1, memberOptions{})
	b := startMember(t, 2, memberOptions{cluster: 10})
	a.SetPeers([]Peer{b.peer()})
	b.SetPeers([]Peer{a.peer()})
	a.awaitLog(t, ErrWrongCluster.Error())
	b.awaitLog(t, "refused a peer")
	b.awaitLog(t, "it has 9, this member a")
	a.Send(2, []*raftpb.Message{heartbeat(1, 2, 1)})
	a.await(t, 1, "unreachable 2")
	if a.count("up")+b.count("up")+b.count("message") != 0 {
		t.Fatalf("members of two clusters talk:\n%s\n%s", a.recorder, b.recorder)
	}
	if got := b.logs.count("refused a peer"); got != 1 {
		t.Fatalf("%d lines for one refusal", got)
	}
}

func TestGRPCWrongMember(t *testing.T) {
	a, b := startMember(t, 1, memberOptions{}), startMember(t, 2, memberOptions{})
	a.SetPeers([]Peer{{ID: 3, URLs: []string{b.url}}})
	a.awaitLog(t, ErrWrongMember.Error())
	b.awaitLog(t, "3 was meant, this is 2")
	if a.count("up") != 0 {
		t.Fatal("another member counts as the peer")
	}
	if _, err := a.GRPC.Call(t.Context(), 3, 1, nil); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("call: %v", err)
	}
}

func TestGRPCRemovedMember(t *testing.T) {
	a, b := pair(t)
	a.Refuse(2)
	b.awaitLog(t, ErrRemoved.Error())
	b.Send(1, []*raftpb.Message{heartbeat(2, 1, 77)})
	b.await(t, 1, "unreachable 1")
	if a.count("message") != 0 {
		t.Fatal("a removed member was heard")
	}
	if _, err := a.GRPC.Call(t.Context(), 2, 1, nil); !errors.Is(err, ErrUnknownPeer) {
		t.Fatalf("call to a removed member: %v", err)
	}
	eventually(t, "the other one is not spoken to any more", b.hearsNobody)
}

// TestGRPCPeerMoves: a peer whose addresses change is spoken to at the new ones alone.
func TestGRPCPeerMoves(t *testing.T) {
	a, old := pair(t)
	moved := startMember(t, 2, memberOptions{})
	old.SetPeers(nil)
	moved.SetPeers([]Peer{a.peer()})
	a.SetPeers([]Peer{moved.peer()})
	eventually(t, "the old addresses are left", old.hearsNobody)
	moved.await(t, 1, "up 1")
	eventually(t, "a message", func() bool {
		a.Send(2, []*raftpb.Message{heartbeat(1, 2, 5)})
		return moved.count("message MsgHeartbeat from 1") > 0
	})
	if old.count("message") > 0 {
		t.Errorf("heard at the old addresses:\n%s", old.recorder)
	}
}

// TestRefusalsInTheLog: a peer that is refused again and again does not fill the log.
func TestRefusalsInTheLog(t *testing.T) {
	now := clock.NewFake(time.Unix(1, 0))
	a := &GRPC{cfg: GRPCConfig{Clock: now}}
	for i, step := range []struct {
		after  time.Duration
		text   string
		logged bool
	}{
		{0, "one", true},
		{0, "one", false},
		{refusalLogEvery - 1, "one", false},
		{1, "one", true},
		{0, "two", true},
		{0, "one", true},
	} {
		now.Advance(step.after)
		if got := a.isNewRefusal(step.text); got != step.logged {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

func TestGRPCCall(t *testing.T) {
	a, b := pair(t)
	answer, err := a.GRPC.Call(t.Context(), 2, 7, []byte("hello"))
	if err != nil || string(answer) != "1/7/hello" {
		t.Fatalf("%q, %v", answer, err)
	}
	b.call = func(_ context.Context, _ api.MemberID, kind uint8, payload []byte) ([]byte, error) {
		if kind == 1 {
			return nil, status.Error(codes.Unavailable, "etcdserver: leader changed")
		}
		return payload, nil
	}
	if _, err = a.GRPC.Call(t.Context(), 2, 1, nil); status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "etcdserver: leader changed" || errors.Is(err, ErrUnreachable) {
		t.Fatalf("a handler's error: %v", err)
	}
	large := bytes.Repeat([]byte("x"), 20<<20)
	if answer, err = a.GRPC.Call(t.Context(), 2, 2, large); err != nil || !bytes.Equal(answer, large) {
		t.Fatalf("a call of 20 MiB: %d bytes, %v", len(answer), err)
	}
	if _, err = a.GRPC.Call(t.Context(), 2, 2, make([]byte, defaultMaxFrame)); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("a call beyond the limit: %v", err)
	}
}

func TestGRPCCallEnds(t *testing.T) {
	a, b := pair(t)
	entered := make(chan struct{}, 1)
	b.call = func(ctx context.Context, _ api.MemberID, _ uint8, _ []byte) ([]byte, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if _, err := a.GRPC.Call(ctx, 2, 1, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("the caller left: %v", err)
	}
	go func() { <-entered; b.Close() }()
	if _, err := a.GRPC.Call(t.Context(), 2, 1, nil); !errors.Is(err, ErrUnreachable) || !errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("the peer died: %v", err)
	}
}

func TestGRPCSnapshot(t *testing.T) {
	a, b := pair(t)
	s := newTestSnapshot(20<<20 + 3)
	a.SendSnapshot(2, envelope(1, 2), s)
	a.await(t, 1, "snapshot to 2 sent true")
	b.await(t, 1, "snapshot 70/3 from 1")
	if !bytes.Equal(fileContent(t, b.fs, b.recorder.mu.path), s.data) || !s.released.Load() {
		t.Fatal("the file differs, or the snapshot was not released")
	}
	broken := newTestSnapshot(4 << 20)
	broken.fail = errors.New("unreadable page")
	a.SendSnapshot(2, envelope(1, 2), broken)
	a.await(t, 1, "snapshot to 2 sent false")
	a.SendSnapshot(5, envelope(1, 5), newTestSnapshot(1))
	a.await(t, 1, "snapshot to 5 sent false")
	eventually(t, "the broken snapshot's file is gone", func() bool {
		entries, err := b.fs.List("/snap")
		return err == nil && len(entries) == 1
	})
}

// Close ends everything that runs, and may be called at any time and twice.
func TestGRPCCloses(t *testing.T) {
	a, b := pair(t)
	a.Send(2, []*raftpb.Message{heartbeat(1, 2, 1)})
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	a.Send(2, []*raftpb.Message{heartbeat(1, 2, 2)})
	a.SetPeers([]Peer{b.peer()})
	s := newTestSnapshot(1)
	a.SendSnapshot(2, envelope(1, 2), s)
	if !s.released.Load() {
		t.Fatal("a closed transport keeps a snapshot")
	}
	if _, err := a.GRPC.Call(t.Context(), 2, 1, nil); err == nil {
		t.Fatal("a closed transport calls")
	}
	if err := a.Start(a.recorder); !errors.Is(err, ErrClosed) {
		t.Fatalf("a closed transport starts: %v", err)
	}
}

func TestRefusedDialIsRecognized(t *testing.T) {
	if !isRefused(fmt.Errorf("dial: %w", syscall.ECONNREFUSED)) || isRefused(syscall.EHOSTUNREACH) || isRefused(context.DeadlineExceeded) {
		t.Fatal("only a refusal says that the process is gone")
	}
}
