package server

import (
	"container/heap"
	"context"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/planted"
)

// The clock half of leases. Which leases exist, and with which keys, is
// replicated state in mvcc. When one expires is told by the leader's monotonic
// clock alone, and becomes replicated state as a revoke.
//
// Invariants:
//
//   - Only the leader of a term has clocks, and only for that term: a new leader
//     starts every lease again with at least what its keeper was promised.
//   - A renewal is answered only if a quorum confirmed, after it arrived or just
//     before, that this member leads; so a leader that was paused renews nothing.
//   - Once an expiry is proposed, the lease is not renewed any more: its keeper
//     waits until the lease is gone, or the leader is another.
//   - What a leader says about expiry counts in its own term only; see
//     applier.leaseExpire.
const (
	// checkpointEvery is how often the remaining time of long leases is
	// replicated, so that a change of leaders does not start them anew.
	checkpointEvery = 5 * time.Minute
	// maxCheckpoints bounds one command of checkpoints.
	maxCheckpoints = 1000
	// maxExpiries and maxExpiredKeys bound one command of expiries, so that no
	// apply takes long; a single lease may have more keys. expiryPause lies
	// between two such commands: other writes go first.
	maxExpiries    = 256
	maxExpiredKeys = 4096
	expiryPause    = 50 * time.Millisecond
	// expiryRetry is when an expiry that did not come back is proposed again.
	expiryRetry = 3 * time.Second
	// promotedPerSecond spreads the expiries that fall together when a new
	// leader starts all clocks at once.
	promotedPerSecond = 750
	// promoteBatch bounds how long promotion keeps the apply goroutine out.
	promoteBatch = 1000
)

// lessor keeps the clocks of leases while this member leads.
type lessor struct {
	id      api.MemberID
	clock   clock.Clock
	log     *slog.Logger
	node    replica
	store   func() *mvcc.Store
	extend  time.Duration // what a new leader adds: the time without a leader
	recheck time.Duration // how long a confirmed leadership may be assumed

	expired func(n float64) // counts
	renewed func()          // counts one
	await   func(ctx context.Context, gone, done <-chan struct{}) error
	kick    chan struct{} // there may be something earlier to do

	mu struct {
		sync.Mutex
		term      api.Term // in which this member leads; 0: it does not
		done      chan struct{}
		ctx       context.Context // ends with the term
		end       context.CancelFunc
		confirmed time.Time // a quorum confirmed the leadership at this time or later
		leases    map[api.LeaseID]*leaseClock
		queue     leaseQueue
	}
}

// leaseClock is one lease's time. Guarded by lessor.mu.
type leaseClock struct {
	id         api.LeaseID
	ttl        int64 // granted, seconds
	remaining  int64 // as last checkpointed; 0: the whole TTL
	expiry     time.Time
	checkpoint time.Time     // when to checkpoint next; zero: never
	expiring   bool          // proposed; the lease cannot be renewed
	retry      time.Time     // when expiring: propose again
	gone       chan struct{} // closed when the lease is revoked

	wake time.Time // place in the queue; never after what is to be done
	pos  int
}

// changed takes note of replicated changes. It is called by the apply goroutine
// after the change is visible.
func (l *lessor) changed(c mvcc.LeaseChange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.term == 0 {
		return
	}
	known := l.mu.leases[c.ID]
	switch c.Kind {
	case mvcc.LeaseGranted:
		if known != nil {
			l.forgetLocked(known) // the id was revoked and granted again, or promotion was faster
		}
		l.startLocked(c.ID, c.TTL, 0, l.now())
	case mvcc.LeaseRevoked:
		if known != nil {
			l.forgetLocked(known)
		}
	case mvcc.LeaseCheckpointed:
		if known != nil {
			known.remaining = c.Remaining
		}
	}
}

// now is the time that leases run by.
func (l *lessor) now() time.Time {
	if planted.WallClockTTL {
		return l.clock.Wall()
	}
	return l.clock.Now()
}

