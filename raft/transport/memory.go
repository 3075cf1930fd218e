package transport

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
)

// memoryQueue bounds the messages on their way over one link, so that a test
// with a stuck receiver sees drops as it would on a real network.
const memoryQueue = 4096

// Faults says what a link does to messages. The zero value is a perfect link.
type Faults struct {
	Drop      float64 // probability that a message is lost
	Duplicate float64 // probability that a message arrives twice
	// Each message takes a time drawn from [MinDelay, MaxDelay]. Order within a
	// class is kept all the same.
	MinDelay, MaxDelay time.Duration
}

// MemoryNetwork connects transports of one process. Each link draws from its own
// source, seeded by the network's seed and the two ids, so that what one link
// does to its n-th message does not depend on the traffic of the others.
type MemoryNetwork struct {
	seed  uint64
	clock clock.Clock
	mu    struct {
		sync.Mutex
		nodes  map[api.MemberID]*MemoryNode // the living ones
		links  map[linkKey]*memoryLink
		faults Faults // of links without their own
		seq    uint64
	}
}

type linkKey struct{ from, to api.MemberID }

// memoryLink is guarded by MemoryNetwork.mu.
type memoryLink struct {
	rng     *rand.Rand
	cut     bool
	own     *Faults
	pending int
	lastDue [classes]time.Time
}

// NewMemoryNetwork returns a network without nodes and without faults.
func NewMemoryNetwork(seed uint64, clk clock.Clock) *MemoryNetwork {
	n := &MemoryNetwork{seed: seed, clock: clk}
	n.mu.nodes = map[api.MemberID]*MemoryNode{}
	n.mu.links = map[linkKey]*memoryLink{}
	return n
}

// Node returns a new transport for the member. An earlier one of the same id is
// killed first, as a restarted process replaces a dead one.
func (n *MemoryNetwork) Node(id api.MemberID) *MemoryNode {
	n.Kill(id)
	m := &MemoryNode{net: n, id: id, wake: make(chan struct{}, 1), gone: make(chan struct{}), done: make(chan struct{})}
	m.mu.peers = map[api.MemberID]bool{}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.nodes[id] = m
	return m
}

// SetFaults sets the faults of all links that have none of their own.
func (n *MemoryNetwork) SetFaults(f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.faults = f
}

// SetLinkFaults sets the faults of one direction.
func (n *MemoryNetwork) SetLinkFaults(from, to api.MemberID, f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkLocked(from, to).own = &f
}

// Cut silently loses everything from one member to another. Nobody is told:
// only a missing heartbeat shows it.
func (n *MemoryNetwork) Cut(from, to api.MemberID) { n.setCut(from, to, true) }

// Restore ends a Cut.
func (n *MemoryNetwork) Restore(from, to api.MemberID) { n.setCut(from, to, false) }

func (n *MemoryNetwork) setCut(from, to api.MemberID, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkLocked(from, to).cut = cut
}

