package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-io/keelson/client"
)

// load is a size of a check, with etcdctl's names.
type load struct {
	clients int
	rate    int // writes a second, of perf
	keys    int // of datascale
}

var loads = map[string]load{
	"s": {50, 150, 10_000}, "m": {200, 1000, 100_000}, "l": {500, 8000, 1_000_000}, "xl": {1000, 15000, 3_000_000},
}

// What a check demands: most of the rate, and answers in time.
const (
	wantShare  = 0.9
	slowest    = 500 * time.Millisecond
	deviation  = 100 * time.Millisecond
	valueBytes = 1024
	checkBatch = 100 // keys that a cleaning deletes at once: not to be the load itself
)

// checking is one run.
type checking struct {
	a      *app
	load   load
	prefix string
	time   time.Duration
	keys   int // of datascale; 0: the load's
	mu     struct {
		sync.Mutex
		took   []time.Duration
		failed error
	}
}

func (a *app) checkCommand() *cobra.Command {
	make := func(use, short, example string, run func(c *checking, ctx context.Context) error) (*cobra.Command, *checking) {
		k := &checking{a: a}
		var name string
		c := verb(use, short, example, cobra.NoArgs, func(ctx context.Context, _ []string) error {
			l, ok := loads[name]
			if !ok {
				return usage("check: --load is s, m, l or xl")
			}
			if k.load = l; k.keys > 0 {
				k.load.keys = k.keys
			}
			return run(k, ctx)
		})
		c.Flags().StringVar(&name, "load", "s", "s (50 clients), m (200), l (500) or xl (1000)")
		c.Flags().StringVar(&k.prefix, "prefix", "/kvctl-check/", "where the keys are written, and deleted again")
		return c, k
	}
	perf, p := make("perf", "Write at a fixed rate; fails when the cluster is too slow", "  kvctl check perf --load m", (*checking).perf)
	perf.Flags().DurationVar(&p.time, "duration", time.Minute, "how long to write")
	scale, d := make("datascale", "Write many keys and show the space they take", "  kvctl check datascale --load s", (*checking).datascale)
	scale.Flags().IntVar(&d.keys, "keys", 0, "how `many`, instead of the load's: 10,000, 100,000, a million or three")
	return family("check", "Measure a cluster by a known load", perf, scale)
}

