package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/workload"
)

// Config is the load of one run.
type Config struct {
	Seed       uint64
	Mixed      int // clients of each kind
	Lists      int
	Locks      int
	Registry   int
	Mix        workload.Mix
	Keys       int // that Mixed clients share
	ValueBytes int
	Pause      time.Duration // of a client between its calls
	Timeout    time.Duration // of a call
	Watchers   int
	ProbeEvery time.Duration // of each member; 0: never
	// CompactEvery is the compactor's pause; 0: nothing is compacted. It leaves the
	// last KeepRevisions.
	CompactEvery  time.Duration
	KeepRevisions int64
}

// Default is a load for two cores that is not made to be fast.
func Default(seed uint64) Config {
	return Config{
		Seed: seed, Mixed: 8, Lists: 4, Locks: 4, Registry: 4, Keys: 60, ValueBytes: 100, Timeout: 5 * time.Second, Watchers: 6, ProbeEvery: 20 * time.Millisecond,
		CompactEvery: 2 * time.Second, KeepRevisions: 500,
		Mix: workload.Mix{Put: 20, Get: 20, List: 2, Stale: 5, Delete: 4, Swap: 12, Count: 6, Txn: 6, ReadTxn: 4, Old: 3, Grant: 2, KeepAlive: 4, Revoke: 1, LeasedPut: 3},
	}
}

// Load is a load that is under way.
type Load struct {
	cfg     Config
	rec     *history.Recorder
	members []Conn
	clients sync.WaitGroup // and the compactor: what Stop ends
	streams sync.WaitGroup // watchers and collectors
	stop    context.CancelFunc
	end     context.CancelFunc
	close   []func() error
	marks   []*atomic.Int64 // the newest revision that each collector was told of
	acked   atomic.Int64
	stopped context.Context
}

// Start starts a load. Each client dials for itself; members are for collectors
// and for what is asked of one member. Connections that dial makes are closed by
// Finish.
func Start(ctx context.Context, rec *history.Recorder, cfg Config, members []history.Member, dial func(client int) (Conn, error), opts ...grpc.DialOption) (*Load, error) {
	l := &Load{cfg: cfg, rec: rec}
	var streams context.Context
	streams, l.end = context.WithCancel(ctx)
	l.stopped, l.stop = context.WithCancel(streams)
	for _, m := range members {
		c, err := Direct(m, opts...)
		if err != nil {
			return nil, err
		}
		l.members = append(l.members, c)
		l.close = append(l.close, c.Close)
	}
	for n := range cfg.Mixed + cfg.Lists + cfg.Locks + cfg.Registry {
		conn, err := dial(n)
		if err != nil {
			l.end()
			return nil, errors.Join(err, l.closeAll())
		}
		l.close = append(l.close, conn.Close)
		l.clients.Go(func() { l.drive(ctx, n, conn, l.source(n)) })
	}
	for range l.members {
		l.marks = append(l.marks, &atomic.Int64{})
	}
	for i, c := range l.members {
		l.streams.Go(func() { l.collect(streams, firstCollector+i, c, l.marks[i]) })
		l.streams.Go(func() { l.observe(streams, c) })
		if cfg.ProbeEvery > 0 {
			l.clients.Go(func() { l.probe(ctx, firstProber+i, c) })
		}
	}
	for i := range cfg.Watchers {
		n := firstWatcher + i
		r := rand.New(rand.NewPCG(cfg.Seed, uint64(n)))
		l.streams.Go(func() { l.watch(streams, n, l.members[i%len(l.members)], r) })
	}
	if cfg.CompactEvery > 0 {
		l.clients.Go(func() { l.compact(ctx, compactor) })
	}
	return l, nil
}

// Numbers of clients, which tag what they write: those that call are numbered from
// 0, the others from here.
const (
	compactor      = 9_999
	firstCollector = 10_000
	firstProber    = 11_000
	firstWatcher   = 12_000
)