// Partition cuts both directions between members of different groups and
// restores all others. A member in no group is alone.
func (n *MemoryNetwork) Partition(groups ...[]api.MemberID) {
	group := map[api.MemberID]int{}
	for g, ids := range groups {
		for _, id := range ids {
			group[id] = g + 1
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for a := range n.mu.nodes {
		for b := range n.mu.nodes {
			n.linkLocked(a, b).cut = a != b && (group[a] == 0 || group[a] != group[b])
		}
	}
}

// Heal ends all cuts and all faults.
func (n *MemoryNetwork) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.faults = Faults{}
	for _, l := range n.mu.links {
		l.cut, l.own = false, nil
	}
}

// Kill ends a member as SIGKILL would: what it had queued or not yet received is
// lost, and all who have it as a peer are told PeerDown. It does not wait for a
// handler call of the member that is under way.
func (n *MemoryNetwork) Kill(id api.MemberID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.killLocked(id)
}

func (n *MemoryNetwork) killLocked(id api.MemberID) {
	m := n.mu.nodes[id]
	if m == nil {
		return
	}
	delete(n.mu.nodes, id)
	close(m.gone)
	for k, l := range n.mu.links {
		if k.from == id || k.to == id {
			l.pending, l.lastDue = 0, [classes]time.Time{}
		}
	}
	if !m.isStarted() {
		return // nobody had been told that it was up
	}
	for _, other := range n.mu.nodes {
		other.dropFrom(id)
		if other.hasPeer(id) {
			other.tell(func(h Handler) { h.PeerDown(id) })
		}
	}
}

func (n *MemoryNetwork) linkLocked(from, to api.MemberID) *memoryLink {
	k := linkKey{from, to}
	l := n.mu.links[k]
	if l == nil {
		l = &memoryLink{rng: rand.New(rand.NewPCG(n.seed, uint64(from)*0x9e3779b97f4a7c15^uint64(to)))}
		n.mu.links[k] = l
	}
	return l
}

// fate is what a link decided about one message.
type fate struct {
	target *MemoryNode
	due    []time.Time // one for each copy that arrives
	full   bool
	dead   bool // no such process: a real dial would be refused
}

// decide draws the fate of one message and counts it as on its way.
func (n *MemoryNetwork) decide(from *MemoryNode, to api.MemberID, class class) (fate, uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	target := n.mu.nodes[to]
	if target == nil || !target.isStarted() || n.mu.nodes[from.id] != from {
		return fate{dead: true}, 0
	}
	l := n.linkLocked(from.id, to)
	faults := n.mu.faults
	if l.own != nil {
		faults = *l.own
	}
	// All draws happen for each message, so that the n-th message meets the
	// same luck whatever happened to the ones before.
	lost, twice, delay := l.rng.Float64() < faults.Drop, l.rng.Float64() < faults.Duplicate, l.rng.Float64()
	if l.cut || lost {
		return fate{}, 0
	}
	if l.pending >= memoryQueue {
		return fate{full: true}, 0
	}
	due := n.clock.Now().Add(faults.MinDelay + time.Duration(delay*float64(faults.MaxDelay-faults.MinDelay)))
	if due.Before(l.lastDue[class]) {
		due = l.lastDue[class]
	}
	l.lastDue[class] = due
	f := fate{target: target, due: []time.Time{due}}
	if twice {
		f.due = append(f.due, due.Add(faults.MaxDelay))
	}
	l.pending += len(f.due)
	n.mu.seq += uint64(len(f.due))
	return f, n.mu.seq - uint64(len(f.due))
}

func (n *MemoryNetwork) arrived(from *MemoryNode, to api.MemberID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.linkLocked(from.id, to); n.mu.nodes[from.id] == from && l.pending > 0 {
		l.pending--
	}
}

// MemoryNode is one member's transport on a MemoryNetwork.
//
// One goroutine (run) calls the handler for messages, forwards and peer events, in
// the order of their due times; snapshots and calls have goroutines of their own.
type MemoryNode struct {
	net  *MemoryNetwork
	id   api.MemberID
	wake chan struct{}
	gone chan struct{}  // closed when the node was killed or closed
	done chan struct{}  // closed when run has ended
	work sync.WaitGroup // snapshots under way

	// Lock order: MemoryNetwork.mu before MemoryNode.mu.
	mu struct {
		sync.Mutex
		handler Handler
		started bool
		peers   map[api.MemberID]bool
		inbox   inbox
		events  uint64 // told so far
		fs      vfs.FS
		snapDir string
		snaps   *snapshotDir // made by the first snapshot
	}
}

var _ Transport = (*MemoryNode)(nil)

// Store says where received snapshots go. Without it they are refused.
func (m *MemoryNode) Store(fs vfs.FS, snapDir string) *MemoryNode {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.fs, m.mu.snapDir = fs, snapDir
	return m
}

// Start implements Transport.
func (m *MemoryNode) Start(h Handler) error {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	if m.net.mu.nodes[m.id] != m {
		return ErrClosed
	}
	m.mu.Lock()
	if m.mu.started {
		m.mu.Unlock()
		return fmt.Errorf("transport: member %s was started twice", m.id)
	}
	m.mu.handler, m.mu.started = h, true
	m.mu.Unlock()
	go m.run(h)
	for _, other := range m.net.mu.nodes {
		m.meetLocked(other)
	}
	return nil
}

// SetPeers implements Transport.
func (m *MemoryNode) SetPeers(peers []Peer) {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	var added []api.MemberID
	m.mu.Lock()
	old := m.mu.peers
	m.mu.peers = map[api.MemberID]bool{}
	for _, p := range peers {
		if p.ID == m.id {
			continue
		}
		m.mu.peers[p.ID] = true
		if !old[p.ID] {
			added = append(added, p.ID)
		}
	}
	m.mu.Unlock()
	for _, id := range added {
		if other := m.net.mu.nodes[id]; other != nil && other.isStarted() {
			m.tell(func(h Handler) { h.PeerUp(id) })
		}
	}
}

// meetLocked tells two started nodes of each other. The network's lock is held.
func (m *MemoryNode) meetLocked(other *MemoryNode) {
	if other == m || !other.isStarted() {
		return
	}
	if m.hasPeer(other.id) {
		m.tell(func(h Handler) { h.PeerUp(other.id) })
	}
	if other.hasPeer(m.id) {
		other.tell(func(h Handler) { h.PeerUp(m.id) })
	}
}

// Send implements Transport. Messages are copied before it returns.
func (m *MemoryNode) Send(to api.MemberID, msgs []*raftpb.Message) {
	dropped := !m.hasPeer(to)
	if !dropped {
		for _, msg := range msgs {
			msg := proto.Clone(msg).(*raftpb.Message)
			if !m.post(to, classOf(msg), func(h Handler) { h.Message(proto.Clone(msg).(*raftpb.Message)) }) {
				dropped = true
			}
		}
	}
	if dropped {
		m.tell(func(h Handler) { h.Unreachable(to) })
	}
}

// Forward implements Transport.
func (m *MemoryNode) Forward(to api.MemberID, term api.Term, batch []byte) bool {
	if !m.hasPeer(to) {
		return false
	}
	return m.post(to, bulk, func(h Handler) { h.Forwarded(m.id, term, slices.Clone(batch)) })
}

// post puts a delivery on its way. False means that it was surely not sent.
func (m *MemoryNode) post(to api.MemberID, class class, call func(Handler)) bool {
	f, seq := m.net.decide(m, to, class)
	for i, due := range f.due {
		f.target.put(delivery{due: due, seq: seq + uint64(i), from: m, call: call})
	}
	return !f.full && !f.dead
}

// Call implements Transport. Over a cut link it waits until ctx ends.
func (m *MemoryNode) Call(ctx context.Context, to api.MemberID, kind uint8, payload []byte) ([]byte, error) {
	if !m.hasPeer(to) {
		return nil, fmt.Errorf("%w: %s", ErrUnknownPeer, to)
	}
	f, _ := m.net.decide(m, to, bulk)
	if f.dead || f.full {
		return nil, fmt.Errorf("%w: %s", ErrUnreachable, to)
	}
	for range f.due {
		m.net.arrived(m, to)
	}
	if len(f.due) == 0 { // lost on the way there
		return nil, m.lost(ctx, to, nil)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		body []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		body, err := f.target.getHandler().Call(ctx, m.id, kind, slices.Clone(payload))
		answers <- answer{slices.Clone(body), err}
	}()
	select {
	case a := <-answers:
		if back, _ := m.net.decide(f.target, m.id, bulk); len(back.due) == 0 {
			return nil, m.lost(ctx, to, f.target.gone)
		}
		m.net.arrived(f.target, m.id)
		return a.body, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-m.gone:
		return nil, ErrClosed
	case <-f.target.gone:
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, ErrUnknownOutcome)
	}
}

