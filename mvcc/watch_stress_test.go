package mvcc

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// storm is a writer against streams that come and go, with compaction and
// installed snapshots in between, and bounds so low that everybody falls behind
// all the time.
type storm struct {
	*world
	rng     *rand.Rand // the writer's
	clients []*stormClient
}

type stormClient struct {
	*recorder
	rng  *rand.Rand
	ids  []int64
	gate chan struct{} // the reader takes a token for each answer; closed at the end
}

func key(i int) string { return fmt.Sprintf("k%02d", i) }

// round writes one to three revisions and publishes or restores them; rarely it
// compacts.
func (s *storm) round() {
	var events []*Event
	for range 1 + s.rng.IntN(3) {
		used := make(map[string]bool)
		var ops []op
		for range 1 + s.rng.IntN(4) {
			k := key(s.rng.IntN(20))
			if used[k] {
				continue
			}
			used[k] = true
			if s.mu.live[k] != nil && s.rng.IntN(3) == 0 {
				ops = append(ops, op{k, ""})
			} else {
				ops = append(ops, op{k, fmt.Sprint(s.rng.Int())})
			}
		}
		events = append(events, s.apply(ops...)...)
	}
	rev := events[len(events)-1].Rev
	if s.rng.IntN(40) == 0 {
		s.hub.reset(s.world, rev, func() {})
	} else {
		s.hub.publish(rev, events, func() {})
	}
	if s.rng.IntN(30) == 0 {
		s.compactAt(max(s.CompactRevision(), rev-api.Revision(s.rng.IntN(60))))
	}
}

// act is one request of a client.
func (c *stormClient) act(at api.Revision) {
	switch n := c.rng.IntN(12); {
	case n < 5 && len(c.ids) < 12:
		q := WatchRequest{
			Key: []byte(key(c.rng.IntN(20))), PrevKV: c.rng.IntN(2) == 0, Progress: c.rng.IntN(2) == 0,
			NoPut: c.rng.IntN(6) == 0, NoDelete: c.rng.IntN(6) == 0,
		}
		switch c.rng.IntN(4) {
		case 0:
			q.End = []byte("l")
		case 1:
			q.End = []byte{0}
		case 2:
			q.End = []byte(key(c.rng.IntN(20)))
		}
		if c.rng.IntN(3) > 0 {
			q.Start = max(0, at-50+api.Revision(c.rng.IntN(70)))
		}
		if id, err := c.watch(q); err == nil {
			c.ids = append(c.ids, id)
		}
	case n == 5 && len(c.ids) > 0:
		i := c.rng.IntN(len(c.ids))
		c.stream.Cancel(c.ids[i])
		c.ids = append(c.ids[:i], c.ids[i+1:]...)
	case n < 9:
		c.stream.RequestProgress()
	case n == 9:
		c.stream.Tick()
	}
	for range c.rng.IntN(6) { // lets the reader go on a little
		select {
		case c.gate <- struct{}{}:
		default:
		}
	}
}

// read takes answers as the gate lets it.
func (c *stormClient) read(ctx context.Context) {
	for {
		<-c.gate
		d, err := c.stream.Next(ctx)
		c.mu.Lock()
		if err != nil {
			c.err = err
			c.mu.Unlock()
			return
		}
		c.note(d)
		c.mu.Unlock()
	}
}

// behind is how many events the client's open watches still lack.
func (c *stormClient) behind(h *watchcheck.History, rev api.Revision) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, w := range c.watches {
		if rs := w.Responses; !rs[len(rs)-1].Canceled {
			n += watchcheck.Behind(*w, h, int64(rev))
		}
	}
	return n
}

// TestWatchStorm runs a few storms; WATCH_STORMS=n runs n of them.
func TestWatchStorm(t *testing.T) {
	storms, err := strconv.ParseUint(cmp.Or(os.Getenv("WATCH_STORMS"), "4"), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range storms {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runStorm(t, seed, 1500) })
	}
}

func runStorm(t *testing.T, seed uint64, rounds int) {
	s := &storm{world: newWorld(), rng: rand.New(rand.NewPCG(seed, 0))}
	s.hub.limits = hubLimits{logBytes: 8 << 10, logEvents: 64, batchBytes: 512, replayEvents: 40}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var readers, clients sync.WaitGroup
	done := make(chan struct{})
	for i := range 6 {
		c := &stormClient{recorder: record(s.hub.newStream()), rng: rand.New(rand.NewPCG(seed, uint64(i+1))), gate: make(chan struct{}, 8)}
		s.clients = append(s.clients, c)
		readers.Go(func() { c.read(ctx) })
		clients.Go(func() {
			for {
				select {
				case <-done:
					close(c.gate) // and now as fast as it can
					return
				default:
					c.act(c.stream.Revision())
				}
			}
		})
	}
	for range rounds {
		s.round()
	}
	close(done)
	clients.Wait()
	h, rev := s.history(), s.mu.rev
	for i, c := range s.clients {
		eventually(t, fmt.Sprintf("client %d has everything up to %d", i, rev), func() bool { return c.behind(h, rev) == 0 })
	}
	cancel()
	for _, c := range s.clients {
		c.stream.Close()
	}
	readers.Wait()
	delivered := 0
	for _, c := range s.clients {
		c.check(t, h)
		delivered += len(c.lines)
		if c.err != context.Canceled && c.err != ErrStreamClosed {
			t.Errorf("a stream ended with %v", c.err)
		}
	}
	s.checkEmpty(t)
	t.Logf("%d revisions, %d answers", rev, delivered)
}

// checkEmpty holds the hub to having forgotten streams that are closed.
func (w *world) checkEmpty(t *testing.T) {
	t.Helper()
	st := w.hub.statsNow()
	if st.Streams != 0 || st.Watchers != 0 || st.Slow != 0 || st.Pending != 0 || w.hub.mu.pending != 0 {
		t.Errorf("left behind: %+v, pending feeds %d", st, w.hub.mu.pending)
	}
	if len(w.hub.mu.groups) != 0 || len(w.hub.mu.match.keys) != 0 || w.hub.mu.match.root != nil {
		t.Errorf("%d groups left behind", len(w.hub.mu.groups))
	}
}
