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

// TestQueueInvariants plays random requests, ends and cancellations.
func TestQueueInvariants(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		b := Bounds{Slots: 1 + rng.IntN(8), Waiting: 1 + rng.IntN(12), Light: rng.IntN(3), Quantum: 1 + rng.Int64N(40)}
		b.Heavy = 1 + rng.IntN(b.Slots)
		if rng.IntN(2) == 0 {
			b.LightCost = 20
		}
		q := &queue{class: Write, bounds: b}
		var flows []*Flow
		for i := range 1 + rng.IntN(5) {
			flows = append(flows, &Flow{Name: fmt.Sprint(i)})
		}
		type held struct {
			f     *Flow
			heavy bool
		}
		var running []held
		var waiting []*Waiter // in order of arrival
		wake := func() {
			for w := q.next(); w != nil; w = q.next() {
				i := slices.Index(waiting, w)
				for _, earlier := range waiting[:max(i, 0)] {
					if earlier.flow == w.flow {
						t.Fatalf("seed %d: a client's requests are served out of order", seed)
					}
				}
				if i < 0 {
					t.Fatalf("seed %d: somebody is served who does not wait", seed)
				}
				waiting = slices.Delete(waiting, i, i+1)
				running = append(running, held{w.flow, w.heavy})
			}
		}
		for step := range 400 {
			switch n := rng.IntN(10); {
			case n < 5:
				f, cost := flows[rng.IntN(len(flows))], 1+rng.Int64N(50)
				loud := rng.IntN(8) == 0
				if heavy, ok := q.take(f, cost, loud); ok {
					running = append(running, held{f, heavy})
					break
				}
				w := &Waiter{flow: f, cost: cost, loud: loud}
				waiting = append(waiting, w)
				if refused := q.join(w); refused != nil {
					if refused != w && len(refused.flow.shares[Write].waiting)+1 <= len(f.shares[Write].waiting) {
						t.Fatalf("seed %d: a client with less in the queue made room", seed)
					}
					i := slices.Index(waiting, refused)
					waiting = slices.Delete(waiting, i, i+1)
				}
			case n < 8 && len(running) > 0:
				i := rng.IntN(len(running))
				q.leave(running[i].f, running[i].heavy)
				running = slices.Delete(running, i, i+1)
				wake()
			case n == 8 && len(waiting) > 0:
				i := rng.IntN(len(waiting))
				if !q.cancel(waiting[i]) || q.cancel(waiting[i]) {
					t.Fatalf("seed %d: cancelled not once", seed)
				}
				waiting = slices.Delete(waiting, i, i+1)
				wake()
			}
			if err := q.check(flows); err != nil {
				t.Fatalf("seed %d, step %d, %+v: %v", seed, step, b, err)
			}
		}
		for len(running) > 0 {
			q.leave(running[0].f, running[0].heavy)
			running = running[1:]
			wake()
		}
		if err := q.check(flows); err != nil || q.waiting > 0 || q.running > 0 {
			t.Fatalf("seed %d: not empty at the end: %d wait, %d run, %v", seed, q.waiting, q.running, err)
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