// SendSnapshot implements Transport. The file takes the same way as a real one:
// chunks into a new file, synced, then handed over.
func (m *MemoryNode) SendSnapshot(to api.MemberID, msg *raftpb.Message, s Snapshot) {
	msg = proto.Clone(msg).(*raftpb.Message)
	m.work.Add(1)
	go func() {
		defer m.work.Done()
		defer s.Release()
		err := m.deliverSnapshot(to, msg, s)
		m.tell(func(h Handler) { h.SnapshotSent(to, err == nil) })
	}()
}

func (m *MemoryNode) deliverSnapshot(to api.MemberID, msg *raftpb.Message, s Snapshot) error {
	if !m.hasPeer(to) {
		return ErrUnknownPeer
	}
	f, _ := m.net.decide(m, to, bulk)
	for range f.due {
		m.net.arrived(m, to)
	}
	if len(f.due) == 0 {
		return ErrUnreachable
	}
	in, h, err := f.target.store()
	if err != nil {
		return err
	}
	id := identity{from: m.id, to: to}
	body, err := newManifest(id, msg, s)
	if err != nil {
		return err
	}
	r := in.receive(id)
	err = writeSnapshot(body, s, func(b mem.Buffer) error {
		defer b.Free()
		if !m.net.passes(m, f.target) {
			return ErrUnreachable
		}
		_, err := r.take(b.ReadOnlyData())
		return err
	})
	if err != nil {
		return errors.Join(err, r.abort())
	}
	h.SnapshotReceived(r.msg, r.meta, r.path)
	return nil
}

