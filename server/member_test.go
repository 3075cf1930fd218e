package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/vfs"
)

// Whole members: real consensus and real client sockets, on a file system, an
// engine and a network in memory.

// testCluster is the world of its members.
type testCluster struct {
	net     *transport.MemoryNetwork
	names   []string
	initial string
	disks   map[string]*vfs.Mem
	engines map[string]*engine.Memory // what is durable of each member's database
	change  func(*Config)
	wrap    func(engine.Engine) engine.Engine             // of each engine that is opened; nil: none
	wired   func(transport.Transport) transport.Transport // what a member speaks through; nil: as it is
	lives   atomic.Uint64                                 // a seed of its own for each start: proposals are told apart by it
	joins   map[string]bool                               // members that were added to the running cluster
	mu      struct {
		sync.Mutex
		running map[string]*Server
	}
}

func newTestCluster(size int) *testCluster {
	c := &testCluster{
		net: transport.NewMemoryNetwork(1, clock.System()), disks: map[string]*vfs.Mem{}, engines: map[string]*engine.Memory{},
	}
	c.mu.running, c.joins = map[string]*Server{}, map[string]bool{}
	for range size {
		c.place()
	}
	return c
}

// place makes room for one more member: a name, a peer URL and an empty disk.
func (c *testCluster) place() (name, url string) {
	i := len(c.names)
	name, url = fmt.Sprint("m", i), fmt.Sprintf("http://127.0.0.1:%d", 2380+i)
	c.names = append(c.names, name)
	c.disks[name], c.engines[name] = vfs.NewMem(uint64(i)), engine.NewMemory()
	if c.initial != "" {
		c.initial += ","
	}
	c.initial += name + "=" + url
	return name, url
}

// testMember is a running member.
type testMember struct {
	*Server
	stop func()
	done chan error
	conn *grpc.ClientConn
}

func (c *testCluster) config(name string) Config {
	any := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg := DefaultConfig()
	cfg.Name, cfg.DataDir, cfg.InitialCluster = name, "/data", c.initial
	cfg.ListenPeerURLs, cfg.ListenClientURLs = []url.URL{any}, []url.URL{any}
	members, err := parseInitialCluster(c.initial, cfg.ClusterToken)
	if err != nil {
		panic(err)
	}
	for _, m := range members {
		if m.Name == name {
			cfg.AdvertisePeerURLs = []url.URL{mustURL(m.PeerURLs[0])}
		}
	}
	cfg.HeartbeatInterval, cfg.ElectionTimeout = 10*time.Millisecond, 100*time.Millisecond
	cfg.Clock, cfg.FS, cfg.Seed = clock.System(), c.disks[name], c.lives.Add(1)<<8+uint64(name[1])
	cfg.NewCluster = !c.joins[name]
	cfg.Logger = slog.New(slog.DiscardHandler)
	if os.Getenv("KEELSON_TEST_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("member", name)
	}
	if c.change != nil {
		c.change(&cfg)
	}
	cfg.LogSegmentBytes = 64 << 10
	cfg.Engine = func(path string) (engine.Engine, error) { return c.engine(name, cfg.FS, path) }
	return cfg
}

