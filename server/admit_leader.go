package server

import (
	"context"
	"sync"

	"github.com/keelson-io/keelson/api"
)

// noLeaderTimeouts is how many election timeouts in a row a leader may be
// missing before the streams that need one are cut. Cutting is costlier than
// waiting: each client comes back at once.
const noLeaderTimeouts = 3

// streams are the open streaming RPCs.
type streams struct {
	mu struct {
		sync.Mutex
		open map[*openStream]struct{}
	}
}

type openStream struct {
	cut context.CancelCauseFunc
	led bool // its client asked for a leader
}

// add registers a stream; the returned function removes it.
func (l *streams) add(o *openStream) (remove func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.open == nil {
		l.mu.open = map[*openStream]struct{}{}
	}
	l.mu.open[o] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.mu.open, o)
	}
}

// cutAll ends all streams, or those that need a leader because there is none.
func (l *streams) cutAll(noLeader bool) {
	reason := api.ErrStopped
	if noLeader {
		reason = api.ErrNoLeader
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for o := range l.mu.open {
		if o.led || !noLeader {
			o.cut(reason)
			delete(l.mu.open, o)
		}
	}
}

// watchLeader cuts streams after noLeaderTimeouts looks, an election timeout
// apart, that found no leader.
func (s *Server) watchLeader(ctx context.Context) {
	missing := 0
	every(ctx, s.clock, s.cfg.ElectionTimeout, func(context.Context) {
		if s.node.Status().Leader != 0 {
			missing = 0
			return
		}
		if missing++; missing >= noLeaderTimeouts {
			s.led.cutAll(true)
		}
	})
}
