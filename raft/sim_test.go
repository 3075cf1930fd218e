package raft

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"testing/cryptotest"
	"time"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/vfs"
)

var (
	simSeeds = flag.Int("raft.seeds", 12, "seeds of the simulation")
	simSeed  = flag.Uint64("raft.seed", 1, "first seed of the simulation")
	simTime  = flag.Duration("raft.simtime", 20*time.Second, "simulated time of each seed")
)

// sim drives whole nodes without their goroutines: one goroutine, virtual time,
// a seeded order of everything. Disks lose power in the middle of writes, links
// drop, repeat, delay and cut, members die and come back.
//
// What must hold:
//   - all members apply the same commands at the same index (agree)
//   - no command is applied twice
//   - a command that was acknowledged is in the log for ever
//   - a barrier ends only when all that was acknowledged before is applied
type sim struct {
	t       *testing.T
	rng     *rand.Rand
	now     time.Duration
	events  simQueue
	seq     uint64
	members map[api.MemberID]*simMember
	ids     []api.MemberID
	cut     map[[2]api.MemberID]bool
	faults  bool
	slow    int // one message in so many takes up to two seconds; 0: none
	bad     error

	agreed    map[api.Index]string // what was applied there
	tokens    int
	acked     map[string]bool
	lastAcked api.Index // newest applied index at an acknowledgement
	stats     simStats
}

type simStats struct{ acked, failed, reads, crashes, snapshots, leaders int }

type simMember struct {
	s        *sim
	id       api.MemberID
	disk     *vfs.Mem
	fault    *vfs.Fault
	node     *Node // nil: down
	toy      *toy
	epoch    int
	in       inboxItems
	writing  bool
	applying bool
	campaign int // number of the timer set last
	waiting  []*Command
	reads    []simRead
	checked  api.Index
	crashAt  int // file-system calls until the power fails; 0: it does not
	dead     *vfs.Mem
}

type simRead struct {
	batch *readBatch
	floor api.Index
}