func (c *testCluster) engine(name string, fs vfs.FS, path string) (engine.Engine, error) {
	file, err := fs.Open(path)
	if errors.Is(err, vfs.ErrNotExist) {
		c.engines[name] = c.engines[name].Crash()
		return c.wrapped(sizedEngine{c.engines[name]}), nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	e, err := engine.LoadMemory(&fileReader{file: file})
	if err == nil {
		c.engines[name] = e
		err = fs.Remove(path)
	}
	return c.wrapped(sizedEngine{e}), err
}

func (c *testCluster) world(name string) world {
	return world{
		transport: func(s *Server, _ *home) (transport.Transport, error) {
			t := c.net.Node(s.id).Store(s.cfg.FS, s.cfg.snapDir())
			if c.wired == nil {
				return t, nil
			}
			return c.wired(t), nil
		},
		ask:    c.ask,
		steady: 50 * time.Millisecond,
	}
}

// wrapped is the engine that a member sees.
func (c *testCluster) wrapped(e engine.Engine) engine.Engine {
	if c.wrap == nil {
		return e
	}
	return c.wrap(e)
}

// sizedEngine's views know exactly how much they write; the memory engine's own
// give the size of what they hold.
type sizedEngine struct{ *engine.Memory }

func (e sizedEngine) View() (engine.View, error) {
	v, err := e.Memory.View()
	return sizedView{v}, err
}

type sizedView struct{ engine.View }

func (v sizedView) Size() int64 {
	n, err := v.WriteTo(io.Discard)
	if err != nil {
		panic(err)
	}
	return n
}

// fileReader reads a file from its beginning.
type fileReader struct {
	file vfs.File
	off  int64
}

func (r *fileReader) Read(p []byte) (int, error) {
	n, err := r.file.ReadAt(p, r.off)
	r.off += int64(n)
	return n, err
}

func (c *testCluster) start(t testing.TB, name string) *testMember {
	t.Helper()
	s, err := open(c.config(name), c.world(name))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &testMember{Server: s, stop: cancel, done: make(chan error, 1)}
	c.mu.Lock()
	c.mu.running[name] = s
	c.mu.Unlock()
	go func() {
		err := s.Run(ctx)
		c.mu.Lock()
		if c.mu.running[name] == s {
			delete(c.mu.running, name)
		}
		c.mu.Unlock()
		m.done <- err
	}()
	m.conn, err = grpc.NewClient("passthrough:///"+s.parts.sockets.client[0].Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.conn.Close()
		m.end(t)
	})
	return m
}

// startAll starts the members in the order of their names.
func (c *testCluster) startAll(t testing.TB) (members []*testMember) {
	t.Helper()
	for _, name := range c.names {
		members = append(members, c.start(t, name))
	}
	return members
}

// end stops the member and checks its store.
func (m *testMember) end(t testing.TB) {
	t.Helper()
	if m.done == nil {
		return
	}
	m.stop()
	select {
	case err := <-m.done:
		if err != nil {
			t.Errorf("member %s ended: %v", m.cfg.Name, err)
		}
	case <-time.After(time.Minute):
		t.Errorf("member %s does not end", m.cfg.Name)
	}
	m.done = nil
}

func (m *testMember) kv() pb.KVClient { return pb.NewKVClient(m.conn) }

func TestMemberServesAndRestarts(t *testing.T) {
	c := newTestCluster(1)
	m := c.start(t, "m0")
	ctx := callContext(t)
	for i := range 20 {
		resp, err := m.kv().Put(ctx, &pb.PutRequest{Key: []byte(fmt.Sprint("k", i)), Value: []byte("v")})
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(i + 2); resp.Header.Revision != want {
			t.Errorf("put %d is at revision %d, want %d", i, resp.Header.Revision, want)
		}
	}
	watch, err := pb.NewWatchClient(m.conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte("k1"), StartRevision: 2}
	if err := watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		resp, err := watch.Recv()
		if err != nil || resp.Created != want || !want && len(resp.Events) != 1 {
			t.Fatalf("watch answers %v, %v", resp, err)
		}
	}
	m.end(t)
	again := c.start(t, "m0")
	resp, err := again.kv().Range(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), CountOnly: true})
	if err != nil || resp.Count != 20 || resp.Header.Revision != 21 {
		t.Fatalf("after a restart: %v, %v", resp, err)
	}
	if list := again.members.list(); len(list) != 1 || list[0].Name != "m0" || len(list[0].ClientURLs) == 0 {
		t.Errorf("members are %+v", list)
	}
	for _, err := range again.Store().Check() {
		t.Error(err)
	}
}

// leader waits for a leader that all given members agree on.
func leader(t testing.TB, members ...*testMember) *testMember {
	t.Helper()
	var found *testMember
	waitFor(t, "a leader", func() bool {
		found = nil
		for _, m := range members {
			if m.node.Status().Leader == 0 || m.node.Status().Leader != members[0].node.Status().Leader {
				return false
			}
			if m.node.Status().Leader == m.id {
				found = m
			}
		}
		return found != nil
	})
	return found
}

