package admission

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// check asserts the invariants of package doc.
func (q *queue) check(flows []*Flow) error {
	b := q.bounds
	running, waiting := 0, 0
	for _, f := range flows {
		s := &f.shares[q.class]
		running, waiting = running+s.running, waiting+len(s.waiting)
		if inRing := slices.Contains(q.ring, f); inRing != (len(s.waiting) > 0) {
			return fmt.Errorf("%s: %d waiting, in the ring: %t", f.Name, len(s.waiting), inRing)
		}
		if s.credit < 0 || len(s.waiting) == 0 && s.credit != 0 {
			return fmt.Errorf("%s: credit %d with %d waiting", f.Name, s.credit, len(s.waiting))
		}
		if len(s.waiting) > 0 {
			if _, ok := q.fits(f, s.waiting[0].cost, s.waiting[0].loud); ok {
				return fmt.Errorf("%s waits although it could begin: %d of %d run, %d of %d heavy", f.Name, q.running, b.Slots, q.heavy, b.Heavy)
			}
		}
	}
	if running != q.running || waiting != q.waiting || q.running > b.Slots || q.heavy > b.Heavy || q.heavy < 0 || q.waiting > b.Waiting ||
		len(q.ring) > 0 && q.at >= len(q.ring) {
		return fmt.Errorf("running %d (counted %d) of %d, heavy %d of %d, waiting %d (counted %d) of %d, turn %d of %d",
			q.running, running, b.Slots, q.heavy, b.Heavy, q.waiting, waiting, b.Waiting, q.at, len(q.ring))
	}
	return nil
}

// play is a queue with what runs and waits in it.
type play struct {
	*testing.T
	*queue
	rng     *rand.Rand
	flows   []*Flow
	running []Waiter  // by value: flow and heavy
	arrived []*Waiter // and waiting, in order of arrival
}

func newPlay(t *testing.T, seed uint64) *play {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := Bounds{Slots: 1 + rng.IntN(8), Waiting: 1 + rng.IntN(12), Light: rng.IntN(3), Quantum: 1 + rng.Int64N(40)}
	b.Heavy = 1 + rng.IntN(b.Slots)
	if rng.IntN(2) == 0 {
		b.LightCost = 20
	}
	p := &play{T: t, rng: rng, queue: &queue{class: Write, bounds: b}}
	for i := range 1 + rng.IntN(5) {
		p.flows = append(p.flows, &Flow{Name: fmt.Sprint(i)})
	}
	return p
}

// wake begins what can begin; a client's requests begin in order.
func (p *play) wake() {
	for w := p.next(); w != nil; w = p.next() {
		i := slices.Index(p.arrived, w)
		if i < 0 {
			p.Fatal("somebody is served who does not wait")
		}
		for _, earlier := range p.arrived[:i] {
			if earlier.flow == w.flow {
				p.Fatal("a client's requests are served out of order")
			}
		}
		p.arrived = slices.Delete(p.arrived, i, i+1)
		p.running = append(p.running, *w)
	}
}

func (p *play) arrive() {
	w := &Waiter{flow: p.flows[p.rng.IntN(len(p.flows))], cost: 1 + p.rng.Int64N(50), loud: p.rng.IntN(8) == 0}
	var ok bool
	if w.heavy, ok = p.take(w.flow, w.cost, w.loud); ok {
		p.running = append(p.running, *w)
		return
	}
	p.arrived = append(p.arrived, w)
	refused := p.join(w)
	if refused == nil {
		return
	}
	if refused != w && len(refused.flow.shares[Write].waiting)+1 <= len(w.flow.shares[Write].waiting) {
		p.Fatal("a client with less in the queue made room")
	}
	p.arrived = slices.DeleteFunc(p.arrived, func(w *Waiter) bool { return w == refused })
}

func (p *play) end(i int) {
	p.leave(p.running[i].flow, p.running[i].heavy)
	p.running = slices.Delete(p.running, i, i+1)
	p.wake()
}