// passes reports whether the link works and both its ends live.
func (n *MemoryNetwork) passes(from, to *MemoryNode) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.nodes[from.id] == from && n.mu.nodes[to.id] == to && !n.linkLocked(from.id, to.id).cut
}

func (m *MemoryNode) store() (*snapshotDir, Handler, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.fs == nil {
		return nil, nil, fmt.Errorf("transport: member %s has nowhere to store a snapshot", m.id)
	}
	if m.mu.snaps == nil {
		var err error
		if m.mu.snaps, err = openSnapshotDir(m.mu.fs, m.mu.snapDir); err != nil {
			return nil, nil, err
		}
	}
	return m.mu.snaps, m.mu.handler, nil
}

// lost waits as a caller does whose request or answer never arrives.
func (m *MemoryNode) lost(ctx context.Context, to api.MemberID, peerGone <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.gone:
		return ErrClosed
	case <-peerGone:
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, to, ErrUnknownOutcome)
	}
}

// Close implements Transport. The others are told PeerDown.
func (m *MemoryNode) Close() error {
	m.net.mu.Lock()
	if m.net.mu.nodes[m.id] == m {
		m.net.killLocked(m.id)
	}
	m.net.mu.Unlock()
	if m.isStarted() {
		<-m.done
	}
	m.work.Wait()
	return nil
}

func (m *MemoryNode) isStarted() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.started
}

func (m *MemoryNode) hasPeer(id api.MemberID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.peers[id]
}

func (m *MemoryNode) getHandler() Handler {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.handler
}

// tell queues an event for this node's own handler; events keep their order.
func (m *MemoryNode) tell(call func(Handler)) {
	m.mu.Lock()
	m.mu.events++
	heap.Push(&m.mu.inbox, delivery{due: m.net.clock.Now(), seq: m.mu.events, call: call})
	m.mu.Unlock()
	m.wakeUp()
}

func (m *MemoryNode) put(d delivery) {
	m.mu.Lock()
	heap.Push(&m.mu.inbox, d)
	m.mu.Unlock()
	m.wakeUp()
}

func (m *MemoryNode) wakeUp() {
	select {
	case m.wake <- struct{}{}:
	default: // it is awake already
	}
}

// dropFrom loses what is on its way from a killed member.
func (m *MemoryNode) dropFrom(id api.MemberID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.inbox = slices.DeleteFunc(m.mu.inbox, func(d delivery) bool { return d.from != nil && d.from.id == id })
	heap.Init(&m.mu.inbox)
}

// run delivers until the node is gone.
func (m *MemoryNode) run(h Handler) {
	defer close(m.done)
	for {
		d, wait, ok := m.next()
		select {
		case <-m.gone:
			return
		default:
		}
		if ok {
			if d.from != nil {
				m.net.arrived(d.from, m.id)
			}
			d.call(h)
			continue
		}
		m.sleep(wait)
	}
}

// next takes the first delivery that is due, or says how long to wait for it.
func (m *MemoryNode) next() (delivery, time.Duration, bool) {
	now := m.net.clock.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.mu.inbox) == 0 {
		return delivery{}, 0, false
	}
	if wait := m.mu.inbox[0].due.Sub(now); wait > 0 {
		return delivery{}, wait, false
	}
	return heap.Pop(&m.mu.inbox).(delivery), 0, true
}

// sleep waits for a new delivery, and for at most d if d is not 0.
func (m *MemoryNode) sleep(d time.Duration) {
	var due <-chan time.Time
	if d > 0 {
		t := m.net.clock.NewTimer(d)
		defer t.Stop()
		due = t.C()
	}
	select {
	case <-m.wake:
	case <-due:
	case <-m.gone:
	}
}

// delivery is one call of a handler at its time.
type delivery struct {
	due  time.Time
	seq  uint64
	from *MemoryNode // nil for events
	call func(Handler)
}

// inbox is a heap: earliest due first, then events, then in the order of sending.
type inbox []delivery

func (q inbox) Len() int      { return len(q) }
func (q inbox) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q inbox) Less(i, j int) bool {
	if !q[i].due.Equal(q[j].due) {
		return q[i].due.Before(q[j].due)
	}
	if event := q[i].from == nil; event != (q[j].from == nil) {
		return event
	}
	return q[i].seq < q[j].seq
}
func (q *inbox) Push(x any) { *q = append(*q, x.(delivery)) }
func (q *inbox) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = delivery{}
	*q = old[:len(old)-1]
	return last
}
