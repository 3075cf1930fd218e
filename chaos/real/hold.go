//go:build linux

package real

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/load"
	"github.com/keelson-io/keelson/client"
)

// Hold says what load is to be held, and how long.
type Hold struct {
	Seed   uint64
	For    time.Duration
	Every  time.Duration // the leader is killed
	Rate   int           // writes a second
	Binary string        // kvd
	Keep   string        // folder for what is left of a failure
	Log    io.Writer     // what happens; nil: nobody wants to know
}

const (
	holdElection = time.Second
	holdWriters  = 128 // each asks once at a time
	holdClients  = 4   // libraries that they share
	holdDebt     = 2 * time.Second
	holdBytes    = 128 // of a value
	holdCompact  = 10 * time.Second
	holdHistory  = 20_000  // revisions that compaction leaves
	holdDisk     = 2 << 30 // of each member, if it comes to that
)

// holder is a load that goes on.
type holder struct {
	*Run
	Hold
	tape    *tape
	clients []*client.Client
	seconds []atomic.Int64 // acknowledged writes, by second
	unknown atomic.Int64
	events  atomic.Int64
	took    time.Duration // of the load
	kills   int
	gaps    Histogram
	last    atomic.Pointer[gap] // since the last kill
	marks   []*atomic.Int64     // the revision up to which each member's watch has told
}

// gap is the time from a kill to the first acknowledgement of a write that was asked
// for after it; 0: there is none yet.
type gap struct {
	from time.Duration
	long atomic.Int64
}

// errSetup: there is nothing to judge.
var errSetup = errors.New("the cluster does not start")

// Execute holds the load in a sandbox's folder.
func (o Hold) Execute(ctx context.Context, dir string) (Held, error) {
	dir, owner := filepath.Join(dir, memory), filepath.Base(dir)
	w, err := newWorld(dir, owner, o.Seed)
	if err != nil {
		return Held{}, err
	}
	defer w.close()
	run := &Run{
		Cluster: w.cluster(dir, rand.New(rand.NewPCG(o.Seed, 0xd)), holdElection, o.Log),
		Config:  Config{Seed: o.Seed, Election: holdElection, Binary: o.Binary, Keep: o.Keep},
	}
	h := &holder{Run: run, Hold: o, tape: newTape(), gaps: Histogram{}, seconds: make([]atomic.Int64, o.For/time.Second+2)}
	held := Held{Commit: Commit(), Machine: Machine(), Began: time.Now().UTC().Truncate(time.Second), Seed: o.Seed, Rate: o.Rate, Every: o.Every}
	if err = h.live(ctx); errors.Is(err, errSetup) {
		return held, errors.Join(err, run.close())
	}
	held.Took, held.Unknown, held.Kills, held.Gaps, held.Events = h.took, int(h.unknown.Load()), h.kills, h.gaps, int(h.events.Load())
	held.count(h.seconds[:h.took/time.Second])
	if err != nil {
		held.Failure = err.Error()
		if run.result.Fault = "hold"; o.Keep != "" {
			run.keep()
		}
	}
	return held, run.close()
}

// live is the load from the first start to the verdict.
func (h *holder) live(ctx context.Context) error {
	for n := range 3 {
		if _, err := h.newMember(n+1, h.Run.Binary, holdDisk); err != nil {
			return fmt.Errorf("%w: %w", errSetup, err)
		}
	}
	if err := h.startAll(); err != nil {
		return fmt.Errorf("%w: %w", errSetup, err)
	}
	for range holdClients {
		cl, err := newClient(h.Cluster)
		if err != nil {
			return fmt.Errorf("%w: %w", errSetup, err)
		}
		defer cl.Close()
		h.clients = append(h.clients, cl)
	}
	watching, endWatches := context.WithCancel(context.Background())
	var watches sync.WaitGroup
	for _, m := range h.members() {
		mark := &atomic.Int64{}
		mark.Store(1)
		h.marks = append(h.marks, mark)
		watches.Go(func() { h.collect(watching, m, mark) })
	}
	err := h.hold(ctx)
	err = errors.Join(err, h.told())
	endWatches()
	watches.Wait()
	return errors.Join(err, errors.Join(h.tape.lost()...), h.remain(), h.audit(&history.History{}))
}

// hold lets the writers write, compacts, and kills, until the time is over.
func (h *holder) hold(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.For)
	defer cancel()
	h.begin = time.Now()
	var writers sync.WaitGroup
	for n := range holdWriters {
		writers.Go(func() { h.write(ctx, n) })
	}
	writers.Go(func() { h.compact(ctx) })
	err := h.kill(ctx)
	if err != nil {
		cancel()
	}
	<-ctx.Done()
	h.took = min(h.now(), h.For)
	writers.Wait()
	return err
}

