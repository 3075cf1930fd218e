package sim

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft"
	"github.com/keelson-io/keelson/raft/transport"
)

// network is the links between members, by their numbers. Faults overlap, so
// they count.
type network struct {
	cut                   [][]int
	healed                [][]time.Duration // when a link was last not cut any more
	loss, duplicate, slow []int             // percent, percent, one message in so many; the active ones
	thin                  []int             // kilobytes a second
	busy                  [][]time.Duration // until when a thin link carries what was sent before
	delay                 []time.Duration
}

func (n *network) init(members int) {
	n.busy = make([][]time.Duration, members)
	n.cut, n.healed = make([][]int, members), make([][]time.Duration, members)
	for i := range n.cut {
		n.cut[i], n.healed[i], n.busy[i] = make([]int, members), make([]time.Duration, members), make([]time.Duration, members)
	}
}

// meets reports whether the link from one machine to another may be used: the
// sender knows the other for a member, or was spoken to by it, and neither sees in
// the other one that was removed or that has lost its directory. The sender hears
// of a refusal.
func (s *Sim) meets(from, to *member) bool {
	peer, known := from.wire.peers[to.id]
	if !known && !from.wire.strangers[to.id] || peer.Incarnation != 0 && peer.Incarnation != to.mark {
		return false
	}
	var refusal error
	if back := to.wire.peers[from.id]; to.wire.refused[from.id] {
		refusal = transport.ErrRemoved
	} else if back.Incarnation != 0 && back.Incarnation != from.mark {
		refusal = transport.ErrForgotten
	}
	if refusal != nil && s.now >= from.wire.told[to.id] {
		from.wire.told[to.id] = s.now + refusalPause
		from.after(s.net.time(s), func() { from.wire.handler.Refused(to.id, refusal) })
	}
	return refusal == nil
}

// knock connects again with who has ended the connection.
func (m *member) knock() {
	for _, o := range m.s.members {
		if o != m && o.node != nil && m.s.net.cut[m.n][o.n] == 0 {
			m.s.meets(m, o)
		}
	}
	m.after(refusalPause, m.knock)
}

// refusalPause lies between two attempts to connect with a member that refuses.
const refusalPause = time.Second

// time is how long a message takes.
func (n *network) time(s *Sim) time.Duration {
	r := s.chance.net
	d := s.cfg.NetworkDelay/4 + time.Duration(r.ExpFloat64()*float64(s.cfg.NetworkDelay))
	for _, extra := range n.delay {
		d += extra + time.Duration(r.Int64N(int64(extra)))
	}
	for _, one := range n.slow {
		if r.IntN(one) == 0 {
			d += time.Duration(r.Int64N(int64(2 * time.Second)))
		}
	}
	return d
}

// smallBytes is what does not wait for large messages: members send both on
// streams of their own, which share a link.
const smallBytes = 1 << 10

// thinQueue is how much may wait for a thin link, in time: members drop what their
// queues have no room for.
const thinQueue = 3 * time.Second

// transfer is how long a thin link takes for so many bytes; not ok: they are dropped.
func (s *Sim) transfer(from, to *member, size int) (wait time.Duration, ok bool) {
	n := &s.net
	if len(n.thin) == 0 || size == 0 {
		return 0, true
	}
	took := time.Duration(size) * time.Second / time.Duration(slices.Min(n.thin)<<10)
	if size < smallBytes {
		return 2 * took, true
	}
	end := max(n.busy[from.n][to.n], s.now) + took
	if end > s.now+thinQueue {
		return 0, false
	}
	n.busy[from.n][to.n] = end
	return end - s.now, true
}

// size is that of a message, if it matters.
func (s *Sim) size(m proto.Message) int {
	if len(s.net.thin) == 0 {
		return 0
	}
	return proto.Size(m)
}

func (n *network) loses(s *Sim) bool {
	for _, percent := range n.loss {
		if s.chance.net.IntN(100) < percent {
			return true
		}
	}
	return false
}

// deliver brings something from one member to another, or does not, or twice.
func (s *Sim) deliver(from, to *member, size int, call func()) {
	if to.node == nil || !s.meets(from, to) {
		return
	}
	wait, ok := s.transfer(from, to, size)
	if !ok {
		from.after(0, func() { from.wire.handler.Unreachable(to.id); from.turn() })
		return
	}
	if wait > 0 {
		from.after(wait, func() { s.answer(from, to, call) })
		return
	}
	s.answer(from, to, call)
}

// answer is deliver on a connection that the other member has made.
func (s *Sim) answer(from, to *member, call func()) {
	n := &s.net
	if n.cut[from.n][to.n] > 0 || n.loses(s) {
		return
	}
	copies := 1
	for _, percent := range n.duplicate {
		if s.chance.net.IntN(100) < percent {
			copies++
		}
	}
	for i := range copies {
		d := n.time(s)
		if i > 0 {
			d += time.Duration(s.chance.net.Int64N(int64(time.Second)))
		}
		to.afterFrom(from, d, func() {
			to.heard[from.id] = to.ticks
			to.wire.meetsStranger(from.id)
			call()
			to.turn()
		})
	}
}

// meet tells the member that another one can be reached.
func (m *member) meet(o *member) {
	if m.s.meets(m, o) {
		m.after(m.s.net.time(m.s), func() { m.wire.handler.PeerUp(o.id); m.turn() })
	}
}