// startLocked gives a lease a clock.
func (l *lessor) startLocked(id api.LeaseID, ttl, remaining int64, from time.Time) *leaseClock {
	left := ttl
	if remaining > 0 {
		left = remaining
	}
	c := &leaseClock{id: id, ttl: ttl, remaining: remaining, expiry: from.Add(seconds(left)), gone: make(chan struct{})}
	if seconds(left) > checkpointEvery {
		c.checkpoint = l.now().Add(checkpointEvery)
	}
	c.wake = c.next()
	l.mu.leases[id] = c
	heap.Push(&l.mu.queue, c)
	if c.pos == 0 {
		l.wakeUp()
	}
	return c
}

// seconds does not overflow: the longest leases live as long as a duration can.
func seconds(n int64) time.Duration {
	if n > int64(math.MaxInt64/time.Second) {
		return math.MaxInt64
	}
	return time.Duration(n) * time.Second
}

// next is when the lease needs attention again.
func (c *leaseClock) next() time.Time {
	at := c.expiry
	if c.expiring {
		at = c.retry
	}
	if !c.checkpoint.IsZero() && c.checkpoint.Before(at) {
		at = c.checkpoint
	}
	return at
}

func (l *lessor) forgetLocked(c *leaseClock) {
	heap.Remove(&l.mu.queue, c.pos)
	delete(l.mu.leases, c.id)
	close(c.gone)
}

