package server

import (
	"context"
	"slices"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
)

// ask answers a question about a lease, if this member surely leads. It returns
// ErrLeaseNotFound, or ErrNotLeader when the question belongs elsewhere.
func (l *lessor) ask(ctx context.Context, q leaseQuestion) (leaseState, error) {
	term, fresh, err := l.confirm(ctx, !q.renew)
	if err != nil {
		return leaseState{}, err
	}
	for {
		state, wait, err := l.tryAsk(term, q)
		if err == error(api.ErrLeaseNotFound) && !fresh {
			// It may have been granted since the leadership was confirmed.
			if term, fresh, err = l.confirm(ctx, true); err != nil {
				return leaseState{}, err
			}
			continue
		}
		if wait == nil {
			if q.renew && err == nil {
				l.renewed()
			}
			return state, err
		}
		if err := wait(ctx); err != nil {
			return leaseState{}, err
		}
	}
}

// confirm makes sure that this member leads, and leads now: it asks a quorum,
// unless it did so a moment ago and that is good enough. After a fresh
// confirmation all that was acknowledged anywhere before is visible here.
func (l *lessor) confirm(ctx context.Context, always bool) (term api.Term, fresh bool, err error) {
	now := l.now()
	l.mu.Lock()
	term = l.mu.term
	recent := !l.mu.confirmed.IsZero() && now.Sub(l.mu.confirmed) < l.recheck
	l.mu.Unlock()
	switch {
	case term == 0:
		return 0, false, api.ErrNotLeader
	case (recent || planted.RenewUnconfirmed) && !always:
		return term, false, nil
	}
	if err := l.node.ReadBarrier(ctx); err != nil {
		return 0, false, err
	}
	// A barrier also succeeds through another leader: then the term is over.
	if at := l.node.Status(); at.Leader != l.id || at.Term != term {
		return 0, false, api.ErrNotLeader
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.term != term {
		return 0, false, api.ErrNotLeader
	}
	l.mu.confirmed = now
	return term, true, nil
}

// tryAsk answers, or says what to wait for before trying again.
func (l *lessor) tryAsk(term api.Term, q leaseQuestion) (_ leaseState, wait func(context.Context) error, _ error) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.term != term {
		return leaseState{}, nil, api.ErrNotLeader
	}
	c := l.mu.leases[q.id]
	if c == nil {
		// Promotion is under way, or the grant is visible and about to be noted.
		if c = l.adoptLocked(l.store(), q.id, now); c == nil {
			return leaseState{}, nil, api.ErrLeaseNotFound
		}
	}
	if !q.renew {
		return l.lookLocked(c, q, now), nil, nil
	}
	if c.expiring || !c.expiry.After(now) {
		return leaseState{}, l.waitGone(c.gone, l.mu.done), nil
	}
	if c.remaining > 0 {
		// The next leader must not count from the checkpoint any more.
		batch := leaseBatch{term, []leaseLeft{{id: c.id}}}
		return leaseState{}, func(ctx context.Context) error { return l.propose(ctx, commandLeaseCheckpoint, batch) }, nil
	}
	c.expiry = now.Add(seconds(c.ttl)) // later than before: its wake-up may stay
	return leaseState{ttl: c.ttl, granted: c.ttl}, nil, nil
}

func (l *lessor) lookLocked(c *leaseClock, q leaseQuestion, now time.Time) leaseState {
	state := leaseState{ttl: int64(c.expiry.Sub(now).Seconds()), granted: c.ttl}
	if info, ok := l.store().Lease(q.id); ok && q.keys {
		state.keys = info.Keys()
	}
	return state
}

// waitGone waits until an expired lease is revoked, or the term is over.
func (l *lessor) waitGone(gone, done <-chan struct{}) func(context.Context) error {
	return func(ctx context.Context) error { return l.await(ctx, gone, done) }
}

func awaitGone(ctx context.Context, gone, done <-chan struct{}) error {
	select {
	case <-gone:
		return api.ErrLeaseNotFound
	case <-done:
		return api.ErrNotLeader
	case <-ctx.Done():
		return ctx.Err()
	}
}

// byExpiry lists the leases, the next to expire first; false when this member
// does not lead.
func (l *lessor) byExpiry() ([]api.LeaseID, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.term == 0 {
		return nil, false
	}
	list := slices.Clone(l.mu.queue)
	slices.SortFunc(list, func(a, b *leaseClock) int { return a.expiry.Compare(b.expiry) })
	ids := make([]api.LeaseID, len(list))
	for i, c := range list {
		ids[i] = c.id
	}
	return ids, true
}