// source is the part of a client.
func (l *Load) source(n int) workload.Source {
	c := l.cfg
	r := rand.New(rand.NewPCG(c.Seed, uint64(n)))
	switch {
	case n < c.Mixed:
		return &workload.Mixed{Client: n, R: r, Mix: c.Mix, Keys: c.Keys, ValueBytes: c.ValueBytes}
	case n < c.Mixed+c.Lists:
		return workload.NewLists(n, r)
	case n < c.Mixed+c.Lists+c.Locks:
		return workload.NewLocks(n, r)
	}
	return workload.NewRegistry(n, r, c.ValueBytes)
}

// idle is how long a client waits that has nothing to ask.
const idle = 10 * time.Millisecond

// drive asks what a source says until the load stops.
func (l *Load) drive(ctx context.Context, n int, conn Conn, source workload.Source) {
	for l.stopped.Err() == nil {
		method, req := source.Next()
		if method == "" {
			pause(l.stopped, idle)
			continue
		}
		op := l.call(ctx, n, conn, method, req)
		source.Learn(op)
		if op.Outcome == history.Unknown {
			pause(l.stopped, idle) // a member that is down answers at once
		}
		pause(l.stopped, l.cfg.Pause)
	}
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Acked is how many calls were answered so far.
func (l *Load) Acked() int64 { return l.acked.Load() }

// Stop ends the clients and the compactor. Watchers go on.
func (l *Load) Stop() {
	l.stop()
	l.clients.Wait()
}

// LastKey is written when all else has ended.
const LastKey = "last"

// Finish waits until all leases have ended, writes a last key, waits until every
// collector has seen it, gives watchers the time that they may take, and reads the
// state of every member. It ends the load whatever happens.
func (l *Load) Finish(ctx context.Context) error {
	l.Stop()
	defer l.streams.Wait()
	defer l.end()
	if err := l.leasesGone(ctx); err != nil {
		return err
	}
	rev, err := l.last(ctx)
	if err != nil {
		return err
	}
	for i, mark := range l.marks {
		for mark.Load() < rev {
			if ctx.Err() != nil {
				return fmt.Errorf("the collector of %s stands at revision %d, the last is %d: %w", l.members[i].Name, mark.Load(), rev, ctx.Err())
			}
			pause(ctx, idle)
		}
	}
	pause(ctx, watchGrace)
	for _, c := range l.members {
		s, err := ReadState(ctx, c, rev)
		if err != nil {
			return fmt.Errorf("read the state of %s: %w", c.Name, err)
		}
		l.rec.State(s)
	}
	l.end()
	l.streams.Wait()
	return l.closeAll()
}

// leasesGone waits until the cluster has no lease: from then on nothing changes by
// itself.
func (l *Load) leasesGone(ctx context.Context) error {
	for n := 0; ; n++ {
		c := l.members[n%len(l.members)]
		call, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
		r, err := pb.NewLeaseClient(c).LeaseLeases(call, &pb.LeaseLeasesRequest{})
		cancel()
		switch {
		case err == nil && len(r.Leases) == 0:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("leases live on: %v, %w", r.GetLeases(), errors.Join(err, ctx.Err()))
		}
		pause(ctx, 10*idle)
	}
}

// watchGrace is how long watches have at the end to be told of the last write.
const watchGrace = 2 * time.Second

// last writes the last key, as often as it takes.
func (l *Load) last(ctx context.Context) (rev int64, err error) {
	for n := 0; ; n++ {
		c := l.members[n%len(l.members)]
		op := l.call(ctx, -1, c, "etcdserverpb.KV/Put", &pb.PutRequest{Key: []byte(LastKey), Value: fmt.Appendf(nil, "last:%d", n)})
		switch {
		case op.Outcome == history.OK:
			return op.Revision(), nil
		case ctx.Err() != nil:
			return 0, fmt.Errorf("write the last key: %s", op.Err)
		}
		pause(ctx, idle)
	}
}

func (l *Load) closeAll() error {
	var errs []error
	for _, c := range l.close {
		errs = append(errs, c())
	}
	l.close = nil
	return errors.Join(errs...)
}
