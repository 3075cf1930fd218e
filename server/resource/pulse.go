package resource

import (
	"context"
	"net/http"
	"sync/atomic"
)

// pulse is whether this member hears of the rest of the cluster. One that does not
// would leave its watchers with what it has, for good, while others go on.
type pulse struct {
	isLost atomic.Bool
	losses atomic.Uint64 // how often it was; rises before isLost is set
}

// set takes over whether the cluster is heard of; it reports whether that is news, and bad.
func (p *pulse) set(heard bool) bool {
	if heard {
		p.isLost.Store(false)
		return false
	}
	if p.isLost.Load() {
		return false
	}
	p.losses.Add(1)
	p.isLost.Store(true)
	return true
}

// feelPulse looks after the pulse until ctx ends.
func (l *Layer) feelPulse(ctx context.Context) {
	for ctx.Err() == nil {
		sleep(ctx, l.clock, pulseEvery)
		l.pieces.expire(l.clock.Now())
		call, stop := l.withTimeout(ctx, pulseTimeout)
		err := l.store.Barrier(call)
		stop()
		if ctx.Err() == nil {
			if l.pulse.set(err == nil) {
				l.feed.ring() // watches end
			}
		}
	}
}

// connected refuses what needs the rest of the cluster if that was lost and is not
// back.
func (l *Layer) connected(ctx context.Context) error {
	if !l.pulse.isLost.Load() {
		return nil
	}
	ctx, stop := l.withTimeout(ctx, freshTimeout)
	defer stop()
	if l.store.Barrier(ctx) == nil {
		l.pulse.set(true)
		return nil
	}
	return &Failure{Code: http.StatusServiceUnavailable, Reason: "ServiceUnavailable", RetryAfter: 1,
		Message: "this member does not reach the rest of the cluster"}
}
