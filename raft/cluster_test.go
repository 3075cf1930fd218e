package raft

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/vfs"
)

var verbose = flag.Bool("raft.log", false, "print the members' logs")

const (
	testTick    = 10 * time.Millisecond
	testTimeout = time.Minute // of any wait
)

// toy is a state machine that remembers every command's body, in order. It is
// made durable in the member's file system, so that a crash clone of it holds
// log and state as a power cut would leave them.
type toy struct {
	fs    vfs.FS
	every int // entries between flushes; 0: never by itself
	stall func()

	mu struct {
		sync.Mutex
		toyState
		durable api.Index
		count   int // entries since the last flush
		seen    map[string]bool
		twice   []string
		confs   int
	}
}

type toyState struct {
	Index api.Index
	Term  api.Term
	Conf  *raftpb.ConfState
	List  []string
}

// encode: a line of JSON, then a line for each command.
func (s toyState) encode() []byte {
	list := s.List
	s.List = nil
	b, _ := json.Marshal(s)
	b = append(b, '\n')
	for _, x := range list {
		b = append(append(b, x...), '\n')
	}
	return b
}

const toyFile = "state"

func newToy(fs vfs.FS, every int) *toy {
	s := &toy{fs: fs, every: every, stall: func() {}}
	s.mu.seen = map[string]bool{}
	if data, err := readFile(fs, toyFile); err == nil {
		s.load(data)
	}
	s.mu.durable = s.mu.Index
	return s
}

func (s *toy) load(data []byte) {
	head, list, _ := bytes.Cut(data, []byte("\n"))
	if err := json.Unmarshal(head, &s.mu.toyState); err != nil {
		panic(err)
	}
	s.mu.List = strings.Split(string(list), "\n")
	s.mu.List = s.mu.List[:len(s.mu.List)-1]
	s.mu.seen = map[string]bool{}
	for _, b := range s.mu.List {
		s.mu.seen[b] = true
	}
}

func (s *toy) Apply(entries []Entry) {
	s.stall()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		if e.Index != s.mu.Index+1 || e.Term < s.mu.Term {
			panic(fmt.Sprintf("entry %d/%d after %d/%d", e.Index, e.Term, s.mu.Index, s.mu.Term))
		}
		s.mu.Index, s.mu.Term = e.Index, e.Term
		if e.Conf != nil {
			s.mu.Conf = e.Conf.State
			s.mu.confs++
			e.Conf.Command.Result = e.Conf.State
		}
		for _, c := range e.Commands {
			b := string(c.Body)
			if s.mu.seen[b] {
				s.mu.twice = append(s.mu.twice, b)
			}
			s.mu.seen[b] = true
			s.mu.List = append(s.mu.List, b)
			if c.Wanted {
				c.Result = len(s.mu.List)
			}
		}
	}
	if s.mu.count += len(entries); s.every > 0 && s.mu.count >= s.every {
		s.flushLocked()
	}
}

func (s *toy) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushLocked()
}

func (s *toy) flushLocked() {
	if err := writeFile(s.fs, toyFile, s.mu.toyState.encode()); err != nil {
		return // the file system is gone with its member
	}
	s.mu.durable, s.mu.count = s.mu.Index, 0
}

func (s *toy) Applied() (api.Index, api.Term, *raftpb.ConfState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.Index, s.mu.Term, s.mu.Conf
}

func (s *toy) Durable() api.Index {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.durable
}

func (s *toy) Snapshot() (transport.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushLocked()
	return &toySnapshot{transport.SnapshotMeta{Index: s.mu.Index, Term: s.mu.Term, ConfState: s.mu.Conf}, s.mu.toyState.encode()}, nil
}

func (s *toy) Install(meta transport.SnapshotMeta, path string) error {
	data, err := readFile(s.fs, path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.toyState = toyState{}
	s.load(data)
	if s.mu.Index != meta.Index || s.mu.Term != meta.Term {
		return errors.New("file and envelope differ")
	}
	s.flushLocked()
	return nil
}

func (s *toy) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mu.List)
}

type toySnapshot struct {
	meta transport.SnapshotMeta
	data []byte
}

func (s *toySnapshot) Meta() transport.SnapshotMeta { return s.meta }
func (s *toySnapshot) Size() int64                  { return int64(len(s.data)) }
func (s *toySnapshot) Release()                     {}
func (s *toySnapshot) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, bytes.NewReader(s.data))
}

func readFile(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	_, err = f.ReadAt(data, 0)
	if err == io.EOF {
		err = nil
	}
	return data, err
}

// writeFile replaces a file atomically.
func writeFile(fs vfs.FS, name string, data []byte) error {
	_ = fs.Remove(name + ".new")
	f, err := fs.Create(name + ".new")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := fs.Rename(name+".new", name); err != nil {
		return err
	}
	return fs.SyncDir(".")
}

// cluster is a few members in one process.
type cluster struct {
	t       testing.TB
	rng     *rand.Rand
	clock   clock.Clock
	net     *transport.MemoryNetwork
	peers   []Peer
	members map[api.MemberID]*member
	tune    func(*Config)
	every   int
}

type member struct {
	c     *cluster
	id    api.MemberID
	disk  *vfs.Mem
	fs    vfs.FS // disk, perhaps with faults
	node  *Node  // the test goroutine's; others use current
	live  atomic.Pointer[Node]
	toy   *toy
	stop  context.CancelFunc
	ended chan error
}

