package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
)

// tokens keeps the token that says who the client is.
type tokens struct {
	fetch func(context.Context) (string, error)
	turn  chan struct{} // held while fetching, so that one caller fetches for all

	mu struct {
		sync.Mutex
		token string
		valid bool
	}
}

func newTokens(fetch func(context.Context) (string, error)) *tokens {
	return &tokens{fetch: fetch, turn: make(chan struct{}, 1)}
}

func (t *tokens) have() (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.token, t.mu.valid
}

// get returns the token, and fetches one if there is none.
func (t *tokens) get(ctx context.Context) (string, error) {
	if token, ok := t.have(); ok {
		return token, nil
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if token, ok := t.have(); ok {
		return token, nil
	}
	token, err := t.fetch(ctx)
	if err != nil {
		return "", fmt.Errorf("cannot log in: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.token, t.mu.valid = token, true
	return token, nil
}

// drop forgets the token, unless there is another one by now.
func (t *tokens) drop(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.token == token {
		t.mu.valid = false
	}
}

// token returns the token to send, or nothing where nobody logs in.
func (c *core) token(ctx context.Context) (string, error) {
	if c.tokens == nil {
		return "", nil
	}
	return c.tokens.get(ctx)
}

// login exchanges name and password for a token.
func (c *core) login(ctx context.Context) (string, error) {
	in := &pb.AuthenticateRequest{Name: c.cfg.Username, Password: c.cfg.Password}
	out := &pb.AuthenticateResponse{}
	err := c.send(ctx, pb.Auth_Authenticate_FullMethodName, in, out)
	if errors.Is(err, api.ErrAuthNotEnabled) {
		return "", nil
	}
	return out.Token, err
}
