package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/keelson-io/keelson/api"
)

// Numbers of the store, with their types.
type (
	// Revision counts the transactions that changed the store.
	Revision = api.Revision
	// LeaseID names a lease; 0 means "no lease".
	LeaseID = api.LeaseID
)

// Client talks to one cluster. It is safe for concurrent use; a process needs
// one. Close ends it.
type Client struct {
	*core
	prefix string // of every key; see Namespace
}

// core is what the views of one client share.
type core struct {
	cfg    Config
	pool   *pool
	tokens *tokens // nil: nobody logs in

	hub    watchHub
	keeper keeper

	pageOnly atomic.Bool // the servers have no RangeStream

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wait   sync.WaitGroup // the goroutines of this client
	mu     struct {
		sync.Mutex
		closed bool // no goroutine starts any more
	}
}

// New makes a client. It does not wait for a connection: that the cluster cannot
// be reached shows in the first call.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("client: no endpoints")
	}
	p, err := newPool(cfg)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c := &core{cfg: cfg, pool: p}
	c.keeper.core, c.keeper.kick = c, make(chan struct{}, 1)
	switch {
	case cfg.Token != nil:
		c.tokens = newTokens(cfg.Token)
	case cfg.Username != "":
		c.tokens = newTokens(c.login)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.spawn(func() { c.scout(c.ctx) })
	return &Client{core: c}, nil
}

// Close ends all watches, sessions and calls with ErrClosed, waits for the
// client's goroutines and closes its connections. Leases are not revoked: they
// end when their time is up.
func (c *Client) Close() error {
	c.mu.Lock()
	c.mu.closed = true
	c.mu.Unlock()
	c.cancel()
	closeAll(c.pool.list())
	c.wait.Wait()
	return nil
}

// spawn starts a goroutine that ends when c.ctx does, unless it has ended.
func (c *core) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return false
	}
	c.wait.Go(f)
	return true
}

// Namespace returns a view of the client that lives below a prefix: it is put
// before every key that goes out, and cut from every key that comes in. Views
// nest and share everything else; closing one closes all.
func (c *Client) Namespace(prefix string) *Client {
	return &Client{core: c.core, prefix: c.prefix + prefix}
}

// Endpoints returns the endpoints in use.
func (c *Client) Endpoints() []string {
	var names []string
	for _, e := range c.pool.list() {
		names = append(names, e.name)
	}
	slices.Sort(names)
	return names
}

// SetEndpoints replaces the endpoints. Connections to those that stay go on.
func (c *Client) SetEndpoints(endpoints ...string) error {
	if len(endpoints) == 0 {
		return errors.New("client: no endpoints")
	}
	if err := c.pool.replace(endpoints, c.cfg); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	return nil
}

func errNoEndpoint(name string) error {
	return fmt.Errorf("%q is not one of the client's endpoints", name)
}
