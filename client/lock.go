package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Lock is a lock that its session holds.
//
// A process can be stopped for longer than its lease lives and go on without
// noticing. So a lock protects the outside world only together with its Token:
// pass it along, and let whoever is written to refuse a token lower than one
// that it has seen. Writes to the store itself are protected by Held.
type Lock struct {
	// Key marks the holder's place in the queue.
	Key string
	// Token is the fencing token: it grows with each holder of the lock.
	Token Revision

	s      *Session
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// Lock waits for the lock with this name and takes it. Names are key prefixes;
// etcd's clients that use the same name wait in the same queue. A session holds
// a lock once: asking for it again is ErrLocked.
func (s *Session) Lock(ctx context.Context, name string) (*Lock, error) {
	return s.lock(ctx, name, nil, true)
}

// TryLock takes the lock if it is free; otherwise the error is ErrLocked.
func (s *Session) TryLock(ctx context.Context, name string) (*Lock, error) {
	return s.lock(ctx, name, nil, false)
}

// Context ends when the lock is given back or its session ends.
func (l *Lock) Context() context.Context { return l.ctx }

// Held is the condition that the lock is still held, for a transaction: what it
// protects is then not written by somebody who lost the lock.
func (l *Lock) Held() Condition { return Key(l.Key).CreatedAt(Equal, l.Token) }

// Unlock gives the lock back. Doing it twice does no harm.
func (l *Lock) Unlock(ctx context.Context) error {
	l.cancel(ErrClosed)
	// A key is never created with the same revision again, so repeating it is safe.
	_, err := l.s.c.insist(ctx, l.s.c.Txn().If(l.Held()).Then(OpDelete(Key(l.Key))))
	if err == nil {
		l.s.release(l.Key)
	}
	return err
}

// insist commits a transaction that may be applied twice without harm.
func (c *Client) insist(ctx context.Context, txn *Txn) (TxnResult, error) {
	for round := 0; ; round++ {
		r, err := txn.Commit(ctx)
		if !errors.Is(err, ErrUnknownOutcome) || ctx.Err() != nil || c.ctx.Err() != nil {
			return r, err
		}
		if c.sleep(ctx, pause(round)) != nil {
			return r, err
		}
	}
}

// place is where a session stands in the queue for a name.
func (s *Session) place(name string) string { return fmt.Sprintf("%s/%x", name, int64(s.lease)) }

func (s *Session) lock(ctx context.Context, name string, value []byte, wait bool) (*Lock, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	// Waiting ends with the session too.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(s.err()) })()

	l := &Lock{Key: s.place(name), s: s}
	if !s.claim(l.Key) {
		return nil, ErrLocked
	}
	// Repeating this finds the key that the first attempt made: it is the lease's.
	r, err := s.c.insist(ctx, s.c.Txn().If(Key(l.Key).Missing()).
		Then(OpPut(l.Key, value, WithLease(s.lease))).
		Else(OpGet(Key(l.Key))))
	if err != nil {
		return nil, s.gaveUp(ctx, l, err)
	}
	if l.Token = r.Revision; !r.Succeeded {
		l.Token = r.Results[0].KVs[0].Created
	}
	for {
		before, err := s.before(ctx, l, name)
		switch {
		case err != nil:
			return nil, s.gaveUp(ctx, l, err)
		case before == nil:
			l.ctx, l.cancel = context.WithCancelCause(s.ctx)
			return l, s.err()
		case !wait:
			return nil, s.gaveUp(ctx, l, ErrLocked)
		}
		if err := s.c.gone(ctx, *before); err != nil {
			return nil, s.gaveUp(ctx, l, err)
		}
	}
}

// before returns who stands directly before l in the queue; nil: nobody does,
// and l is still in it.
func (s *Session) before(ctx context.Context, l *Lock, name string) (*KV, error) {
	r, err := s.c.Txn().If(l.Held()).
		Then(OpGet(Prefix(name+"/"), CreatedBetween(0, l.Token-1), Descending(ByCreated), Limit(1))).
		Commit(ctx)
	switch {
	case err != nil:
		return nil, err
	case !r.Succeeded:
		return nil, ErrLeaseLost
	case len(r.Results[0].KVs) > 0:
		return &r.Results[0].KVs[0], nil
	}
	return nil, nil
}

// gone waits until a key as it was read is deleted.
func (c *Client) gone(ctx context.Context, kv KV) error {
	for after := kv.Modified; ; {
		err := c.deleted(ctx, kv.Key, after)
		var compacted *CompactedError
		if !errors.As(err, &compacted) {
			return err
		}
		now, err := c.Get(ctx, kv.Key, ReadRevision(&after))
		if errors.Is(err, ErrNotFound) || err == nil && now.Created != kv.Created {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// deleted waits for the first deletion of a key after a revision.
func (c *Client) deleted(ctx context.Context, key string, after Revision) error {
	for ev, err := range c.Watch(ctx, Key(key), After(after), WithoutPuts()) {
		if err != nil || ev.Type == EventDelete {
			return err
		}
	}
	return nil
}

// leaveTimeout bounds the wish to leave a queue in good order: the lease cleans
// up what fails.
const leaveTimeout = 2 * time.Second

// gaveUp leaves the queue and returns why.
func (s *Session) gaveUp(ctx context.Context, l *Lock, err error) error {
	defer s.release(l.Key)
	if lost := s.err(); lost != nil {
		return lost // the key is gone with the lease
	}
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	_, _ = s.c.insist(leave, s.c.Txn().If(Key(l.Key).Lease(Equal, s.lease)).Then(OpDelete(Key(l.Key))))
	return err
}

// Leadership is an election that its session won: a lock with a value that all
// can read.
type Leadership struct{ *Lock }

// Campaign waits until the session leads the election with this name, and says
// value. It is Lock with a value; Resign, or Unlock, ends it.
func (s *Session) Campaign(ctx context.Context, election string, value []byte) (*Leadership, error) {
	l, err := s.lock(ctx, election, value, true)
	if err != nil {
		return nil, err
	}
	return &Leadership{l}, nil
}

// Proclaim says something else, unless the leadership was lost: then the error
// is ErrLeaseLost.
func (l *Leadership) Proclaim(ctx context.Context, value []byte) error {
	r, err := l.s.c.Txn().If(l.Held()).Then(OpPut(l.Key, value, WithLease(l.s.lease))).Commit(ctx)
	if err == nil && !r.Succeeded {
		return &Error{Op: pb.KV_Txn_FullMethodName, Err: ErrLeaseLost}
	}
	return err
}

// Resign lets the next one lead.
func (l *Leadership) Resign(ctx context.Context) error { return l.Unlock(ctx) }

// Leader returns what the leader of an election says: its key, its value and,
// as Created, its fencing token. Without a leader it is ErrNotFound.
func (c *Client) Leader(ctx context.Context, election string) (KV, error) {
	kv, _, err := c.leader(ctx, election)
	return kv, err
}

func (c *Client) leader(ctx context.Context, election string) (KV, Revision, error) {
	page, err := c.List(ctx, Prefix(election+"/"), Ascending(ByCreated), Limit(1))
	if err == nil && len(page.KVs) == 0 {
		return KV{}, page.Revision, &Error{Op: pb.KV_Range_FullMethodName, Err: fmt.Errorf("%w: nobody leads %q", ErrNotFound, election)}
	}
	if err != nil {
		return KV{}, 0, err
	}
	return page.KVs[0], page.Revision, nil
}

// Leaders tells who leads an election, and everything that the leader says, from
// now until ctx ends. Of changes in quick succession it may tell the last only.
// A KV that does not exist means that nobody leads.
func (c *Client) Leaders(ctx context.Context, election string) iter.Seq2[KV, error] {
	return func(yield func(KV, error) bool) {
		for told := (KV{Modified: -1}); ; {
			now, rev, err := c.leader(ctx, election)
			if err != nil && !errors.Is(err, ErrNotFound) {
				yield(KV{}, err)
				return
			}
			if now.Modified != told.Modified || now.Key != told.Key {
				if told = now; !yield(now, nil) {
					return
				}
			}
			for _, err := range c.Watch(ctx, Prefix(election+"/"), After(rev)) {
				if err != nil && !errors.Is(err, ErrCompacted) {
					yield(KV{}, err)
					return
				}
				break
			}
		}
	}
}
