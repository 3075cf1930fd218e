package admission

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

func small(slots, waiting int) func(Class) Bounds {
	return func(Class) Bounds { return Bounds{Slots: slots, Heavy: slots, Waiting: waiting, Quantum: 1} }
}

// TestGateUnderRace lets clients come, wait, give up and leave at once: the slots
// hold at every moment and nothing is left at the end.
func TestGateUnderRace(t *testing.T) {
	const slots = 3
	g := NewGate(clock.System(), true, small(slots, 20))
	var inside, passed, refused, gone atomic.Int64
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			f := g.Flow(fmt.Sprint(i % 7))
			for range 200 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rng.IntN(500))*time.Microsecond)
				p, err := g.Enter(ctx, f, Request{Class: Write, Cost: 1, Timed: true}, time.Now())
				switch {
				case err == nil:
					passed.Add(1)
					if n := inside.Add(1); n > slots {
						t.Errorf("%d inside", n)
					}
					time.Sleep(time.Duration(rng.IntN(50)) * time.Microsecond)
					inside.Add(-1)
				case errors.Is(err, api.ErrTooManyRequests):
					refused.Add(1)
				case errors.Is(err, context.DeadlineExceeded):
					gone.Add(1)
				default:
					t.Error(err)
				}
				g.Leave(p, time.Now(), true)
				cancel()
			}
		})
	}
	wg.Wait()
	t.Logf("%d passed, %d were refused, %d gave up", passed.Load(), refused.Load(), gone.Load())
	if passed.Load() == 0 || refused.Load() == 0 || gone.Load() == 0 {
		t.Error("not every end was seen")
	}
	g.States(func(c Class, s State) {
		if s.Running != 0 || s.Waiting != 0 {
			t.Errorf("%s: %d run and %d wait at the end", c, s.Running, s.Waiting)
		}
	})
	for _, f := range g.named.flows {
		if s := &f.shares[Write]; s.running != 0 || len(s.waiting) != 0 || s.credit != 0 {
			t.Errorf("%s: %+v is left", f.Name, s)
		}
	}
}

// TestPatience: who waited for long is refused with a hint.
func TestPatience(t *testing.T) {
	fake := clock.NewFake(time.Unix(0, 0))
	g := NewGate(fake, true, small(1, 5))
	f := g.Flow("a")
	first, err := g.Enter(t.Context(), f, Request{Class: Lease, Cost: 1}, fake.Now())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := g.Enter(context.Background(), f, Request{Class: Lease, Cost: 1}, fake.Now())
		ended <- err
	}()
	var refusal *Refusal
	for deadline := time.Now().Add(time.Minute); ; {
		fake.Advance(patience)
		select {
		case err := <-ended:
			if !errors.As(err, &refusal) || refusal.RetryAfter != longestHint {
				t.Fatalf("%#v", err)
			}
			if _, err := g.Enter(t.Context(), f, Request{Class: Read, Cost: 1}, fake.Now()); err != nil {
				t.Error("another class waits, too:", err)
			}
			g.Leave(first, fake.Now(), true)
			if _, err := g.Enter(t.Context(), f, Request{Class: Lease, Cost: 1}, fake.Now()); err != nil {
				t.Error("the slot was lost:", err)
			}
			return
		case <-time.After(time.Millisecond):
			if time.Now().After(deadline) {
				t.Fatal("still waiting")
			}
		}
	}
}

// TestQuietClientBesideHeavyOne: a client with many requests leaves room for
// one with few, although heavy ones wait.
func TestQuietClientBesideHeavyOne(t *testing.T) {
	g := NewGate(clock.System(), true, func(Class) Bounds {
		return Bounds{Slots: 100, Heavy: 3, Waiting: 100, Light: 2, Quantum: 1}
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, err := g.Enter(ctx, g.Flow("heavy"), Request{Class: Write, Cost: 1}, time.Now())
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for deadline := time.Now().Add(time.Minute); ; {
		var s State
		g.States(func(c Class, now State) {
			if c == Write {
				s = now
			}
		})
		if s.Running == 5 && s.Waiting == 45 { // two came as light ones
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v: of 50 requests, 2 light and 3 heavy ones should run", s)
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := g.Enter(t.Context(), g.Flow("quiet"), Request{Class: Write, Cost: 1}, time.Now()); err != nil {
		t.Error(err)
	}
	cancel()
	wg.Wait()
}

func TestNamesAreBounded(t *testing.T) {
	g := NewGate(clock.System(), true, small(1, 1))
	first := g.Flow("first")
	for i := range mostNames {
		g.Flow(fmt.Sprint(i))
	}
	if g.Flow("late") != g.Flow("later") || g.Flow("first") != first || len(g.named.flows) != mostNames {
		t.Errorf("%d names are kept", len(g.named.flows))
	}
}

// BenchmarkPass is what a request pays that does not wait.
func BenchmarkPass(b *testing.B) {
	g := NewGate(clock.System(), true, func(Class) Bounds {
		return Bounds{Slots: 4096, Heavy: 4096, Waiting: 4096, Light: 2, Quantum: 4096}
	})
	now := time.Now()
	for _, parallel := range []int{1, 100} {
		b.Run(fmt.Sprint(parallel), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(parallel)
			b.RunParallel(func(pb *testing.PB) {
				f := &Flow{}
				for pb.Next() {
					p, err := g.Enter(context.Background(), f, Request{Class: Write, Cost: 600, Timed: true}, now)
					if err != nil {
						b.Error(err)
						return
					}
					g.Leave(p, now, true)
				}
			})
		})
	}
}

// TestLargeAnswersGiveWayToLoudClients: a client with many requests is slowed down
// by another one's large answers. They leave more slowly; its own requests are
// not held back for that, nor when it is slow by itself.
func TestLargeAnswersGiveWayToLoudClients(t *testing.T) {
	fake := clock.NewFake(time.Unix(0, 0))
	g := NewGate(fake, true, func(Class) Bounds {
		return Bounds{Slots: 100, Heavy: 100, Waiting: 100, Light: 2, Quantum: 1}
	})
	f := g.Flow("writers")
	// periods has writers write, so many at once, until some periods have passed.
	periods := func(writers int, took time.Duration, answers bool) (heavy, bulk float64) {
		for until := fake.Now().Add(20 * period); fake.Now().Before(until); {
			passes := make([]Pass, writers)
			for i := range passes {
				var ok bool
				if passes[i], ok = g.TryEnter(f, Request{Class: Write, Cost: 1, Timed: true}, fake.Now()); !ok {
					t.Fatal("a write has to wait")
				}
			}
			if answers {
				g.bulk.Store(true) // what Pace does first
			}
			fake.Advance(took)
			for _, p := range passes {
				g.Leave(p, fake.Now(), true)
			}
		}
		return g.States(func(Class, State) {})
	}
	if _, bulk := periods(10, time.Millisecond, false); bulk != 1 {
		t.Fatalf("level %v of answers that are not there", bulk)
	}
	heavy, bulk := periods(10, 3*time.Millisecond, true)
	if bulk > 0.5 || heavy != 1 {
		t.Errorf("levels %v of heavy requests and %v of large answers, which make writes take three times as long", heavy, bulk)
	}
	if _, bulk := periods(10, 3*time.Millisecond, false); bulk != 1 {
		t.Errorf("level %v after the answers are gone", bulk)
	}
	if _, bulk = periods(60, 30*time.Millisecond, true); bulk != 1 {
		t.Errorf("level %v: writes take longer because there are more of them", bulk)
	}
}
