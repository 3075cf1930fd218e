package resource

import (
	"context"
	"net/http"
	"sync"
)

// pulse is whether this member hears of the rest of the cluster. One that does not
// would leave its watchers with what it has, for good, while others go on.
type pulse struct {
	mu struct {
		sync.Mutex
		isLost bool
		lost   chan struct{} // closed while it is
	}
}

func newPulse() *pulse {
	p := &pulse{}
	p.mu.lost = make(chan struct{})
	return p
}

func (p *pulse) set(heard bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !heard && !p.mu.isLost:
		close(p.mu.lost)
	case heard && p.mu.isLost:
		p.mu.lost = make(chan struct{})
	}
	p.mu.isLost = !heard
}

// lost is closed when the cluster is not heard of any more.
func (p *pulse) lost() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.lost
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
			l.pulse.set(err == nil)
		}
	}
}

// connected refuses what needs the rest of the cluster if that was lost and is not
// back.
func (l *Layer) connected(ctx context.Context) error {
	select {
	case <-l.pulse.lost():
	default:
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
