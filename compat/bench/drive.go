package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// call is one operation of one client.
type call func(ctx context.Context, client int, rng *rand.Rand) error

// outcome is what a number of clients did in a time.
type outcome struct {
	took      time.Duration
	latencies []time.Duration // sorted
	cpu       time.Duration   // of the servers
}

func (o outcome) rate() float64 { return float64(len(o.latencies)) / o.took.Seconds() }

func (o outcome) quantile(p float64) float64 {
	if len(o.latencies) == 0 {
		return 0
	}
	return o.latencies[min(len(o.latencies)-1, int(p*float64(len(o.latencies))))].Seconds() * 1000
}

// cpuMicros is the servers' CPU for one operation.
func (o outcome) cpuMicros() float64 {
	return float64(o.cpu.Microseconds()) / float64(max(1, len(o.latencies)))
}

// warmUp is the part of a round that is not counted.
func warmUp(d time.Duration) time.Duration { return min(time.Second, d/4) }

// drive runs clients in closed loops: warm-up, then the measured time. cpu reads
// the servers' clock of CPU. Any failed call fails the round.
func drive(ctx context.Context, clients int, d time.Duration, cpu func() time.Duration, f call) (outcome, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	from, until := began.Add(warmUp(d)), began.Add(warmUp(d)+d)
	all := make([][]time.Duration, clients)
	errs := make(chan error, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), uint64(began.UnixNano())))
			for {
				start := time.Now()
				if start.After(until) {
					return
				}
				if err := f(ctx, i, rng); err != nil {
					errs <- err
					cancel()
					return
				}
				if end := time.Now(); end.After(from) && end.Before(until) {
					all[i] = append(all[i], end.Sub(start))
				}
			}
		})
	}
	time.Sleep(time.Until(from))
	before := cpu()
	time.Sleep(time.Until(until))
	o := outcome{took: d, cpu: cpu() - before}
	wg.Wait()
	select {
	case err := <-errs:
		return o, err
	default:
	}
	o.latencies = slices.Concat(all...)
	slices.Sort(o.latencies)
	if len(o.latencies) == 0 {
		return o, fmt.Errorf("no operation ended within %v", d)
	}
	return o, nil
}

// each runs n calls with some concurrency, as setups do.
func each(ctx context.Context, n, concurrency int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	for range concurrency {
		wg.Go(func() {
			for i := range next {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}
