package client

import "time"

// PipedAtOnce makes a client open pipes for the first call that could use one.
func PipedAtOnce(cfg Config) Config {
	cfg.pipeAt = 1
	return cfg
}

// Pipes is how many endpoints have a pipe.
func (c *Client) Pipes() (n int) {
	for _, e := range c.pool.list() {
		if e.piping.now.Load() != nil {
			n++
		}
	}
	return n
}

// PipedCalls is how many calls went through the pipes that are there, and how many
// of them have not ended.
func (c *Client) PipedCalls() (all, open int) {
	for _, e := range c.pool.list() {
		if p := e.piping.now.Load(); p != nil {
			p.mu.Lock()
			all, open = all+int(p.mu.last), open+len(p.mu.calls)
			p.mu.Unlock()
		}
	}
	return all, open
}

// PipesRefused reports whether an endpoint has said that it knows no pipes.
func (c *Client) PipesRefused() bool {
	for _, e := range c.pool.list() {
		if e.piping.notBefore.Load() > time.Now().UnixNano() {
			return true
		}
	}
	return false
}