func (l *lessor) wakeUp() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// follow starts and ends terms as the node's leadership changes.
func (l *lessor) follow(ctx context.Context) {
	defer l.demote()
	for {
		changed := l.node.LeaderChanges()
		l.adjust(ctx)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// adjust starts or ends a term if the node's leadership has changed.
func (l *lessor) adjust(ctx context.Context) {
	now := l.node.Status()
	leads := now.Leader == l.id && now.Leader != 0
	if !leads || now.Term != l.term() {
		l.demote()
	}
	if leads && l.term() == 0 {
		l.promote(ctx, now.Term)
	}
}

func (l *lessor) term() api.Term {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.term
}

// promote starts the clocks of all leases. From its first line on, changes that
// are applied meanwhile are noted; a lease is looked up in the store under the
// lock, so one that is revoked before is not brought back.
func (l *lessor) promote(ctx context.Context, term api.Term) {
	start := l.now()
	l.mu.Lock()
	l.mu.term = term
	l.mu.done = make(chan struct{})
	l.mu.ctx, l.mu.end = context.WithCancel(ctx)
	l.mu.confirmed = time.Time{}
	l.mu.leases, l.mu.queue = map[api.LeaseID]*leaseClock{}, nil
	l.mu.Unlock()
	store := l.store()
	ids := store.Leases()
	for batch := range slices.Chunk(ids, promoteBatch) {
		l.mu.Lock()
		for _, id := range batch {
			if l.mu.leases[id] == nil {
				l.adoptLocked(store, id, start)
			}
		}
		l.mu.Unlock()
	}
	l.spread()
	l.wakeUp()
	if len(ids) > 0 {
		l.log.Info("this member keeps the time of leases", slog.Uint64("term", uint64(term)), slog.Int("leases", len(ids)))
	}
}

// adoptLocked starts the clock of a lease from before this term, if it is still
// there.
func (l *lessor) adoptLocked(store *mvcc.Store, id api.LeaseID, start time.Time) *leaseClock {
	info, ok := store.Lease(id)
	if !ok {
		return nil
	}
	return l.startLocked(id, info.TTL, info.Remaining, start.Add(l.extend))
}

// spread moves expiries that lie too close behind each other further out.
func (l *lessor) spread() {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.Clone(l.mu.queue)
	slices.SortFunc(list, func(a, b *leaseClock) int { return a.expiry.Compare(b.expiry) })
	var free time.Time
	for _, c := range list {
		if c.expiry.Before(free) {
			c.expiry = free // later only: the wake-up in the queue may stay
		}
		free = c.expiry.Add(time.Second / promotedPerSecond)
	}
}

// demote ends the term: no clock runs, and who waits for an expiry asks the new
// leader.
func (l *lessor) demote() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.term == 0 {
		return
	}
	l.mu.term = 0
	close(l.mu.done)
	l.mu.end()
	l.mu.leases, l.mu.queue = nil, nil
}

// run proposes what is due, until ctx ends.
func (l *lessor) run(ctx context.Context) {
	for {
		wait := l.work()
		timer := l.clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-l.kick:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// idleWait is how long to sleep when nothing is known to be due.
const idleWait = time.Minute

// work proposes one batch of what is due and returns how long to sleep.
func (l *lessor) work() time.Duration {
	now := l.now()
	l.mu.Lock()
	ctx, term := l.mu.ctx, l.mu.term
	if term == 0 {
		l.mu.Unlock()
		return idleWait
	}
	expired, checkpoints := l.dueLocked(now)
	wait := idleWait
	if len(l.mu.queue) > 0 {
		wait = min(wait, max(l.mu.queue[0].wake.Sub(now), 0))
	}
	l.mu.Unlock()
	if len(checkpoints) > 0 {
		l.propose(ctx, commandLeaseCheckpoint, leaseBatch{term, checkpoints})
	}
	if len(expired) > 0 {
		if l.propose(ctx, commandLeaseExpire, leaseBatch{term, expired}) == nil {
			l.expired(float64(len(expired)))
		}
		return max(wait, expiryPause)
	}
	return wait
}

// propose replicates a batch. A failure needs nothing: what is still due comes
// up again, here or at the next leader.
func (l *lessor) propose(ctx context.Context, kind uint8, batch leaseBatch) error {
	_, err := l.node.Propose(ctx, kind, "", batch.encode())
	if err != nil && ctx.Err() == nil {
		l.log.Warn("cannot replicate the time of leases", slog.Int("leases", len(batch.leases)), slog.Any("error", err))
	}
	return err
}

// dueLocked takes what is due off the queue, up to the bounds of a batch, and
// puts it back with its next time.
func (l *lessor) dueLocked(now time.Time) (expired, checkpoints []leaseLeft) {
	keys := 0
	for len(l.mu.queue) > 0 && !l.mu.queue[0].wake.After(now) {
		if len(expired) >= maxExpiries || keys >= maxExpiredKeys || len(checkpoints) >= maxCheckpoints {
			break
		}
		c := l.mu.queue[0]
		switch {
		case !c.expiry.After(now) && (!c.expiring || !c.retry.After(now)):
			c.expiring, c.retry, c.checkpoint = true, now.Add(expiryRetry), time.Time{}
			expired = append(expired, leaseLeft{id: c.id})
			if info, ok := l.store().Lease(c.id); ok {
				keys += len(info.Keys())
			}
		case !c.checkpoint.IsZero() && !c.checkpoint.After(now):
			c.checkpoint = now.Add(checkpointEvery)
			if left := ceilSeconds(c.expiry.Sub(now)); left < c.ttl {
				checkpoints = append(checkpoints, leaseLeft{c.id, left})
			}
		}
		c.wake = c.next()
		heap.Fix(&l.mu.queue, c.pos)
	}
	return expired, checkpoints
}

func ceilSeconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

// leaseQueue orders clocks by their next wake-up. Guarded by lessor.mu.
type leaseQueue []*leaseClock

func (q leaseQueue) Len() int           { return len(q) }
func (q leaseQueue) Less(i, j int) bool { return q[i].wake.Before(q[j].wake) }
func (q leaseQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].pos, q[j].pos = i, j
}

func (q *leaseQueue) Push(x any) {
	c := x.(*leaseClock)
	c.pos = len(*q)
	*q = append(*q, c)
}

func (q *leaseQueue) Pop() any {
	old := *q
	c := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return c
}
