package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

// compacted is a compactor whose world a test controls, step by step.
type compacted struct {
	t     *testing.T
	clock *clock.Fake
	mu    struct {
		sync.Mutex
		rev     api.Revision
		follows bool
		fail    error
		tried   []api.Revision
	}
	steps *stepClock
}

// stepClock tells when the compactor waits for the next timer, so that a test
// moves the clock only then.
type stepClock struct {
	*clock.Fake
	armed chan struct{}
}

func (c *stepClock) NewTimer(d time.Duration) clock.Timer {
	timer := c.Fake.NewTimer(d)
	c.armed <- struct{}{}
	return timer
}

func newCompacted(t *testing.T, mode, retention string) *compacted {
	m := defaultMaintenance()
	m.AutoCompactionMode, m.AutoCompactionRetention = mode, retention
	keep, err := m.retention()
	if err != nil {
		t.Fatal(err)
	}
	fake := clock.NewFake(time.Unix(0, 0))
	w := &compacted{t: t, clock: fake, steps: &stepClock{fake, make(chan struct{})}}
	c := &compactor{
		mode: mode, retention: keep, clock: w.steps, log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		revision: func() api.Revision { return under(&w.mu, func() api.Revision { return w.mu.rev }) },
		leads:    func() bool { return !under(&w.mu, func() bool { return w.mu.follows }) },
		compact: func(_ context.Context, at api.Revision) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.mu.tried = append(w.mu.tried, at)
			return w.mu.fail
		},
	}
	w.mu.rev = 1
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	<-w.steps.armed
	return w
}

func under[T any](mu sync.Locker, fn func() T) T {
	mu.Lock()
	defer mu.Unlock()
	return fn()
}

// step lets a pause pass with the store at a revision afterwards, and returns
// what was compacted.
func (w *compacted) step(d time.Duration, rev api.Revision) []api.Revision {
	w.mu.Lock()
	w.mu.tried = nil
	w.mu.Unlock()
	w.clock.Advance(d)
	<-w.steps.armed // the next sample has been taken
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.rev = rev
	return slices.Clone(w.mu.tried)
}

// TestPeriodicCompaction follows etcd's schedule for a period of ten hours:
// nothing for a period, then each hour to where the store stood ten hours ago.
func TestPeriodicCompaction(t *testing.T) {
	const pause = 6 * time.Minute // a tenth of the interval, which is an hour
	for name, c := range map[string]struct {
		retention      string
		pause          time.Duration
		first, samples int // pauses until the first compaction, and between the others
	}{
		"ten hours":    {"10", pause, 100, 10},
		"five minutes": {"5m", 30 * time.Second, 10, 10},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCompacted(t, CompactPeriodic, c.retention)
			for i := 1; i <= c.first+3*c.samples; i++ {
				tried := w.step(c.pause, api.Revision(i*100))
				due := i >= c.first && (i-c.first)%c.samples == 0
				if due != (len(tried) > 0) {
					t.Fatalf("after %d pauses: compacted %v", i, tried)
				}
				// Sample j is taken when pause j ends, and sees what step j-1 left.
				sample := func(j int) api.Revision { return api.Revision(max((j-1)*100, 1)) }
				if want := sample(max(i-c.first-1, 0)); due && tried[0] != want {
					t.Errorf("after %d pauses: compacted at %d, want %d", i, tried[0], want)
				}
			}
		})
	}
}

func TestPeriodicCompactionFailsAndPauses(t *testing.T) {
	w := newCompacted(t, CompactPeriodic, "10m")
	rev := api.Revision(1)
	steps := func(n int) (all []api.Revision) {
		for range n {
			rev += 10
			all = append(all, w.step(time.Minute, rev)...)
		}
		return all
	}
	set := func(follows bool, fail error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.mu.follows, w.mu.fail = follows, fail
	}
	set(false, errors.New("no"))
	if tried := steps(13); len(tried) != 4 || !slices.IsSorted(tried) {
		t.Errorf("a failed compaction was tried %v, want each minute from the tenth on", tried)
	}
	set(true, nil)
	if tried := steps(5); len(tried) != 0 {
		t.Errorf("a follower compacted %v", tried)
	}
	set(false, api.ErrCompacted)
	if tried := steps(10); len(tried) != 1 {
		t.Errorf("compacted already counts as done: %v", tried)
	}
}

func TestCompactionByRevision(t *testing.T) {
	w := newCompacted(t, CompactRevision, "100")
	for i, c := range []struct {
		rev  api.Revision // at the time
		want []api.Revision
	}{
		{50, nil}, {100, nil}, {250, []api.Revision{150}}, {250, nil}, {251, []api.Revision{151}},
	} {
		w.mu.Lock()
		w.mu.rev = c.rev
		w.mu.Unlock()
		if tried := w.step(revisionInterval, c.rev); !slices.Equal(tried, c.want) {
			t.Errorf("step %d, at %d: compacted %v, want %v", i, c.rev, tried, c.want)
		}
	}
}

func TestRetention(t *testing.T) {
	for _, c := range []struct {
		mode, text string
		want       int64
	}{
		{CompactPeriodic, "0", 0}, {CompactPeriodic, "", 0}, {CompactPeriodic, "1", int64(time.Hour)}, {CompactPeriodic, "90s", int64(90 * time.Second)},
		{CompactRevision, "1000", 1000}, {CompactRevision, "1us", 1000},
	} {
		m := Maintenance{AutoCompactionMode: c.mode, AutoCompactionRetention: c.text}
		if got, err := m.retention(); err != nil || got != c.want {
			t.Errorf("%s %q: %d, %v, want %d", c.mode, c.text, got, err, c.want)
		}
	}
}
