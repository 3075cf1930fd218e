package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft"
)

// soloLog is a log of one member without disk and network: a command is
// committed when it is proposed. It stands in for raft.Node where tests are
// about requests and not about consensus.
type soloLog struct {
	machine *applier
	mu      struct {
		sync.Mutex
		index     api.Index
		term      api.Term
		leader    api.MemberID
		wins      api.MemberID // who is elected when leadership is transferred
		self      api.MemberID
		changed   chan struct{}
		fail      error               // what Propose and ReadBarrier return
		refused   int                 // proposals that met fail
		last      map[uint8][]byte    // body of the last command of each kind
		call      func([]byte) []byte // answers Call
		before    func()              // called by Propose, before it applies the command
		learner   bool
		hold      bool // ProposeAll keeps what it is given, until letGo
		holdReads bool // read barriers wait for their callers to leave, AfterBarrier until letReadsGo
		held      []*raft.Command
		readers   []func(error)
	}
}

func (l *soloLog) Propose(ctx context.Context, kind uint8, principal string, body []byte) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if l.mu.fail != nil {
		l.mu.refused++
		return nil, l.mu.fail
	}
	if l.mu.before != nil {
		l.mu.before()
	}
	c := &raft.Command{Kind: kind, Principal: principal, Body: body, Wanted: true}
	l.applyLocked(c)
	return c.Result, c.Err
}

func (l *soloLog) ProposeAll(cmds []*raft.Command) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.fail != nil {
		return l.mu.fail
	}
	if l.mu.hold {
		l.mu.held = append(l.mu.held, cmds...)
		return nil
	}
	l.applyAllLocked(cmds)
	return nil
}

func (l *soloLog) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.mu.held)
}

// letGo ends what ProposeAll was given.
func (l *soloLog) letGo() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.applyAllLocked(l.mu.held)
	l.mu.held = nil
}

func (l *soloLog) applyAllLocked(cmds []*raft.Command) {
	if l.mu.before != nil {
		l.mu.before()
	}
	for _, c := range cmds {
		c.Wanted = true
	}
	l.applyLocked(cmds...)
	for _, c := range cmds {
		c.Finish(nil)
	}
}

// applyLocked applies one entry of the present term.
func (l *soloLog) applyLocked(cmds ...*raft.Command) {
	l.mu.index++
	for _, c := range cmds {
		l.mu.last[c.Kind] = c.Body
	}
	l.machine.Apply([]raft.Entry{{Index: l.mu.index, Term: l.mu.term, Commands: cmds}})
}

// replay applies a command as an entry of this term, as if it had been in the
// log of an earlier leader.
func (l *soloLog) replay(kind uint8, body []byte) *raft.Command {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &raft.Command{Kind: kind, Body: body}
	l.applyLocked(c)
	return c
}

func (l *soloLog) AfterBarrier(fn func(error)) {
	l.mu.Lock()
	fail, hold := l.mu.fail, l.mu.holdReads
	if hold && fail == nil {
		l.mu.readers = append(l.mu.readers, fn)
	}
	l.mu.Unlock()
	if fail != nil || !hold {
		fn(fail)
	}
}

// holdReads has the read barriers that begin from now on wait, or not.
func (l *soloLog) holdReads(hold bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.holdReads = hold
}

// letReadsGo ends the barriers that AfterBarrier has begun.
func (l *soloLog) letReadsGo(err error) {
	l.mu.Lock()
	readers := l.mu.readers
	l.mu.readers = nil
	l.mu.Unlock()
	for _, fn := range readers {
		fn(err)
	}
}

func (l *soloLog) ReadBarrier(ctx context.Context) error {
	l.mu.Lock()
	fail, hold := l.mu.fail, l.mu.holdReads
	l.mu.Unlock()
	if fail != nil {
		return fail
	}
	if hold {
		<-ctx.Done()
	}
	return ctx.Err()
}

func (l *soloLog) Status() raft.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return raft.Status{ID: l.mu.self, Leader: l.mu.leader, Term: l.mu.term, Committed: l.mu.index, Applied: l.mu.index, Learner: l.mu.learner}
}

func (l *soloLog) LeaderChanges() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.changed
}

// elect changes leader and term.
func (l *soloLog) elect(leader api.MemberID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.leader = leader
	l.mu.term++
	close(l.mu.changed)
	l.mu.changed = make(chan struct{})
}