func TestThreeMembers(t *testing.T) {
	c := newTestCluster(3)
	members := c.startAll(t)
	ctx := callContext(t)
	first := leader(t, members...)
	if _, err := pb.NewLeaseClient(members[0].conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 5, TTL: 600}); err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		put := &pb.PutRequest{Key: []byte(fmt.Sprint("k", i)), Value: []byte("v"), Lease: 5}
		if _, err := m.kv().Put(ctx, put); err != nil {
			t.Fatal(err)
		}
		// Every member reads what any member acknowledged.
		for _, o := range members {
			resp, err := o.kv().Range(ctx, &pb.RangeRequest{Key: put.Key})
			if err != nil || resp.Count != 1 || resp.Header.MemberId != uint64(o.id) {
				t.Fatalf("%s reads %v, %v", o.cfg.Name, resp, err)
			}
		}
		askLeases(ctx, t, m)
	}
	first.end(t)
	var left []*testMember
	for _, m := range members {
		if m != first {
			left = append(left, m)
		}
	}
	second := leader(t, left...)
	if second == first {
		t.Fatal("a stopped member leads")
	}
	for _, m := range left {
		if _, err := m.kv().Put(ctx, &pb.PutRequest{Key: []byte("after"), Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		askLeases(ctx, t, m)
	}
	back := c.start(t, first.cfg.Name)
	waitFor(t, "the member to catch up", func() bool { return back.Store().Revision() == second.Store().Revision() })
}

// askLeases asks a member, whether it leads or not, for lease 5.
func askLeases(ctx context.Context, t *testing.T, m *testMember) {
	t.Helper()
	lease := pb.NewLeaseClient(m.conn)
	ttl, err := lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 5, Keys: true})
	if err != nil || ttl.GrantedTTL != 600 || ttl.TTL < 590 || len(ttl.Keys) == 0 {
		t.Fatalf("%s: time to live %v, %v", m.cfg.Name, ttl, err)
	}
	stream, err := lease.LeaseKeepAlive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[int64]int64{5: 600, 6: 0} {
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil || resp.ID != id || resp.TTL != want || resp.Header.MemberId != uint64(m.id) {
			t.Fatalf("%s: keep-alive of %d: %v, %v", m.cfg.Name, id, resp, err)
		}
	}
}

func TestSnapshotReplacesTheStore(t *testing.T) {
	c := newTestCluster(3)
	c.change = func(cfg *Config) { cfg.LogRetentionBytes = 1 << 10 }
	members := c.startAll(t)
	ctx := callContext(t)
	first := leader(t, members...)
	behind := members[0]
	if behind == first {
		behind = members[1]
	}
	watch, err := pb.NewWatchClient(behind.conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte("k")}
	if err := watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	var others []api.MemberID
	for _, m := range members {
		if m != behind {
			others = append(others, m.id)
		}
	}
	c.net.Partition(others, []api.MemberID{behind.id})
	old := behind.Store()
	value := make([]byte, 16<<10) // the tail is flushed by its size, not by time
	status := func() api.Index { return first.parts.node.Status().First }
	for i := 0; status() < 20; i++ {
		if i > 3000 {
			t.Fatalf("the log still begins at %d", status())
		}
		if _, err := first.kv().Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	c.net.Heal()
	waitFor(t, "the snapshot to be installed", func() bool { return behind.Store() != old })
	waitFor(t, "the member to catch up", func() bool { return behind.Store().Revision() == first.Store().Revision() })
	// The watch goes on over the new store, without a gap.
	last := int64(first.Store().Revision())
	for next := int64(2); next <= last; {
		resp, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range resp.Events {
			if e.Kv.ModRevision != next {
				t.Fatalf("the watch shows revision %d, want %d", e.Kv.ModRevision, next)
			}
			next++
		}
	}
	resp, err := behind.kv().Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	if err != nil || resp.Count != 1 || resp.Header.Revision != int64(first.Store().Revision()) {
		t.Errorf("after the snapshot: %v, %v", resp.GetHeader(), err)
	}
	for _, err := range behind.Store().Check() {
		t.Error(err)
	}
	if len(behind.members.list()) != 3 {
		t.Errorf("members are %v", behind.members.list())
	}
}

// ask answers for the peer port of a running member.
func (c *testCluster) ask(*Config) asker {
	return func(ctx context.Context, url string) (*announcement, error) {
		c.mu.Lock()
		var found *Server
		for _, s := range c.mu.running {
			if slices.Contains(urlStrings(s.cfg.AdvertisePeerURLs), url) {
				found = s
			}
		}
		c.mu.Unlock()
		if found == nil {
			return nil, syscall.ECONNREFUSED
		}
		b, err := found.announce(ctx)
		if err != nil {
			return nil, err
		}
		a := &announcement{}
		return a, json.Unmarshal(b, a)
	}
}
