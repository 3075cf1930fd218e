//go:build linux

package real

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Link is how one direction between two ports behaves. The zero value is a good
// network.
type Link struct {
	Delay, Jitter time.Duration // each packet: Delay and up to Jitter more, so that packets overtake each other
	Loss          float64       // chance that a packet is lost
	Burst         float64       // chance that this one and the next 20 are
	Duplicate     float64
	Damage        float64 // chance of a flipped bit that checksums see
	Forge         float64 // chance of a flipped bit in what TCP carries, with a checksum that fits
	Rate          int     // bytes a second, 0: no limit
	Cut           bool
	Reset         bool // packets are answered by an end of their connection
}

// Counts is what a switch has done to packets since the present fault began.
type Counts struct{ Passed, Lost, Duplicated, Damaged, Forged, Reset, Delayed atomic.Int64 }

// reset begins a new count.
func (c *Counts) reset() {
	for _, n := range []*atomic.Int64{&c.Passed, &c.Lost, &c.Duplicated, &c.Damaged, &c.Forged, &c.Reset, &c.Delayed} {
		n.Store(0)
	}
}

// maxQueue is the most that waits on a link with a rate, in seconds of it.
const maxQueue = 500 * time.Millisecond

// Switch joins ports. Each packet that a port's device sends goes to the port with
// the packet's destination, if the link between them lets it.
type Switch struct {
	Counts Counts

	mu    sync.Mutex // guards what follows
	links map[[2]netip.Addr]Link
	ports map[netip.Addr]*port
	seed  uint64

	pumps sync.WaitGroup
}

// port is one device. Its pump alone uses the fields below the line.
type port struct {
	addr netip.Addr
	tun  *os.File

	rand  *rand.Rand
	burst map[netip.Addr]int       // packets still to lose
	busy  map[netip.Addr]time.Time // when the link will have sent what it was given
}

func newSwitch(seed uint64) *Switch {
	return &Switch{links: map[[2]netip.Addr]Link{}, ports: map[netip.Addr]*port{}, seed: seed}
}

// Plug gives an address a device. The one before it, if there was one, was closed.
func (s *Switch) Plug(addr netip.Addr, tun *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seed++
	a := addr.As4()
	p := &port{
		addr: addr, tun: tun, rand: rand.New(rand.NewPCG(s.seed, uint64(a[3]))),
		burst: map[netip.Addr]int{}, busy: map[netip.Addr]time.Time{},
	}
	s.ports[addr] = p
	s.pumps.Go(func() { s.pump(p) })
}

// Set changes the link from a to b, in this direction.
func (s *Switch) Set(a, b netip.Addr, l Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links[[2]netip.Addr{a, b}] = l
}

// Heal makes all links good.
func (s *Switch) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.links)
}

// SetBoth changes both directions between a and b.
func (s *Switch) SetBoth(a, b netip.Addr, l Link) {
	s.Set(a, b, l)
	s.Set(b, a, l)
}

// route finds the port with an address, nil if there is none, and the link to it.
func (s *Switch) route(from *port, to netip.Addr) (*port, Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ports[to], s.links[[2]netip.Addr{from.addr, to}]
}

// pump reads what a port sends. It ends when the device is closed.
func (s *Switch) pump(from *port) {
	buf := make([]byte, 1<<16)
	for {
		n, err := from.tun.Read(buf)
		if err != nil {
			return
		}
		addr, ok := destination(buf[:n])
		if !ok {
			continue
		}
		if to, l := s.route(from, addr); to != nil {
			s.pass(from, to, l, buf[:n])
		}
	}
}

// pass sends one packet on, or not.
func (s *Switch) pass(from, to *port, l Link, p []byte) {
	if l == (Link{}) {
		s.Counts.Passed.Add(1)
		deliver(to, p)
		return
	}
	if l.Reset {
		if back := resetOf(p); back != nil {
			s.Counts.Reset.Add(1)
			deliver(from, back)
		}
		return
	}
	if s.loses(from, to, l) {
		s.Counts.Lost.Add(1)
		return
	}
	wait, ok := from.wait(to.addr, l, len(p))
	if !ok {
		s.Counts.Lost.Add(1)
		return
	}
	p = append([]byte(nil), p...)
	s.damage(from.rand, l, p)
	s.Counts.Passed.Add(1)
	if from.rand.Float64() < l.Duplicate {
		s.Counts.Duplicated.Add(1)
		s.later(to, p, wait+time.Duration(from.rand.Int64N(int64(5*time.Millisecond))))
	}
	if wait == 0 {
		deliver(to, p)
		return
	}
	s.Counts.Delayed.Add(1)
	s.later(to, p, wait)
}

func (s *Switch) loses(from, to *port, l Link) bool {
	switch {
	case l.Cut:
		return true
	case from.burst[to.addr] > 0:
		from.burst[to.addr]--
		return true
	case from.rand.Float64() < l.Burst:
		from.burst[to.addr] = 20
		return true
	}
	return from.rand.Float64() < l.Loss
}

// wait says when a packet may arrive; not ok: the link's queue is full.
func (p *port) wait(to netip.Addr, l Link, size int) (d time.Duration, ok bool) {
	d = l.Delay
	if l.Jitter > 0 {
		d += time.Duration(p.rand.Int64N(int64(l.Jitter)))
	}
	if l.Rate == 0 {
		return d, true
	}
	now := time.Now()
	free := p.busy[to]
	if free.Before(now) {
		free = now
	}
	if free.Sub(now) > maxQueue {
		return 0, false
	}
	p.busy[to] = free.Add(time.Duration(size) * time.Second / time.Duration(l.Rate))
	return d + p.busy[to].Sub(now), true
}

// damage flips bits in place.
func (s *Switch) damage(r *rand.Rand, l Link, p []byte) {
	if r.Float64() < l.Damage {
		s.Counts.Damaged.Add(1)
		p[ipHeader+r.IntN(len(p)-ipHeader)] ^= 1 << r.IntN(8)
	}
	if r.Float64() >= l.Forge {
		return
	}
	if tcp := segment(p); tcp != nil {
		if body := payload(tcp); len(body) > 0 {
			s.Counts.Forged.Add(1)
			body[r.IntN(len(body))] ^= 1 << r.IntN(8)
			sealTCP(p, tcp)
		}
	}
}

func (s *Switch) later(to *port, p []byte, d time.Duration) {
	time.AfterFunc(d, func() { deliver(to, p) })
}

// deliver gives a packet to a device. A full queue loses it, as a wire would.
func deliver(to *port, p []byte) { _, _ = to.tun.Write(p) }