type simEvent struct {
	at  time.Duration
	seq uint64
	run func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *simQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func newSim(t *testing.T, seed uint64, n int) *sim {
	s := &sim{
		t: t, rng: rand.New(rand.NewPCG(seed, 3)), members: map[api.MemberID]*simMember{},
		cut: map[[2]api.MemberID]bool{}, agreed: map[api.Index]string{}, acked: map[string]bool{},
	}
	cryptotest.SetGlobalRandom(t, seed) // the library's election jitter
	for i := 1; i <= n; i++ {
		id := api.MemberID(i)
		s.ids = append(s.ids, id)
		s.members[id] = &simMember{s: s, id: id, disk: vfs.NewMem(seed + uint64(i))}
	}
	return s
}

func (s *sim) after(d time.Duration, run func()) {
	s.seq++
	heap.Push(&s.events, simEvent{s.now + d, s.seq, run})
}

func (s *sim) fail(format string, args ...any) {
	if s.bad == nil {
		s.bad = fmt.Errorf("at %v: %s", s.now, fmt.Sprintf(format, args...))
	}
}

// run lets the events happen until the time is up.
func (s *sim) run(until time.Duration) {
	for len(s.events) > 0 && s.bad == nil && s.events[0].at <= until {
		e := heap.Pop(&s.events).(simEvent)
		s.now = e.at
		e.run()
	}
	s.now = until
}

func (m *simMember) start() {
	s := m.s
	m.epoch++
	m.dead, m.crashAt, m.writing, m.applying = nil, 0, false, false
	m.waiting, m.reads, m.in = nil, nil, inboxItems{}
	m.fault = vfs.NewFault(m.disk, vfs.Rule{Hook: m.beforeCall})
	if err := errors.Join(m.disk.MkdirAll("wal", 0o700), m.disk.MkdirAll("snap", 0o700)); err != nil {
		s.fail("%v", err)
		return
	}
	m.toy = newToy(m.fault, 5+s.rng.IntN(40))
	m.checked = m.toy.mu.Index
	var peers []Peer
	for _, id := range s.ids {
		peers = append(peers, Peer{ID: id})
	}
	logger := slog.New(slog.DiscardHandler)
	if *verbose {
		logger = slog.New(slog.NewTextHandler(simLog{s}, &slog.HandlerOptions{Level: slog.LevelDebug})).With("m", m.id)
	}
	node, err := Open(Config{
		ID: m.id, Cluster: 7, Peers: peers, Bootstrap: true, FS: m.fault, Dir: "wal", SnapDir: "snap",
		Clock: clock.NewFake(time.Unix(0, 0)), Rand: rand.NewPCG(s.rng.Uint64(), 1), Transport: &simTransport{s, m},
		StateMachine: m.toy, TickInterval: 100 * time.Millisecond, RequestTimeout: 5 * time.Second,
		LogRetention: 4 << 10, SegmentSize: 8 << 10, Logger: logger,
	})
	if err != nil {
		s.fail("open member %s: %v", m.id, err)
		return
	}
	m.node = node
	for _, id := range s.ids {
		if o := s.members[id]; o != m && o.node != nil {
			m.meet(o)
			o.meet(m)
		}
	}
	m.after(time.Duration(s.rng.Int64N(int64(100*time.Millisecond))), m.tick)
	m.turn()
}

type simLog struct{ s *sim }

func (l simLog) Write(p []byte) (int, error) { return fmt.Fprintf(os.Stderr, "%v %s", l.s.now, p) }

func (m *simMember) meet(o *simMember) {
	m.after(m.s.delay(), func() { handler{m.node}.PeerUp(o.id); m.turn() })
}

// after runs fn unless the member has died meanwhile.
func (m *simMember) after(d time.Duration, fn func()) {
	epoch := m.epoch
	m.s.after(d, func() {
		if m.node != nil && m.epoch == epoch {
			fn()
		}
	})
}

func (m *simMember) tick() {
	m.node.tick()
	m.turn()
	m.after(100*time.Millisecond, m.tick)
}

// turn lets the node react and plans the work of its other goroutines.
func (m *simMember) turn() {
	s := m.s
	for range 2 { // the second for what the first has posted
		t := m.node.turn(&m.in)
		checkReads(s.t, m.node)
		if t.campaign != 0 {
			m.campaign++
		}
		if due := m.campaign; t.campaign > 0 {
			m.after(t.campaign, func() {
				if m.campaign == due {
					m.node.core.campaignDue()
					m.turn()
				}
			})
		}
		if t.gather > 0 {
			m.after(t.gather, func() { m.node.core.gatherDue(); m.turn() })
		}
		m.node.work.Wait()
	}
	if !m.writing && len(m.node.append.tasks.mu.items) > 0 {
		m.writing = true
		m.after(s.diskTime(), m.write)
	}
	if !m.applying && len(m.node.applies.mu.items) > 0 {
		m.applying = true
		m.after(time.Duration(s.rng.Int64N(int64(2*time.Millisecond))), m.apply)
	}
	m.look()
}

func (s *sim) diskTime() time.Duration {
	if s.faults && s.rng.IntN(2000) == 0 {
		return time.Duration(s.rng.Int64N(int64(3 * time.Second)))
	}
	return 100*time.Microsecond + time.Duration(s.rng.ExpFloat64()*float64(500*time.Microsecond))
}

// write is the append goroutine's turn. It waits for apply only to install.
func (m *simMember) write() {
	m.writing = false
	if m.s.faults && m.s.rng.IntN(300) == 0 {
		m.crashAt = 1 + m.s.rng.IntN(4)
	}
	// A wake left over from work that m.apply is planned for would let the two
	// run at once; from here on only an install wakes, and its sender waits.
	select {
	case <-m.node.applies.wake:
	default:
	}
	done := make(chan error, 1)
	tasks := m.node.append.tasks.take(nil)
	go func() { done <- m.node.append.process(context.Background(), tasks) }()
	var err error
	for waiting := true; waiting; {
		select {
		case err = <-done:
			waiting = false
		case <-m.node.applies.wake:
			m.applyNow()
		}
	}
	m.afterWork(err)
}

func (m *simMember) apply() {
	m.applying = false
	m.applyNow()
	m.afterWork(nil)
}

func (m *simMember) applyNow() {
	if err := m.node.apply.process(m.node.applies.take(nil)); err != nil && m.dead == nil {
		m.s.fail("member %s: %v", m.id, err)
	}
}

func (m *simMember) afterWork(err error) {
	if m.dead != nil {
		m.down(m.dead)
		return
	}
	if err != nil {
		m.s.fail("member %s: %v", m.id, err)
		return
	}
	m.crashAt = 0
	m.check()
	m.turn()
}

// beforeCall fails the power in the middle of a write.
func (m *simMember) beforeCall(vfs.Call) {
	if m.crashAt > 0 && m.dead == nil {
		if m.crashAt--; m.crashAt == 0 {
			m.dead = m.disk.CrashClone(m.s.rng)
		}
	}
}

// down ends the member; what it had told nobody is gone.
func (m *simMember) down(disk *vfs.Mem) {
	s := m.s
	s.stats.crashes++
	m.node, m.disk = nil, disk
	m.epoch++
	for _, id := range s.ids {
		if o := s.members[id]; o.node != nil && s.rng.IntN(4) > 0 {
			o.after(s.delay(), func() { handler{o.node}.PeerDown(m.id); o.turn() })
		}
	}
	m.s.after(time.Duration(s.rng.Int64N(int64(3*time.Second))), func() {
		if m.node == nil {
			m.start()
		}
	})
}

// check compares what the member applied with what others did.
func (m *simMember) check() {
	m.toy.mu.Lock()
	defer m.toy.mu.Unlock()
	if len(m.toy.mu.twice) > 0 {
		m.s.fail("member %s applied twice: %v", m.id, m.toy.mu.twice)
	}
	index := m.toy.mu.Index
	if index == m.checked {
		return
	}
	m.checked = index
	state := fmt.Sprint(len(m.toy.mu.List), m.toy.mu.List[max(0, len(m.toy.mu.List)-5):], m.toy.mu.Term)
	if was, ok := m.s.agreed[index]; ok && was != state {
		m.s.fail("member %s at %d: %s, others had %s", m.id, index, state, was)
	}
	m.s.agreed[index] = state
}

// look finds out which callers and readers have been answered.
func (m *simMember) look() {
	s := m.s
	left := m.waiting[:0]
	for _, c := range m.waiting {
		select {
		case err := <-c.done:
			if err == nil {
				s.acked[string(c.Body)] = true
				s.stats.acked++
				s.lastAcked = max(s.lastAcked, api.Index(m.node.applied.Load()))
			} else {
				s.stats.failed++
			}
		default:
			left = append(left, c)
		}
	}
	m.waiting = left
	reads := m.reads[:0]
	for _, r := range m.reads {
		select {
		case <-r.batch.done:
			if s.stats.reads++; r.batch.err == nil && api.Index(m.node.applied.Load()) < r.floor {
				s.fail("member %s read at %d what was acknowledged at %d", m.id, m.node.applied.Load(), r.floor)
			}
		default:
			reads = append(reads, r)
		}
	}
	m.reads = reads
}

// client proposes and reads now and then, on any member.
func (s *sim) client() {
	if m := s.members[s.ids[s.rng.IntN(len(s.ids))]]; m.node != nil {
		if s.rng.IntN(3) == 0 {
			if b, err := m.node.inbox.join(m.node.ticks.Load(), nil); err == nil {
				m.reads = append(m.reads, simRead{b, s.lastAcked})
			}
		}
		for range 1 + s.rng.IntN(4) {
			s.tokens++
			c := &Command{Kind: 1, ID: uint64(s.tokens), Body: fmt.Appendf(nil, "%d", s.tokens), born: m.node.ticks.Load(), done: make(chan error, 1)}
			if m.node.inbox.propose(c) == nil {
				m.waiting = append(m.waiting, c)
			}
		}
		m.turn()
	}
	s.after(time.Duration(s.rng.ExpFloat64()*float64(8*time.Millisecond)), s.client)
}

// nemesis breaks something every now and then.
func (s *sim) nemesis() {
	s.after(time.Duration(s.rng.Int64N(int64(3*time.Second))), s.nemesis)
	if !s.faults {
		return
	}
	m := s.members[s.ids[s.rng.IntN(len(s.ids))]]
	switch s.rng.IntN(6) {
	case 0:
		if m.node != nil {
			m.down(m.disk.CrashClone(s.rng))
		}
	case 1:
		for _, id := range s.ids { // the power of the whole room
			if m := s.members[id]; m.node != nil && s.rng.IntN(4) > 0 {
				m.down(m.disk.CrashClone(s.rng))
			}
		}
	case 2, 3:
		oneWay := s.rng.IntN(2) == 0
		for _, o := range s.ids {
			s.cut[[2]api.MemberID{m.id, o}] = true
			s.cut[[2]api.MemberID{o, m.id}] = !oneWay
		}
		s.after(time.Duration(s.rng.Int64N(int64(3*time.Second))), func() { clear(s.cut) })
	case 4:
		if m.node != nil { // wrong news of a death
			for _, o := range s.ids {
				if o != m.id {
					handler{m.node}.PeerDown(o)
					m.after(s.delay(), func() { handler{m.node}.PeerUp(o); m.turn() })
				}
			}
			m.turn()
		}
	case 5:
		if m.node != nil {
			m.node.core.transfer(0)
			m.turn()
		}
	}
}

func (s *sim) delay() time.Duration {
	return 100*time.Microsecond + time.Duration(s.rng.ExpFloat64()*float64(400*time.Microsecond))
}

// deliver brings something to a member, or does not, or twice.
func (s *sim) deliver(from, to api.MemberID, call func(h handler)) {
	if s.cut[[2]api.MemberID{from, to}] || s.faults && s.rng.IntN(100) == 0 {
		return
	}
	copies := 1
	if s.faults && s.rng.IntN(100) == 0 {
		copies = 2
	}
	for ; copies > 0; copies-- {
		d := s.delay()
		if s.faults && s.slow > 0 && s.rng.IntN(s.slow) == 0 {
			d += time.Duration(s.rng.Int64N(int64(2 * time.Second)))
		}
		if copies > 1 {
			d += time.Duration(s.rng.Int64N(int64(time.Second)))
		}
		if m := s.members[to]; m != nil {
			m.after(d, func() { call(handler{m.node}); m.turn() })
		}
	}
}

// simTransport is one member's access to the simulated network.
type simTransport struct {
	s *sim
	m *simMember
}

func (t *simTransport) Start(transport.Handler) error { return nil }
func (t *simTransport) SetPeers([]transport.Peer)     {}
func (t *simTransport) Refuse(...api.MemberID)        {}
func (t *simTransport) ActiveSince(api.MemberID) time.Time {
	return time.Time{}
}
func (t *simTransport) Close() error { return nil }

func (t *simTransport) Send(to api.MemberID, msgs []*raftpb.Message) {
	if t.m.dead != nil {
		return // the power failed before this
	}
	for _, m := range msgs {
		t.s.deliver(t.m.id, to, func(h handler) { h.Message(proto.Clone(m).(*raftpb.Message)) })
	}
}

func (t *simTransport) Forward(to api.MemberID, term api.Term, batch []byte) bool {
	t.s.deliver(t.m.id, to, func(h handler) { h.Forwarded(t.m.id, term, bytes.Clone(batch)) })
	return true
}

func (t *simTransport) SendSnapshot(to api.MemberID, msg *raftpb.Message, snap transport.Snapshot) {
	var data bytes.Buffer
	_, _ = snap.WriteTo(&data)
	arrived := false
	t.s.deliver(t.m.id, to, func(h handler) {
		if arrived {
			return
		}
		arrived = true
		t.s.stats.snapshots++
		disk := t.s.members[to].disk
		path := fmt.Sprintf("snap/%d-%d", snap.Meta().Index, t.s.seq)
		if err := writeFile(disk, path, data.Bytes()); err != nil {
			t.s.fail("%v", err)
		}
		h.SnapshotReceived(proto.Clone(msg).(*raftpb.Message), snap.Meta(), path)
	})
	t.m.after(5*time.Millisecond, func() { handler{t.m.node}.SnapshotSent(to, arrived); t.m.turn() })
}

func (t *simTransport) Call(context.Context, api.MemberID, uint8, []byte) ([]byte, error) {
	return nil, io.ErrClosedPipe
}

func simulate(t *testing.T, seed uint64, n int, d time.Duration) *sim {
	s := newSim(t, seed, n)
	for _, id := range s.ids {
		s.members[id].start()
	}
	s.faults = true
	if seed%3 == 0 {
		s.slow = 20
	}
	s.after(0, s.client)
	s.after(0, s.nemesis)
	s.run(d)
	// Peace: everybody comes back and must agree on everything acknowledged.
	s.faults = false
	clear(s.cut)
	s.run(d + 20*time.Second)
	if s.bad == nil {
		s.checkEnd()
	}
	return s
}

func (s *sim) checkEnd() {
	for _, id := range s.ids {
		m := s.members[id]
		if m.node == nil {
			s.fail("member %s is down", id)
			return
		}
		for token := range s.acked {
			if !m.toy.mu.seen[token] {
				// The last ones may not have reached everybody yet.
				if m.node.Status().Applied >= s.lastAcked {
					s.fail("member %s lost %s", id, token)
				}
			}
		}
		if m.node.Status().Applied+1000 < s.lastAcked {
			s.fail("member %s is stuck at %+v", id, m.node.Status())
		}
		if m.node.core.role == etcdraft.StateLeader {
			s.stats.leaders++
		}
	}
	if s.stats.leaders != 1 {
		s.fail("%d leaders", s.stats.leaders)
	}
}

func TestSimulation(t *testing.T) {
	for seed := *simSeed; seed < *simSeed+uint64(*simSeeds); seed++ {
		n := 3
		if seed%4 == 0 {
			n = 5
		}
		s := simulate(t, seed, n, *simTime)
		t.Logf("seed %d: %+v of %d", seed, s.stats, s.tokens)
		if s.bad != nil {
			t.Fatalf("FAIL seed=%d %v | replay: go test ./raft -run TestSimulation -raft.seed %d -raft.seeds 1 -raft.simtime %v", seed, s.bad, seed, *simTime)
		}
	}
}

func TestSimulationRepeats(t *testing.T) {
	a, b := simulate(t, 5, 3, 3*time.Second), simulate(t, 5, 3, 3*time.Second)
	if a.stats != b.stats || a.seq != b.seq || a.tokens != b.tokens {
		t.Fatalf("the same seed went two ways: %+v %d, %+v %d", a.stats, a.seq, b.stats, b.seq)
	}
}
