package sim

import (
	"bytes"
	"context"
	"fmt"
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
	loss, duplicate, slow []int // percent, percent, one message in so many; the active ones
	delay                 []time.Duration
}

func (n *network) init(members int) {
	n.cut = make([][]int, members)
	for i := range n.cut {
		n.cut[i] = make([]int, members)
	}
}

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

func (n *network) loses(s *Sim) bool {
	for _, percent := range n.loss {
		if s.chance.net.IntN(100) < percent {
			return true
		}
	}
	return false
}

// deliver brings something from one member to another, or does not, or twice.
func (s *Sim) deliver(from, to *member, call func()) {
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
			call()
			to.turn()
		})
	}
}

// meet tells the member that another one can be reached.
func (m *member) meet(o *member) {
	m.after(m.s.net.time(m.s), func() { m.wire.handler.PeerUp(o.id); m.turn() })
}

// wire is one process's access to the network.
type wire struct {
	m       *member
	handler transport.Handler
}

var _ transport.Transport = (*wire)(nil)

func (w *wire) Start(h transport.Handler) error       { w.handler = h; return nil }
func (w *wire) SetPeers([]transport.Peer)             {}
func (w *wire) Refuse(...api.MemberID)                {}
func (w *wire) ActiveSince(id api.MemberID) time.Time { return epoch }
func (w *wire) Close() error                          { return nil }

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
		w.m.s.deliver(w.m, o, func() { o.wire.handler.Message(proto.Clone(msg).(*raftpb.Message)) })
	}
}

func (w *wire) Forward(to api.MemberID, term api.Term, batch []byte) bool {
	o := w.peer(to)
	if o == nil {
		return false
	}
	from := w.m.id
	w.m.s.deliver(w.m, o, func() { o.wire.handler.Forwarded(from, term, bytes.Clone(batch)) })
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
	s.deliver(m, o, func() {
		if arrived {
			return // a stream comes once
		}
		arrived = true
		path := fmt.Sprintf("/data/member/snap/received-%d", s.seq)
		if err := writeFile(o.disk.files, path, data.Bytes()); err != nil {
			s.say("%s cannot store a snapshot: %v", o.name, err)
			s.deliver(o, m, func() { tell(false) })
			return
		}
		o.wire.handler.SnapshotReceived(proto.Clone(msg).(*raftpb.Message), meta, path)
		s.deliver(o, m, func() { tell(true) })
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
	s.deliver(m, o, func() {
		o.spawn(func() {
			b, err := o.wire.handler.Call(context.WithoutCancel(ctx), m.id, kind, payload)
			if o.node == nil {
				return
			}
			s.deliver(o, m, func() {
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
