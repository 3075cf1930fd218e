package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/compat/cluster"
)

// A timeline shows what writers feel of a store's own work and of a leader's death:
// how long their writes take, from beginning to end of all that, on each store.
type Timeline struct {
	Origin
	Machine string
	Series  []Series
}

// Series is one store's part. Times are seconds since its writers began.
type Series struct {
	Store string
	Spans []Span
	Slots []Slot
}

// Span is when something went on beside the writers.
type Span struct {
	From, To float64
	What     string
}

// Slot is a tenth of a second: the writes that began in it, the median of the times
// they took, and the longest of all that were under way in it, which may have begun
// before.
type Slot struct {
	At            float64
	Writes        int
	Typical, Most float64 // ms
}

const (
	slotWidth = 100 * time.Millisecond
	// timelineWriters write one after the other, each, as in the rows of flat.
	timelineWriters = 10
	// timelineRest is how long nothing but the writers goes on, between two events.
	timelineRest = 4 * time.Second
	// timelineAttempt is for how long a writer waits for a member before it asks
	// the next one.
	timelineAttempt = 500 * time.Millisecond

	timelineTxns, timelineBatch, timelineKeys = 5_000, 100, 10_000
)

// event is something that goes on beside the writers.
type event struct {
	what string
	run  func(ctx context.Context, t *target) error
}

func events() []event {
	return []event{
		{"compaction of half a million revisions", func(ctx context.Context, t *target) error {
			return compactAll(ctx, t, timelineTxns*timelineBatch-timelineKeys)
		}},
		{"a snapshot to a follower", catchUp},
		{"defragmentation, member after member", defragmentAll},
		{"the leader killed", func(ctx context.Context, t *target) error {
			leader, err := t.cluster.Leader(ctx)
			if err != nil {
				return err
			}
			leader.Kill()
			return until(ctx, func() bool { return anotherLeads(ctx, t.cluster, leader) })
		}},
	}
}

// anotherLeads reports whether a member that is not gone says that it leads.
func anotherLeads(ctx context.Context, c *cluster.Cluster, gone *cluster.Member) bool {
	for _, m := range c.Members {
		if m == gone {
			continue
		}
		if s, err := m.Status(ctx); err == nil && s.Leader == s.Header.MemberId {
			return true
		}
	}
	return false
}

// defragmentAll is what an operator does: the leader comes last.
func defragmentAll(ctx context.Context, t *target) error {
	leader, err := t.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	members := slices.DeleteFunc(slices.Clone(t.cluster.Members), func(m *cluster.Member) bool { return m == leader })
	for _, m := range append(members, leader) {
		conn, err := m.Dial()
		if err != nil {
			return err
		}
		_, err = pb.NewMaintenanceClient(conn).Defragment(ctx, &pb.DefragmentRequest{})
		conn.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// MeasureTimeline runs the events on each store, one store after the other.
func MeasureTimeline(ctx context.Context, cfg Config) (*Timeline, error) {
	line := &Timeline{Origin: Origin{Began: time.Now().UTC().Truncate(time.Second), Commit: cfg.Commit, Command: cfg.Command, Rounds: 1}, Machine: machine()}
	for _, sys := range []cluster.System{cfg.Left, cfg.Right} {
		s, err := measureSeries(ctx, sys, filepath.Join(cfg.Dir, sys.Name), cfg.Progress)
		if err != nil {
			return line, fmt.Errorf("%s: %w", sys.Name, err)
		}
		line.Series = append(line.Series, *s)
	}
	return line, nil
}

func measureSeries(ctx context.Context, sys cluster.System, dir string, progress func(string)) (*Series, error) {
	t, err := newTargetOf(ctx, sys, dir, 3)
	defer t.close()
	if err != nil {
		return nil, err
	}
	progress(sys.Name + ": filling")
	if err := leaveBehind(ctx, t); err != nil {
		return nil, err
	}
	if err := overwrite(ctx, t.leader, timelineTxns, timelineBatch, timelineKeys, valueSize); err != nil {
		return nil, err
	}
	w, err := startWriters(ctx, t)
	if err != nil {
		return nil, err
	}
	s := &Series{Store: sys.Name}
	for _, e := range events() {
		time.Sleep(timelineRest)
		from := time.Since(w.began).Seconds()
		if err := e.run(ctx, t); err != nil {
			w.stop()
			return nil, fmt.Errorf("%s: %w", e.what, err)
		}
		s.Spans = append(s.Spans, Span{from, time.Since(w.began).Seconds(), e.what})
		progress(fmt.Sprintf("%s: %s: %.2f s", sys.Name, e.what, s.Spans[len(s.Spans)-1].To-from))
	}
	time.Sleep(timelineRest)
	s.Slots = slotsOf(w.stop())
	return s, nil
}

// writers are clients in closed loops, until they are stopped.
type writers struct {
	began  time.Time
	wg     sync.WaitGroup
	end    context.CancelFunc
	writes [timelineWriters][]timedWrite
}

// timedWrite is one acknowledged write: when it began and when it was acknowledged.
type timedWrite struct{ from, to time.Duration }

func startWriters(ctx context.Context, t *target) (*writers, error) {
	var members []pb.KVClient
	leader, err := t.cluster.Leader(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range t.cluster.Members {
		conn, err := m.Dial()
		if err != nil {
			return nil, err
		}
		t.conns = append(t.conns, conn) // closed with the others
		if members = append(members, pb.NewKVClient(conn)); m == leader {
			last := len(members) - 1
			members[0], members[last] = members[last], members[0]
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &writers{began: time.Now(), end: cancel}
	for i := range w.writes {
		w.wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 29))
			for at := 0; ctx.Err() == nil; {
				put := &pb.PutRequest{Key: fmt.Appendf(nil, "/bench/timeline/%05d", rng.IntN(10_000)), Value: value(rng, valueSize)}
				from := time.Since(w.began)
				for ctx.Err() == nil && !attempt(ctx, members[at%len(members)], put) {
					at++
				}
				if ctx.Err() == nil {
					w.writes[i] = append(w.writes[i], timedWrite{from, time.Since(w.began)})
				}
			}
		})
	}
	return w, nil
}

func attempt(ctx context.Context, member pb.KVClient, put *pb.PutRequest) bool {
	call, cancel := context.WithTimeout(ctx, timelineAttempt)
	defer cancel()
	_, err := member.Put(call, put)
	if err != nil {
		select { // a member that refuses at once is not asked without end
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return err == nil
}

func (w *writers) stop() []timedWrite {
	w.end()
	w.wg.Wait()
	return slices.Concat(w.writes[:]...)
}

// slotsOf sorts writes into slots.
func slotsOf(writes []timedWrite) []Slot {
	var slots []Slot
	var began [][]time.Duration
	for _, w := range writes {
		for n := len(slots); n <= int(w.to/slotWidth); n++ {
			slots = append(slots, Slot{At: (time.Duration(n) * slotWidth).Seconds()})
			began = append(began, nil)
		}
		took := w.to - w.from
		first := int(w.from / slotWidth)
		began[first] = append(began[first], took)
		for n := first; n <= int(w.to/slotWidth); n++ {
			slots[n].Most = max(slots[n].Most, took.Seconds()*1000)
		}
	}
	for n := range slots {
		slices.Sort(began[n])
		o := outcome{latencies: began[n]}
		slots[n].Writes, slots[n].Typical = len(began[n]), o.quantile(0.5)
	}
	return slots
}
