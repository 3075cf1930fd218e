package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/keelson-io/keelson/api"
)

// Session is a lease that is kept alive for as long as this process lives and
// reaches the cluster. Locks and leadership belong to a session.
type Session struct {
	c      *Client
	lease  LeaseID
	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   func()

	mu struct {
		sync.Mutex
		places map[string]bool // keys in queues that are held or waited for
	}
}

// NewSession grants a lease and keeps it alive. ttl is how long the cluster
// waits for a sign of life: when a process dies, what it held is free after it.
func (c *Client) NewSession(ctx context.Context, ttl time.Duration) (*Session, error) {
	sent := time.Now()
	l, err := c.Grant(ctx, ttl)
	if err != nil {
		return nil, err
	}
	return c.session(l, sent)
}

// AdoptSession keeps a lease alive that exists: this process's own, say, from
// before it was restarted. A lease that is gone is ErrLeaseLost.
func (c *Client) AdoptSession(ctx context.Context, id LeaseID) (*Session, error) {
	sent := time.Now()
	ttl, err := c.Renew(ctx, id)
	if err != nil {
		return nil, err
	}
	return c.session(Lease{ID: id, Granted: ttl}, sent)
}

// session keeps a lease alive whose time began when the request was sent.
func (c *Client) session(l Lease, sent time.Time) (s *Session, err error) {
	s = &Session{c: c, lease: l.ID}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	if s.stop, err = c.keeper.keep(l, sent, s.cancel); err != nil {
		s.cancel(err)
		return nil, err
	}
	return s, nil
}

// Lease returns the session's lease, for WithLease.
func (s *Session) Lease() LeaseID { return s.lease }

// Context ends when the session does; its cause is ErrLeaseLost when the lease
// was lost, and ErrClosed when the session or the client was closed. Work that
// needs the session should run under it. It ends, by this process's clock, no
// later than the lease does in the cluster.
func (s *Session) Context() context.Context { return s.ctx }

// Close revokes the lease, which frees all that the session holds.
func (s *Session) Close(ctx context.Context) error {
	s.stop()
	s.cancel(ErrClosed)
	if err := s.c.Revoke(ctx, s.lease); !errors.Is(err, api.ErrLeaseNotFound) {
		return err
	}
	return nil
}

// claim reserves a place in a queue, unless it is taken.
func (s *Session) claim(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.places[key] {
		return false
	}
	if s.mu.places == nil {
		s.mu.places = map[string]bool{}
	}
	s.mu.places[key] = true
	return true
}

func (s *Session) release(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.places, key)
}

// err is nil while the session lives.
func (s *Session) err() error { return context.Cause(s.ctx) }