func newCluster(t testing.TB, n int, tune func(*Config)) *cluster {
	c := &cluster{t: t, rng: rand.New(rand.NewPCG(1, 2)), clock: clock.System(), members: map[api.MemberID]*member{}, tune: tune, every: 200}
	c.net = transport.NewMemoryNetwork(1, c.clock)
	for i := 1; i <= n; i++ {
		c.peers = append(c.peers, Peer{ID: api.MemberID(i), Context: fmt.Appendf(nil, "member %d", i)})
	}
	for _, p := range c.peers {
		c.members[p.ID] = &member{c: c, id: p.ID, disk: vfs.NewMem(uint64(p.ID))}
	}
	t.Cleanup(c.close)
	return c
}

func (c *cluster) startAll() *cluster {
	for _, p := range c.peers {
		c.members[p.ID].start()
	}
	return c
}

func (c *cluster) close() {
	for _, m := range c.members {
		if m.node != nil {
			m.stop()
			<-m.ended
		}
	}
}

func (m *member) config() Config {
	logger := slog.New(slog.DiscardHandler)
	if *verbose {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("m", m.id)
	}
	if m.fs == nil {
		m.fs = m.disk
	}
	m.toy = newToy(m.fs, m.c.every)
	cfg := Config{
		ID: m.id, Cluster: 7, Peers: m.c.peers, Bootstrap: true,
		FS: m.fs, Dir: "wal", SnapDir: "snap",
		Clock: m.c.clock, Rand: rand.NewPCG(uint64(m.id), m.c.rng.Uint64()),
		Transport: m.c.net.Node(m.id).Store(m.fs, "snap"), StateMachine: m.toy,
		TickInterval: testTick, LogRetention: 1 << 20, SegmentSize: 1 << 20, Logger: logger,
	}
	if m.c.tune != nil {
		m.c.tune(&cfg)
	}
	return cfg
}

func (m *member) start() {
	m.c.t.Helper()
	if err := errors.Join(m.disk.MkdirAll("wal", 0o700), m.disk.MkdirAll("snap", 0o700)); err != nil {
		m.c.t.Fatal(err)
	}
	node, err := Open(m.config())
	if err != nil {
		m.c.t.Fatalf("open member %s: %v", m.id, err)
	}
	m.run(node)
}

func (m *member) run(node *Node) {
	var ctx context.Context
	ctx, m.stop = context.WithCancel(context.Background())
	m.node, m.ended = node, make(chan error, 1)
	m.live.Store(node)
	go func() { m.ended <- node.Run(ctx) }()
}

// kill ends the member as SIGKILL and, with power, as a power cut would.
func (m *member) kill(power bool) {
	m.c.net.Kill(m.id)
	disk := m.disk
	if power {
		disk = disk.CrashClone(m.c.rng)
	} else {
		disk = disk.CrashClone(nil)
	}
	m.disk, m.fs = disk, nil
	m.live.Store(nil)
	m.stop()
	<-m.ended
	m.node = nil
}

// current is the running node, nil when there is none. Any goroutine.
func (m *member) current() *Node { return m.live.Load() }

func (m *member) shutdown() {
	m.c.t.Helper()
	m.live.Store(nil)
	m.stop()
	if err := <-m.ended; err != nil {
		m.c.t.Fatalf("member %s: %v", m.id, err)
	}
	m.node = nil
}

func (c *cluster) wait(what string, cond func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(testTimeout)
	for !cond() {
		if time.Now().After(deadline) {
			for _, m := range c.members {
				if m.node != nil {
					c.t.Logf("member %s: %+v", m.id, m.node.Status())
				}
			}
			c.t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// leader waits for a member that leads and is known to lead by a majority.
func (c *cluster) leader() *member {
	c.t.Helper()
	var leader *member
	c.wait("a leader", func() bool {
		for _, m := range c.members {
			if m.node == nil || m.node.Status().Role != Leader {
				continue
			}
			known := 0
			for _, o := range c.members {
				if o.node != nil && o.node.Status().Leader == m.id {
					known++
				}
			}
			if leader = m; known > len(c.members)/2 {
				return true
			}
		}
		return false
	})
	return leader
}

func (m *member) propose(body string) error {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	node := m.current()
	if node == nil {
		return ErrStopped
	}
	_, err := node.Propose(ctx, 1, "", []byte(body))
	return err
}

func (c *cluster) mustPropose(m *member, body string) {
	c.t.Helper()
	if err := m.propose(body); err != nil {
		c.t.Fatalf("propose %q on %s: %v", body, m.id, err)
	}
}

// settle waits until all running members have applied the same log and checks
// what must hold of it: the same commands in the same order, none twice.
func (c *cluster) settle() []string {
	c.t.Helper()
	c.wait("equal states", func() bool {
		var index api.Index
		for _, m := range c.members {
			if m.node != nil {
				index = max(index, m.node.Status().Last)
			}
		}
		for _, m := range c.members {
			if m.node == nil {
				continue
			}
			s := m.node.Status()
			if s.Applied != index || s.Committed != index || s.Last != index {
				return false
			}
		}
		return true
	})
	var first []string
	for _, m := range c.members {
		if m.node == nil {
			continue
		}
		list := m.toy.list()
		if first == nil {
			first = list
		}
		if !slices.Equal(first, list) {
			c.t.Fatalf("member %s has another order: %d and %d commands", m.id, len(list), len(first))
		}
		if len(m.toy.mu.twice) > 0 {
			c.t.Fatalf("member %s applied twice: %v", m.id, m.toy.mu.twice)
		}
	}
	return first
}
