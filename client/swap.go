package client

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"
)

// Create sets a key that must not exist yet. If it does, the error is a
// *ConflictError, which is ErrConflict, and holds it.
func (c *Client) Create(ctx context.Context, key string, value []byte, opts ...WriteOption) (Revision, error) {
	return c.swap(ctx, KV{Key: key}, OpPut(key, value, opts...))
}

// Replace sets a key that must be as it was when old was read; otherwise the
// error is a *ConflictError with what it is now. The key keeps its lease unless
// an option gives it another one.
func (c *Client) Replace(ctx context.Context, old KV, value []byte, opts ...WriteOption) (Revision, error) {
	return c.swap(ctx, old, OpPut(old.Key, value, slices.Concat([]WriteOption{WithLease(old.Lease)}, opts)...))
}

// Remove deletes a key that must be as it was when old was read; otherwise the
// error is a *ConflictError with what it is now.
func (c *Client) Remove(ctx context.Context, old KV) (Revision, error) {
	return c.swap(ctx, old, OpDelete(Key(old.Key)))
}

// swap does op if nobody has changed the key since it was read.
func (c *Client) swap(ctx context.Context, old KV, op Op) (Revision, error) {
	r, err := c.Txn().If(old.Unchanged()).Then(op).Else(OpGet(Key(old.Key))).Commit(ctx)
	if err != nil || r.Succeeded {
		return r.Revision, err
	}
	conflict := &ConflictError{Key: old.Key}
	if len(r.Results) > 0 && len(r.Results[0].KVs) > 0 {
		conflict.Current = &r.Results[0].KVs[0]
	}
	return 0, conflict
}

// Update reads a key, lets change compute its next value, and writes that,
// unless somebody else was faster: then it begins again with the newer state.
// A key that does not exist comes as a KV without a version. An error of change
// ends Update; a value that equals the present one is not written.
//
// Update returns what the key is now. An ErrUnknownOutcome ends it as well:
// change may have taken effect then, and doing it again could do it twice.
func (c *Client) Update(ctx context.Context, key string, change func(now KV) ([]byte, error), opts ...WriteOption) (KV, error) {
	now, err := c.Get(ctx, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return KV{}, err
	}
	for round := 0; ; round++ {
		value, err := change(now)
		if err != nil {
			return now, err
		}
		next := now.after(value, opts)
		if now.Exists() && next.Lease == now.Lease && bytes.Equal(value, now.Value) {
			return now, nil
		}
		next.Modified, err = c.Replace(ctx, now, value, opts...)
		var conflict *ConflictError
		switch {
		case err == nil:
			if !now.Exists() {
				next.Created = next.Modified
			}
			return next, nil
		case !errors.As(err, &conflict):
			return now, err
		}
		if now = (KV{Key: key}); conflict.Current != nil {
			now = *conflict.Current
		}
		if err := c.yield(ctx, round); err != nil {
			return now, err
		}
	}
}

// after is the key with another value, but for the revision of the change.
func (kv KV) after(value []byte, opts []WriteOption) KV {
	w := write{lease: kv.Lease}
	for _, o := range opts {
		o(&w)
	}
	kv.Value, kv.Lease, kv.Version = value, w.lease, kv.Version+1
	return kv
}

// yield waits a little, after the second conflict in a row, so that those who
// want the same keys do not disturb each other for ever.
func (c *core) yield(ctx context.Context, round int) error {
	if round < 1 {
		return ctx.Err()
	}
	return c.sleep(ctx, pause(min(round-1, 3)))
}

// sleep waits, but not beyond the context's end or Close.
func (c *core) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ctx.Done():
		return ErrClosed
	}
}
