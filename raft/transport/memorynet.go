package transport

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
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
	if target.refuses(from.id) {
		from.tell(func(h Handler) { h.Refused(to, ErrRemoved) })
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

// passes reports whether the link works and both its ends live.
func (n *MemoryNetwork) passes(from, to *MemoryNode) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.nodes[from.id] == from && n.mu.nodes[to.id] == to && !n.linkLocked(from.id, to.id).cut
}