// connections are spread over all endpoints; each serves some clients.
func (k *checking) connections() ([]*remote, error) {
	var list []*remote
	for _, endpoint := range k.a.endpoints {
		r, err := k.a.at(endpoint)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

// write has all clients put the keys whose numbers come from next.
func (k *checking) write(ctx context.Context, list []*remote, next <-chan int) error {
	value := make([]byte, valueBytes)
	if _, err := rand.Read(value); err != nil {
		return err
	}
	var wg sync.WaitGroup
	for i := range k.load.clients {
		wg.Go(func() {
			for n := range next {
				start := time.Now()
				_, err := list[i%len(list)].Put(ctx, fmt.Sprintf("%s%09d", k.prefix, n), value)
				k.note(time.Since(start), err)
			}
		})
	}
	wg.Wait()
	return k.mu.failed
}

func (k *checking) note(took time.Duration, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.took = append(k.mu.took, took)
	if err != nil && k.mu.failed == nil {
		k.mu.failed = err
	}
}

// clean deletes what was written, a portion at a time.
func (k *checking) clean(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for {
		var more bool
		err := k.a.call(ctx, "clean up", func(ctx context.Context, r *remote) error {
			page, err := r.List(ctx, client.Prefix(k.prefix), client.Limit(checkBatch), client.KeysOnly())
			if err != nil || len(page.KVs) == 0 {
				return err
			}
			more = page.More
			_, err = r.DeleteRange(ctx, client.Span(page.KVs[0].Key, page.KVs[len(page.KVs)-1].Key+"\x00"))
			return err
		})
		if err != nil {
			fmt.Fprintf(k.a.errs, "kvctl: keys stay behind below %s: %v\n", k.prefix, err)
		}
		if err != nil || !more {
			return
		}
	}
}

// empty refuses to write among somebody's keys, which clean would delete.
func (k *checking) empty(ctx context.Context) error {
	return k.a.call(ctx, "check", func(ctx context.Context, r *remote) error {
		n, err := r.Count(ctx, client.Prefix(k.prefix))
		if err == nil && n > 0 {
			return &failure{code: exitRefused, err: fmt.Errorf("there are %d keys below %s already", n, k.prefix), next: "delete them, or give another --prefix"}
		}
		return err
	})
}

func (k *checking) perf(ctx context.Context) error {
	if err := k.empty(ctx); err != nil {
		return err
	}
	list, err := k.connections()
	if err != nil {
		return err
	}
	defer k.clean(ctx)
	next := make(chan int, k.load.rate)
	done, cancel := context.WithTimeout(ctx, k.time)
	defer cancel()
	go k.pace(done, next)
	if err := k.write(ctx, list, next); err != nil {
		return classify("check perf", err, k.a.endpoints...)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return k.verdict()
}

// pace hands out work at the load's rate until ctx ends.
func (k *checking) pace(ctx context.Context, next chan<- int) {
	defer close(next)
	bar := k.a.progress("writing")
	defer bar.done()
	start := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for due := int(time.Since(start).Seconds() * float64(k.load.rate)); n < due; n++ {
			select {
			case next <- n:
			case <-ctx.Done():
				return
			}
		}
		bar.step(float64(time.Since(start))/float64(k.time), fmt.Sprintf("%v of %v, %d keys", time.Since(start).Round(time.Second), k.time, n))
	}
}

// verdict is the word for the outcome of a check.
func (a *app) verdict(pass bool) string {
	if pass {
		return a.paint(green, "PASS")
	}
	return a.paint(red, "FAIL")
}

// verdict says pass or fail, by etcdctl's measure.
func (k *checking) verdict() error {
	took := k.mu.took
	slices.Sort(took)
	n := len(took)
	if n == 0 {
		return checkFailed("check perf", fmt.Errorf("nothing was written"), "give it a longer --duration")
	}
	at := func(share float64) time.Duration { return took[min(n-1, int(share*float64(n)))] }
	rate := float64(n) / k.time.Seconds()
	pass := true
	say := func(ok bool, format string, args ...any) string {
		pass = pass && ok
		return k.a.verdict(ok) + ": " + fmt.Sprintf(format, args...)
	}
	report := []string{
		say(rate >= wantShare*float64(k.load.rate), "Throughput is %.0f writes/s of %d", rate, k.load.rate),
		say(took[n-1] <= slowest, "Slowest request took %v (limit %v)", took[n-1].Round(time.Microsecond), slowest),
		say(at(0.99)-at(0.5) <= deviation, "p50 %v, p99 %v", at(0.5).Round(time.Microsecond), at(0.99).Round(time.Microsecond)),
	}
	report = append(report, k.a.verdict(pass))
	err := k.a.show(result{value: map[string]any{
		"pass": pass, "rate": rate, "wanted": k.load.rate, "p50": at(0.5).Seconds(), "p99": at(0.99).Seconds(), "slowest": took[n-1].Seconds(),
	}, simple: func(w io.Writer) { lines(w, report) }})
	if err == nil && !pass {
		err = checkFailed("check perf", fmt.Errorf("the cluster is too slow for this load"), "look at disks (fsync) and network first; see docs/operators")
	}
	return err
}

func (k *checking) datascale(ctx context.Context) error {
	if err := k.empty(ctx); err != nil {
		return err
	}
	list, err := k.connections()
	if err != nil {
		return err
	}
	before, err := k.a.gather(ctx, k.a.endpoints)
	if err != nil {
		return err
	}
	defer k.clean(ctx)
	next := make(chan int)
	go func() {
		defer close(next)
		bar := k.a.progress("writing")
		defer bar.done()
		for n := range k.load.keys {
			select {
			case next <- n:
				bar.step(float64(n+1)/float64(k.load.keys), fmt.Sprintf("%d of %d keys", n+1, k.load.keys))
			case <-ctx.Done():
				return
			}
		}
	}()
	if err := k.write(ctx, list, next); err != nil {
		return classify("check datascale", err, k.a.endpoints...)
	}
	after, err := k.a.gather(ctx, k.a.endpoints)
	if err != nil {
		return err
	}
	r := result{value: map[string]any{"pass": true, "keys": len(k.mu.took), "before": before, "after": after}, head: []string{"ENDPOINT", "KEYS", "BEFORE", "AFTER", "BYTES A KEY"}}
	for i, s := range after {
		grown := s.Status.DbSizeInUse - before[i].Status.DbSizeInUse
		r.rows = append(r.rows, []string{s.Endpoint, fmt.Sprint(len(k.mu.took)), size(before[i].Status.DbSizeInUse), size(s.Status.DbSizeInUse), fmt.Sprint(grown / int64(max(1, len(k.mu.took))))})
	}
	r.simple = func(w io.Writer) {
		table(w, r.head, r.rows)
		fmt.Fprintf(w, "%s: all of %d keys of %d bytes were written\n", k.a.verdict(true), len(k.mu.took), valueBytes)
	}
	return k.a.show(r)
}