// TransferLeaderTo loses: another member is elected.
func (l *soloLog) TransferLeaderTo(_ context.Context, _ api.MemberID) error {
	if l.Status().Leader != soloMember {
		return api.ErrNotLeader
	}
	l.elect(l.mu.wins)
	return nil
}

func (l *soloLog) setFailure(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.fail = err
}

func (l *soloLog) lastBody(kind uint8) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.last[kind]
}

func (l *soloLog) Call(_ context.Context, _ api.MemberID, _ uint8, payload []byte) ([]byte, error) {
	l.mu.Lock()
	call := l.mu.call
	l.mu.Unlock()
	return call(payload), nil
}

const (
	soloMember  = api.MemberID(0x11)
	soloCluster = api.ClusterID(0x22)
	otherMember = api.MemberID(0x33)
)

// solo is a member on a soloLog, with the whole gRPC path in front.
type solo struct {
	*Server
	log    *soloLog
	clock  *clock.Fake
	store  *mvcc.Store
	kv     pb.KVClient
	lease  pb.LeaseClient
	conn   *grpc.ClientConn
	plain  *grpc.ClientConn // nothing lies below gRPC's server
	engine *engine.Memory

	damaged bool // the test broke the store
}

func newSolo(t testing.TB, change ...func(*Config)) *solo {
	t.Helper()
	fake := clock.NewFake(time.Unix(1_700_000_000, 0))
	cfg := DefaultConfig()
	cfg.Clock, cfg.Logger, cfg.Seed = fake, slog.New(slog.NewTextHandler(io.Discard, nil)), 7
	for _, c := range change {
		c(&cfg)
	}
	s := &solo{clock: fake, engine: engine.NewMemory()}
	s.Server = newServer(cfg, soloMember, soloCluster, newMembers([]Member{{ID: soloMember, PeerURLs: []string{"http://127.0.0.1:2380"}}}))
	store, err := mvcc.Open(mvcc.Config{
		Clock: fake, Engine: s.engine, Logger: cfg.Logger, OnLease: s.lessor.changed,
		OnFatal: func(err error) { t.Errorf("store: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.store = store
	s.Server.store.Store(store)
	s.log = &soloLog{machine: &applier{s: s.Server, store: store}}
	s.log.mu.term, s.log.mu.self, s.log.mu.leader = 1, soloMember, soloMember
	s.log.mu.changed, s.log.mu.last = make(chan struct{}), map[uint8][]byte{}
	s.lead(s.log)

	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { s.lessor.follow(ctx) })
	wait.Go(func() { s.lessor.run(ctx) })
	wait.Go(func() { s.watchLeader(ctx) })
	s.serve(t)
	t.Cleanup(func() {
		cancel()
		wait.Wait()
		for _, err := range store.Check() {
			if s.damaged {
				break
			}
			t.Errorf("check: %v", err)
		}
	})
	waitFor(t, "the lessor to follow the leader", func() bool { return s.lessor.term() == 1 })
	return s
}

// inTime waits for an end while the member's time passes.
func (s *solo) inTime(t testing.TB, ended <-chan error) (err error) {
	t.Helper()
	waitFor(t, "the end", func() bool {
		s.clock.Advance(s.cfg.ElectionTimeout)
		select {
		case err = <-ended:
			return true
		default:
			return false
		}
	})
	return err
}

// serve puts the gRPC server behind in-memory listeners.
func (s *solo) serve(t testing.TB) {
	t.Helper()
	g := s.services()
	s.plain = dialServer(t, g, func(l net.Listener) net.Listener { return l })
	s.conn = dialServer(t, g, s.parts.direct.under)
	s.kv, s.lease = pb.NewKVClient(s.conn), pb.NewLeaseClient(s.conn)
	t.Cleanup(func() {
		g.Stop()
		s.parts.direct.stop()
	})
}

func dialServer(t testing.TB, g *grpc.Server, under func(net.Listener) net.Listener) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	below, done := under(listener), make(chan struct{})
	go func() {
		defer close(done)
		if err := g.Serve(below); err != nil && !errors.Is(err, grpc.ErrServerStopped) { // some tests are over before it begins
			t.Errorf("serve: %v", err)
		}
	}()
	conn, err := grpc.NewClient("passthrough:///solo",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		g.Stop()
		<-done
	})
	return conn
}

// waitFor waits until cond holds, and fails after a while.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func callContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