// wire is one process's access to the network.
type wire struct {
	m         *member
	handler   transport.Handler
	peers     map[api.MemberID]transport.Peer
	refused   map[api.MemberID]bool
	strangers map[api.MemberID]bool          // who spoke to this member, and are not among its peers
	told      map[api.MemberID]time.Duration // until when it need not hear again that it is refused
}

var _ transport.Transport = (*wire)(nil)

func (w *wire) Start(h transport.Handler) error { w.handler = h; return nil }
func (w *wire) Close() error                    { return nil }

func (w *wire) SetPeers(peers []transport.Peer) {
	before := w.peers
	w.peers = map[api.MemberID]transport.Peer{}
	for _, p := range peers {
		w.peers[p.ID] = p
		delete(w.strangers, p.ID)
		o := w.m.s.byID[p.ID]
		if _, known := before[p.ID]; !known && w.handler != nil && o != nil && o.node != nil {
			w.m.meet(o)
		}
	}
}

func (w *wire) Refuse(ids ...api.MemberID) {
	for _, id := range ids {
		w.refused[id] = true
		delete(w.strangers, id)
	}
}

// meetsStranger notes who spoke: it can be answered.
func (w *wire) meetsStranger(id api.MemberID) {
	if _, known := w.peers[id]; !known && !w.refused[id] {
		w.strangers[id] = true
	}
}

// ActiveSince: a connection lasts as long as both processes and the links in both
// directions. One that stands still has not lost it.
func (w *wire) ActiveSince(id api.MemberID) time.Time {
	m, o := w.m, w.peer(id)
	if o == nil || o.node == nil || !m.s.meets(m, o) {
		return time.Time{}
	}
	cut := m.s.net.cut
	if cut[m.n][o.n] > 0 || cut[o.n][m.n] > 0 {
		return time.Time{}
	}
	return m.timeOf(max(m.started, o.started, m.s.net.healed[m.n][o.n], m.s.net.healed[o.n][m.n]))
}

// peer is who has the id, unless the sender's power has failed.
func (w *wire) peer(id api.MemberID) *member {
	if w.m.dead != nil {
		return nil
	}
	return w.m.s.byID[id]
}

func (w *wire) Send(to api.MemberID, msgs []*raftpb.Message) {
	o := w.peer(to)
	if o == nil {
		return
	}
	for _, msg := range msgs {
		w.m.s.deliver(w.m, o, w.m.s.size(msg), func() { o.wire.handler.Message(proto.Clone(msg).(*raftpb.Message)) })
	}
}

func (w *wire) Forward(to api.MemberID, term api.Term, batch []byte) bool {
	o := w.peer(to)
	if o == nil {
		return false
	}
	from := w.m.id
	w.m.s.deliver(w.m, o, len(batch), func() { o.wire.handler.Forwarded(from, term, bytes.Clone(batch)) })
	return true
}

// snapshotTime is how long the sender waits for word of its snapshot.
const snapshotTime = 2 * time.Second

func (w *wire) SendSnapshot(to api.MemberID, msg *raftpb.Message, snap transport.Snapshot) {
	defer snap.Release()
	m, s := w.m, w.m.s
	o := w.peer(to)
	if o == nil {
		return
	}
	var data bytes.Buffer
	if _, err := snap.WriteTo(&data); err != nil {
		s.fail("O12", "member %s cannot write a snapshot: %v", m.name, err)
		return
	}
	meta, arrived, told := snap.Meta(), false, false
	tell := func(ok bool) {
		if !told {
			told = true
			m.wire.handler.SnapshotSent(to, ok)
		}
	}
	s.deliver(m, o, data.Len(), func() {
		if arrived {
			return // a stream comes once
		}
		arrived = true
		path := fmt.Sprintf("/data/member/snap/received-%d", s.seq)
		if err := writeFile(o.fs, path, data.Bytes()); err != nil {
			s.say("%s cannot store a snapshot: %v", o.name, err)
			s.answer(o, m, func() { tell(false) })
			return
		}
		o.wire.handler.SnapshotReceived(proto.Clone(msg).(*raftpb.Message), meta, path)
		s.answer(o, m, func() { tell(true) })
	})
	m.after(snapshotTime, func() { tell(false); m.turn() })
}

// Call is made by a task, which waits for the answer or the end of ctx.
func (w *wire) Call(ctx context.Context, to api.MemberID, kind uint8, payload []byte) ([]byte, error) {
	m, s := w.m, w.m.s
	o := w.peer(to)
	if o == nil {
		return nil, raft.ErrStopped
	}
	var answer []byte
	var failed error
	done := false
	life := m.life
	s.deliver(m, o, 0, func() {
		o.spawn(func() {
			b, err := o.wire.handler.Call(context.WithoutCancel(ctx), m.id, kind, payload)
			if o.node == nil {
				return
			}
			s.answer(o, m, func() {
				if m.life == life {
					answer, failed, done = b, err, true
				}
			})
		})
	})
	switch {
	case !s.park(func() bool { return done || ctx.Err() != nil }):
		return nil, raft.ErrStopped
	case !done:
		return nil, ctx.Err()
	}
	return answer, failed
}
