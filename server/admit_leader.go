package server

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/keelson-io/keelson/api"
)

// noLeaderTimeouts is how many election timeouts in a row a leader may be
// missing before the streams that need one are cut. Cutting is costlier than
// waiting: each client comes back at once.
const noLeaderTimeouts = 3

// streams are the open streaming RPCs.
type streams struct {
	// leaderless says that there has been no leader for so long.
	leaderless atomic.Bool

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
			s.led.leaderless.Store(false)
			return
		}
		if missing++; missing >= noLeaderTimeouts {
			s.led.leaderless.Store(true) // before the cut: who waits is cut, who comes sees it
			s.led.cutAll(true)
		}
	})
}

// awaitLeader waits until a leader is known or the open stream's context ends. etcd
// refuses a stream that demands a leader and is opened during an election, and its
// client's watch does not come back from that. Here such a stream has the time that one
// has that was open before; only where that time is over it is refused at once.
func (s *Server) awaitLeader(ctx context.Context, o *openStream) {
	for {
		changed := s.node.LeaderChanges()
		if s.node.Status().Leader != 0 {
			return
		}
		if s.led.leaderless.Load() {
			o.cut(api.ErrNoLeader)
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
