package transport

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

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
		since   time.Time // of Start
		peers   map[api.MemberID]bool
		refused map[api.MemberID]bool
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
	m.mu.handler, m.mu.started, m.mu.since = h, true, m.net.clock.Now()
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

// Refuse implements Transport. The refused one is told at its next message.
func (m *MemoryNode) Refuse(ids ...api.MemberID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.refused == nil {
		m.mu.refused = map[api.MemberID]bool{}
	}
	for _, id := range ids {
		m.mu.refused[id] = true
		delete(m.mu.peers, id)
	}
}

func (m *MemoryNode) refuses(id api.MemberID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.refused[id]
}

// ActiveSince implements Transport: since both have run, if they can talk now.
func (m *MemoryNode) ActiveSince(id api.MemberID) time.Time {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	other := m.net.mu.nodes[id]
	if other == nil || !other.isStarted() || !m.hasPeer(id) || m.net.linkLocked(m.id, id).cut || m.net.linkLocked(id, m.id).cut {
		return time.Time{}
	}
	if mine, its := m.startedAt(), other.startedAt(); its.Before(mine) {
		return mine
	} else {
		return its
	}
}

func (m *MemoryNode) startedAt() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.since
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
		err := m.deliverSnapshot(to, msg, s)
		s.Release()
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
	err = writeSnapshot(body, s, (&hurry{}).size, func(b mem.Buffer) error {
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