// TestQueueInvariants plays random requests, ends and cancellations.
func TestQueueInvariants(t *testing.T) {
	for seed := range uint64(300) {
		p := newPlay(t, seed)
		for step := range 400 {
			switch n := p.rng.IntN(10); {
			case n < 5:
				p.arrive()
			case n < 8 && len(p.running) > 0:
				p.end(p.rng.IntN(len(p.running)))
			case n == 8 && len(p.arrived) > 0:
				i := p.rng.IntN(len(p.arrived))
				if !p.cancel(p.arrived[i]) || p.cancel(p.arrived[i]) {
					t.Fatalf("seed %d: cancelled not once", seed)
				}
				p.arrived = slices.Delete(p.arrived, i, i+1)
				p.wake()
			}
			if err := p.check(p.flows); err != nil {
				t.Fatalf("seed %d, step %d, %+v: %v", seed, step, p.bounds, err)
			}
		}
		for len(p.running) > 0 {
			p.end(0)
		}
		if err := p.check(p.flows); err != nil || p.waiting > 0 || p.queue.running > 0 {
			t.Fatalf("seed %d: not empty at the end: %d wait, %d run, %v", seed, p.waiting, p.queue.running, err)
		}
	}
}

// TestFairByCost: clients that never stop get the same cost served, whatever one
// request of theirs costs and however many they have waiting.
func TestFairByCost(t *testing.T) {
	q := &queue{class: List, bounds: Bounds{Slots: 1, Heavy: 1, Waiting: 1000, Quantum: 10}}
	costs := []int64{1, 7, 30}
	served := make([]int64, len(costs))
	var flows []*Flow
	for i, cost := range costs {
		f := &Flow{Name: fmt.Sprint(i)}
		flows = append(flows, f)
		for range 5 + 50*i {
			q.join(&Waiter{flow: f, cost: cost})
		}
	}
	for range 3000 {
		w := q.next()
		i := slices.Index(flows, w.flow)
		served[i] += w.cost
		q.join(&Waiter{flow: w.flow, cost: w.cost})
		q.leave(w.flow, w.heavy)
		if err := q.check(nil); err == nil && q.waiting == 0 {
			t.Fatal("the queue ran empty")
		}
	}
	// Deficit round robin's bound: a quantum and the largest request apart.
	if d := slices.Max(served) - slices.Min(served); d > 10+2*30 {
		t.Errorf("served by cost: %v", served)
	}
}

// TestNoStarvation: a request waits for at most one turn of each other client.
func TestNoStarvation(t *testing.T) {
	q := &queue{class: Write, bounds: Bounds{Slots: 1, Heavy: 1, Waiting: 10_000, Quantum: 4}}
	var noisy []*Flow
	for i := range 10 {
		f := &Flow{Name: fmt.Sprint(i)}
		noisy = append(noisy, f)
		for range 500 {
			q.join(&Waiter{flow: f, cost: 1})
		}
	}
	for range 100 { // in the middle of everything
		w := q.next()
		q.leave(w.flow, w.heavy)
	}
	mine := &Waiter{flow: &Flow{Name: "mine"}, cost: 1}
	q.join(mine)
	for n := 1; ; n++ {
		w := q.next()
		q.leave(w.flow, w.heavy)
		if w == mine {
			return
		}
		if n > 2*4*len(noisy) {
			t.Fatalf("still waiting after %d others", n)
		}
	}
}

// TestFullQueueMakesRoom: who fills the queue is refused, not who comes then.
func TestFullQueueMakesRoom(t *testing.T) {
	q := &queue{class: Read, bounds: Bounds{Slots: 1, Heavy: 1, Waiting: 3, Quantum: 1}}
	noisy, quiet := &Flow{Name: "noisy"}, &Flow{Name: "quiet"}
	q.take(noisy, 1, false)
	var last *Waiter
	for range 3 {
		last = &Waiter{flow: noisy, cost: 1}
		q.join(last)
	}
	if w := (&Waiter{flow: noisy, cost: 1}); q.join(w) != w {
		t.Error("a full queue took one more of the client that filled it")
	}
	if refused := q.join(&Waiter{flow: quiet, cost: 1}); refused != last {
		t.Error("a full queue did not refuse the newest request of the client that filled it")
	}
	if w := (&Waiter{flow: &Flow{}, cost: 1}); q.join(w) == w {
		t.Error("another client found no room beside one with two")
	}
	if w := (&Waiter{flow: &Flow{}, cost: 1}); q.join(w) != w {
		t.Error("clients with one request each make room for each other")
	}
}