// kill kills the leader again and again, and starts it when another one leads. The
// last time leaves writers the time to go on.
func (h *holder) kill(ctx context.Context) error {
	for next := h.Every; next+h.Every <= h.For; next += h.Every {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(next - h.now()):
		}
		m, err := h.awaitLeader(patience)
		if err != nil {
			return fmt.Errorf("O9: %w", err)
		}
		g := &gap{from: h.now()}
		h.last.Store(g)
		h.kills++
		if err := errors.Join(m.kill("kill"), h.newLeader(m), m.start()); err != nil {
			return err
		}
		err = within(patience, func() error {
			if g.long.Load() == 0 && ctx.Err() == nil {
				return fmt.Errorf("O9: no write is acknowledged %v after the leader was killed", patience)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if long := g.long.Load(); long > 0 { // or the time was over before
			h.gaps.Add(time.Duration(long))
		}
	}
	return nil
}

// write is one writer, which makes up for a pause of the cluster's as far as holdDebt.
func (h *holder) write(ctx context.Context, n int) {
	kv := pb.NewKVClient(h.clients[n%len(h.clients)].Conn())
	step := holdWriters * time.Second / time.Duration(h.Rate)
	next := time.Now().Add(step * time.Duration(n) / holdWriters)
	for i := 1; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
		if next = next.Add(step); time.Since(next) > holdDebt {
			next = time.Now().Add(-holdDebt)
		}
		h.put(kv, tagOf(n, i))
	}
}

func (h *holder) put(kv pb.KVClient, what tag) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	called, asked, last := h.tape.called(), h.now(), h.last.Load()
	resp, err := kv.Put(ctx, &pb.PutRequest{Key: []byte(what.key()), Value: what.value(holdBytes)})
	now := h.now()
	switch load.OutcomeOfClient(err) {
	case history.Unknown:
		h.unknown.Add(1)
		return
	case history.Refused:
		h.tape.refuses(what)
		return
	}
	h.tape.answered(what, called, resp.Header.Revision)
	if second := int(now / time.Second); second < len(h.seconds) {
		h.seconds[second].Add(1)
	}
	if last != nil && asked >= last.from {
		last.long.CompareAndSwap(0, int64(now-last.from))
	}
}

// collect follows all keys on one member, and goes on where a stream has ended.
func (h *holder) collect(ctx context.Context, m *Member, mark *atomic.Int64) {
	for ctx.Err() == nil {
		conn, err := h.dial(m.endpoint())
		if err == nil {
			err = h.stream(ctx, pb.NewWatchClient(conn), m, mark)
		}
		if err != nil && ctx.Err() == nil {
			time.Sleep(50 * time.Millisecond)
		}
	}
}

func (h *holder) stream(ctx context.Context, c pb.WatchClient, m *Member, mark *atomic.Int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.Watch(ctx)
	if err != nil {
		return err
	}
	req := &pb.WatchCreateRequest{Key: []byte(watchedFrom), RangeEnd: []byte(watchedTo), StartRevision: mark.Load() + 1}
	if err := s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}); err != nil {
		return err
	}
	for {
		resp, err := s.Recv()
		if err != nil {
			return err
		}
		if resp.Canceled {
			h.tape.cancelled(m.Name, mark.Load(), resp.CancelReason)
			return errors.New(resp.CancelReason)
		}
		for _, ev := range resp.Events {
			h.tape.event(m.Name, mark.Load(), ev.Kv.ModRevision, tagOfValue(ev.Kv.Value))
			mark.Store(ev.Kv.ModRevision)
		}
		h.events.Add(int64(len(resp.Events)))
	}
}

// compact gives up history that every watch has told.
func (h *holder) compact(ctx context.Context) {
	kv := pb.NewKVClient(h.clients[0].Conn())
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(holdCompact):
		}
		rev := h.marks[0].Load()
		for _, m := range h.marks {
			rev = min(rev, m.Load())
		}
		call, cancel := context.WithTimeout(ctx, callTimeout)
		// One that fails, or comes twice, is made up for by the next.
		_, _ = kv.Compact(call, &pb.CompactionRequest{Revision: rev - holdHistory})
		cancel()
	}
}

// told waits until members are equal, and every watch has told everything.
func (h *holder) told() error {
	if err := h.startAll(); err != nil {
		return err
	}
	st, err := h.members()[0].status()
	if err != nil {
		return err
	}
	return within(libraryDelay, func() error {
		for i, m := range h.marks {
			if rev := m.Load(); rev != st.Header.Revision {
				return fmt.Errorf("O3: the watch on %s stands at revision %d of %d", h.members()[i].Name, rev, st.Header.Revision)
			}
		}
		return nil
	})
}

// remain cuts the power of all members, and demands that each has then what the
// watches told of.
func (h *holder) remain() error {
	if err := errors.Join(h.cutAll(h.members()), h.startAll()); err != nil {
		return err
	}
	for _, m := range h.members() {
		if err := m.stop(); err != nil {
			return err
		}
	}
	want := h.tape.keys()
	for _, m := range h.members() {
		st, err := m.state()
		if err != nil {
			return fmt.Errorf("O4: the store of %s: %w", m.Name, err)
		}
		if len(st.Keys) != len(want) {
			return fmt.Errorf("O4: %s has %d keys, the watches told of %d", m.Name, len(st.Keys), len(want))
		}
		for _, kv := range st.Keys {
			if w := want[kv.Key]; w.rev != kv.Mod || w.what != tagOfValue([]byte(kv.Value)) {
				return fmt.Errorf("O4: %s has write %x at revision %d as %s, the watches told of %x at %d", m.Name, uint64(tagOfValue([]byte(kv.Value))), kv.Mod, kv.Key, uint64(w.what), w.rev)
			}
		}
	}
	return nil
}
