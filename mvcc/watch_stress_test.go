package mvcc

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// storm is a writer against streams that come and go, with compaction and
// installed snapshots in between, and bounds so low that everybody falls behind
// all the time.
type storm struct {
	*world             // what really happened; and the store, when real is nil
	real    *Store     // the store under test
	hub     *hub       // its hub
	rng     *rand.Rand // the writer's
	clients []*stormClient
}

type stormClient struct {
	*recorder
	rng  *rand.Rand
	ids  []int64
	gate chan struct{} // the reader takes a token for each answer; closed at the end
	turn chan struct{} // the client makes a request for each token; closed at the end
}

func key(i int) string { return fmt.Sprintf("k%02d", i) }

// round writes one to three revisions and publishes or restores them; rarely it
// compacts.
func (s *storm) round() {
	var events []*Event
	var txns [][]op
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
		txns = append(txns, ops)
	}
	rev := events[len(events)-1].Rev
	switch {
	case s.real != nil:
		s.writeReal(txns)
	case s.rng.IntN(40) == 0:
		s.hub.reset(s.world, rev, func() {})
	default:
		s.hub.publish(rev, events, func() {})
	}
	if s.rng.IntN(30) == 0 {
		s.compactAt(max(s.CompactRevision(), rev-api.Revision(s.rng.IntN(60))))
		if s.real != nil {
			tx := s.real.Begin()
			if err := tx.Compact(s.mu.compact); err != nil && err != ErrCompacted {
				panic(err)
			}
			tx.End()
			s.real.Seal(api.Index(rev), 1)
			s.real.Publish()
		}
	}
}

// writeReal applies the transactions to the store under test.
func (s *storm) writeReal(txns [][]op) {
	for _, ops := range txns {
		tx := s.real.Begin()
		for _, o := range ops {
			if o.value == "" {
				tx.DeleteRange([]byte(o.key), nil, nil)
			} else {
				tx.Put([]byte(o.key), []byte(o.value), 0)
			}
		}
		tx.End()
	}
	s.real.Seal(api.Index(s.mu.rev), 1)
	s.real.Publish()
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
	storms, err := strconv.ParseUint(cmp.Or(os.Getenv("WATCH_STORMS"), "3"), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range storms {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld()
			runStorm(t, &storm{world: w, hub: w.hub, rng: rand.New(rand.NewPCG(seed, 0))}, seed)
		})
		t.Run(fmt.Sprint(seed, " store"), func(t *testing.T) { runStoreStorm(t, seed) })
	}
}

// runStoreStorm is a storm over the real store, which flushes and compacts
// meanwhile.
func runStoreStorm(t *testing.T, seed uint64) {
	store, err := Open(Config{
		Clock: clock.System(), Engine: engine.NewMemory(), Logger: slog.New(slog.DiscardHandler),
		TailBytes: 4 << 10, FlushInterval: time.Millisecond, CompactionBatch: 10,
		OnFatal: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- store.Run(ctx) }()
	runStorm(t, &storm{world: newWorld(), real: store, hub: store.hub, rng: rand.New(rand.NewPCG(seed, 0))}, seed)
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	for _, err := range store.Check() {
		t.Error(err)
	}
}

func runStorm(t *testing.T, s *storm, seed uint64) {
	const rounds = 1000
	s.hub.limits = hubLimits{logBytes: 8 << 10, logEvents: 64, batchBytes: 512, replayEvents: 40}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var readers, clients sync.WaitGroup
	for i := range 6 {
		c := &stormClient{recorder: record(s.hub.newStream()), rng: rand.New(rand.NewPCG(seed, uint64(i+1))), gate: make(chan struct{}, 8), turn: make(chan struct{}, 4)}
		s.clients = append(s.clients, c)
		readers.Go(func() { c.read(ctx) })
		clients.Go(func() {
			for range c.turn {
				c.act(c.stream.Revision())
			}
			close(c.gate) // and now as fast as it can
		})
	}
	for range rounds {
		s.round()
		s.clients[s.rng.IntN(len(s.clients))].turn <- struct{}{} // the writer must not run away
		for _, c := range s.clients {
			select {
			case c.turn <- struct{}{}:
			default: // it lags behind the writer
			}
		}
	}
	for _, c := range s.clients {
		close(c.turn)
	}
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
	checkEmpty(t, s.hub)
	t.Logf("%d revisions, %d answers", rev, delivered)
}

// checkEmpty holds the hub to having forgotten streams that are closed.
func checkEmpty(t *testing.T, h *hub) {
	t.Helper()
	st := h.statsNow()
	if st.Streams != 0 || st.Watchers != 0 || st.Slow != 0 || st.Pending != 0 || h.mu.pending != 0 {
		t.Errorf("left behind: %+v, pending feeds %d", st, h.mu.pending)
	}
	if len(h.mu.groups) != 0 || len(h.mu.match.keys) != 0 || h.mu.match.root != nil {
		t.Errorf("%d groups left behind", len(h.mu.groups))
	}
}
