package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/keelson-io/keelson/chaos/wasm/wire"
)

// network carries connections, as TCP does: in order, without loss that anybody
// sees. What a lossy network costs is time, until a sender gives up.
type network struct {
	*world
	cut   map[[2]int]int // faults that cut from node to node
	delay time.Duration  // each way, and as much again by chance
	lossy float64        // part of the packets
}

// What TCP does about packets that do not arrive.
const (
	retransmit  = 200 * time.Millisecond
	giveUpAfter = 5 * time.Second // the members' own setting
)

func newNetwork(w *world) network {
	return network{world: w, cut: map[[2]int]int{}, delay: w.cfg.NetworkDelay}
}

// takes is how long a packet is on its way that arrives.
func (n *network) takes() time.Duration {
	d := n.between(n.delay, 2*n.delay)
	for again := retransmit; n.rand.Float64() < n.lossy; again *= 2 {
		d += again
	}
	return d
}

// blocked: nothing gets from a to b now.
func (n *network) blocked(a, b *node) bool {
	return n.cut[[2]int{a.number, b.number}] > 0 || !a.powered || !b.powered
}

// end is one side of a connection.
type end struct {
	net     *network
	node    *node
	machine *machine
	id      uint32
	peer    *end // nil while it is dialled
	out     []segment
	last    time.Duration // when the newest of out arrives
	gone    bool          // no process has it any more
	broken  bool          // nothing more is sent
	credit  int
}

// segment is something on its way to the other end.
type segment struct {
	kind          wire.Kind
	data          []byte
	sent, arrives time.Duration
}

// serve is the network's part of the calls.
func (n *network) serve(m *machine, op wire.Op, r wire.Request) error {
	switch op {
	case wire.Listen:
		if m.listeners[r.Name] {
			return fmt.Errorf("%s is taken", r.Name)
		}
		m.listeners[r.Name] = true
	case wire.Unlisten:
		delete(m.listeners, r.Name)
	case wire.Dial:
		e := &end{net: n, node: m.node, machine: m, id: r.Handle}
		m.ends[e.id] = e
		n.knock(e, r.Name, retransmit)
	case wire.Send:
		if e := m.ends[r.Handle]; e != nil {
			e.send(wire.Data, append([]byte(nil), r.Data...))
		}
	case wire.Disconnect:
		if e := m.ends[r.Handle]; e != nil {
			delete(m.ends, r.Handle)
			e.gone = true
			e.send(wire.End, nil)
		}
	}
	return nil
}

// knock tries to connect until it succeeds, is refused, or nobody wants it any more.
func (n *network) knock(e *end, at string, again time.Duration) {
	n.after(n.takes(), func() {
		if e.gone {
			return
		}
		ip, _, _ := strings.Cut(at, ":")
		var to *node
		for _, x := range n.nodes {
			if x.ip == ip {
				to = x
			}
		}
		switch {
		case to == nil || n.blocked(e.node, to) || n.blocked(to, e.node):
			n.after(again, func() { n.knock(e, at, 2*again) })
		case !to.listeners[at]:
			n.after(n.takes(), func() { e.refuse() })
		default:
			p := &end{net: n, node: to, machine: to.machine, id: to.accepted, peer: e}
			to.accepted += 2
			to.ends[p.id] = p
			e.peer = p
			p.tell(wire.Incoming, fmt.Appendf(nil, "%s %s:%d", at, e.node.ip, 30000+e.id/2%30000))
			p.send(wire.Dialed, nil)
		}
	})
}

// tell tells the process at this end.
func (e *end) tell(kind wire.Kind, data []byte) {
	if e.gone {
		return
	}
	e.net.note(e.node, "event", int64(kind), data)
	x := wire.Event{Kind: kind, Conn: e.id, Data: data}
	e.machine.hear(x.Append(nil))
}

// send puts something on its way to the other end.
func (e *end) send(kind wire.Kind, data []byte) {
	if e.broken || e.peer == nil {
		return
	}
	e.last = max(e.last, e.net.now+e.net.takes())
	e.out = append(e.out, segment{kind, data, e.net.now, e.last})
	if len(e.out) == 1 {
		e.net.after(e.last-e.net.now, e.pump)
	}
}

// pump delivers what has arrived. Only one pump of an end is under way.
func (e *end) pump() {
	for len(e.out) > 0 {
		s := &e.out[0]
		switch {
		case s.arrives > e.net.now:
			e.net.after(s.arrives-e.net.now, e.pump)
			return
		case e.net.blocked(e.node, e.peer.node):
			if e.net.now-s.sent > giveUpAfter {
				e.reset()
				return
			}
			s.arrives = e.net.now + e.net.between(retransmit, 2*retransmit)
			continue
		}
		arrived := *s
		e.out = e.out[1:]
		e.deliver(arrived)
	}
}

func (e *end) deliver(s segment) {
	p := e.peer
	if p.gone || p.broken {
		if s.kind == wire.Data {
			e.net.after(e.net.takes(), e.reset) // nobody has this connection
		}
		return
	}
	if s.kind == wire.Reset {
		p.reset()
		return
	}
	p.tell(s.kind, s.data)
	if s.kind != wire.Data {
		return
	}
	if e.credit += len(s.data); e.credit >= wire.Window/4 {
		e.tell(wire.Credit, fmt.Append(nil, e.credit))
		e.credit = 0
	}
	if e.net.blocked(p.node, e.node) {
		e.net.after(giveUpAfter, func() { // its acknowledgement is not heard
			if e.net.blocked(p.node, e.node) {
				e.reset()
			}
		})
	}
}

// reset breaks this end: its process is told, the other one finds out.
func (e *end) reset() {
	if e.broken {
		return
	}
	e.broken, e.out = true, nil
	delete(e.node.ends, e.id)
	e.tell(wire.Reset, nil)
	e.gone = true
}

func (e *end) refuse() {
	delete(e.node.ends, e.id)
	e.tell(wire.Refused, nil)
	e.gone = true
}

// abandon is the end of the process that has the connection: its kernel breaks it,
// unless that has no power.
func (e *end) abandon(power bool) {
	e.gone = true
	if power {
		e.broken, e.out = true, nil
		return
	}
	e.send(wire.Reset, nil)
}
