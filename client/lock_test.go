package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/client"
)

func TestLease(t *testing.T) {
	c := open(t, client.Config{Endpoints: []string{startMember(t).addr}})
	ctx := testContext(t)
	l, err := c.GrantID(ctx, 77, 5*time.Second)
	if err != nil || l.ID != 77 || l.Granted != 5*time.Second {
		t.Fatal(l, err)
	}
	if _, err := c.Put(ctx, "k", nil, client.WithLease(77)); err != nil {
		t.Fatal(err)
	}
	if l, err := c.TimeToLive(ctx, 77, true); err != nil || len(l.Keys) != 1 || l.Keys[0] != "k" || l.Left > l.Granted {
		t.Fatal(l, err)
	}
	if ttl, err := c.Renew(ctx, 77); err != nil || ttl != 5*time.Second {
		t.Fatal(ttl, err)
	}
	if ids, err := c.Leases(ctx); err != nil || len(ids) != 1 || ids[0] != 77 {
		t.Fatal(ids, err)
	}
	if err := c.Revoke(ctx, 77); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, "k"); !errors.Is(err, client.ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := c.Renew(ctx, 77); !errors.Is(err, client.ErrLeaseLost) {
		t.Fatal(err)
	}
	if _, err := c.TimeToLive(ctx, 77, false); !errors.Is(err, api.ErrLeaseNotFound) {
		t.Fatal(err)
	}
}

// TestSession: a session lives on through cut connections, and ends when the
// lease is taken away, when nobody is reached for its time, and with the client.
// When exactly it ends is TestLeaseIsLostOnTime's.
func TestSession(t *testing.T) {
	m := startMember(t)
	p := newProxy(t, m.addr)
	c := open(t, client.Config{Endpoints: []string{p.addr()}})
	direct := open(t, client.Config{Endpoints: []string{m.addr}})
	ctx := testContext(t)
	session := func(ttl time.Duration) *client.Session {
		s, err := c.NewSession(ctx, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ended := func(s *client.Session, why error) {
		t.Helper()
		select {
		case <-s.Context().Done():
			if cause := context.Cause(s.Context()); !errors.Is(cause, why) {
				t.Errorf("ended by %v, want %v", cause, why)
			}
		case <-ctx.Done():
			t.Fatal("the session goes on")
		}
	}
	left := func(s *client.Session) time.Duration {
		l, err := direct.TimeToLive(ctx, s.Lease(), false)
		if err != nil {
			t.Fatal(err)
		}
		return l.Left
	}
	s := session(12 * time.Second)
	for range 2 {
		waitFor(t, "time to pass", func() bool { return left(s) < 11*time.Second })
		p.cut()
		waitFor(t, "a renewal on another connection", func() bool { return left(s) >= 11*time.Second })
	}
	if s.Context().Err() != nil {
		t.Fatal(context.Cause(s.Context()))
	}
	if err := direct.Revoke(ctx, s.Lease()); err != nil {
		t.Fatal(err)
	}
	ended(s, client.ErrLeaseLost)

	s = session(time.Minute)
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	ended(s, client.ErrClosed)
	if _, err := direct.Renew(ctx, s.Lease()); !errors.Is(err, client.ErrLeaseLost) {
		t.Fatal(err)
	}

	s = session(2 * time.Second)
	p.down()
	ended(s, client.ErrLeaseLost)
	p.up()
	s = session(time.Minute)
	c.Close()
	ended(s, client.ErrClosed)
	if _, err := s.Lock(ctx, "l"); !errors.Is(err, client.ErrClosed) {
		t.Error(err)
	}
}

// TestAdoptSession: a lease that exists becomes a session's.
func TestAdoptSession(t *testing.T) {
	c := open(t, client.Config{Endpoints: []string{startMember(t).addr}})
	ctx := testContext(t)
	l, err := c.Grant(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.AdoptSession(ctx, l.ID)
	if err != nil || s.Lease() != l.ID || s.Context().Err() != nil {
		t.Fatal(s, err)
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AdoptSession(ctx, l.ID); !errors.Is(err, client.ErrLeaseLost) {
		t.Fatal(err)
	}
}

// TestLock: of many who want a lock one has it at a time, with growing tokens,
// although connections break.
func TestLock(t *testing.T) {
	m := startMember(t)
	p := newProxy(t, m.addr)
	ctx := testContext(t)
	var held atomic.Int32
	var highest atomic.Int64
	var wait sync.WaitGroup
	var sessions [5]*client.Session
	for i := range sessions {
		var err error
		if sessions[i], err = open(t, client.Config{Endpoints: []string{p.addr()}}).NewSession(ctx, 20*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range sessions {
		wait.Go(func() {
			for i := range 5 {
				l, err := s.Lock(ctx, "/locks/a")
				if err != nil {
					t.Error(err)
					return
				}
				if held.Add(1) != 1 {
					t.Error("two hold the lock")
				}
				if old := highest.Swap(int64(l.Token)); old >= int64(l.Token) {
					t.Errorf("token %d after %d", l.Token, old)
				}
				if i == 2 {
					p.cut()
				}
				held.Add(-1)
				if err := l.Unlock(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
}

func TestLockIsFenced(t *testing.T) {
	m := startMember(t)
	a, b := open(t, client.Config{Endpoints: []string{m.addr}}), open(t, client.Config{Endpoints: []string{m.addr}})
	ctx := testContext(t)
	first, err := a.NewSession(ctx, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.NewSession(ctx, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	l, err := first.TryLock(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.TryLock(ctx, "a"); !errors.Is(err, client.ErrLocked) {
		t.Fatal(err)
	}
	if _, err := first.Lock(ctx, "a"); !errors.Is(err, client.ErrLocked) {
		t.Fatal("the session holds it already", err)
	}
	brief, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := second.Lock(brief, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if n, err := a.Count(ctx, client.Prefix("a/")); err != nil || n != 1 {
		t.Fatalf("%d in the queue, %v", n, err)
	}
	if err := b.Revoke(ctx, first.Lease()); err != nil { // the holder's lease ends
		t.Fatal(err)
	}
	next, err := second.Lock(ctx, "a")
	if err != nil || next.Token <= l.Token {
		t.Fatal(next, err)
	}
	if r, err := a.Txn().If(l.Held()).Then(client.OpPut("x", nil)).Commit(ctx); err != nil || r.Succeeded {
		t.Fatal("a lost lock must not write", r, err)
	}
	if r, err := b.Txn().If(next.Held()).Then(client.OpPut("x", nil)).Commit(ctx); err != nil || !r.Succeeded {
		t.Fatal(r, err)
	}
	if err := next.Unlock(ctx); err != nil || next.Context().Err() == nil {
		t.Fatal(err)
	}
}

func TestElection(t *testing.T) {
	m := startMember(t)
	ctx := testContext(t)
	var sessions []*client.Session
	c := open(t, client.Config{Endpoints: []string{m.addr}})
	for range 2 {
		s, err := c.NewSession(ctx, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, s)
	}
	if _, err := c.Leader(ctx, "/e"); !errors.Is(err, client.ErrNotFound) {
		t.Fatal(err)
	}
	told := make(chan string, 10)
	watching, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() {
		for kv, err := range c.Leaders(watching, "/e") {
			if err != nil {
				return
			}
			told <- fmt.Sprint(kv.Exists(), " ", string(kv.Value))
		}
	})
	hear := func(want string) {
		t.Helper()
		if got := <-told; got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	hear("false ")
	one, err := sessions[0].Campaign(ctx, "/e", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	hear("true one")
	won := make(chan *client.Leadership)
	wait.Go(func() {
		two, err := sessions[1].Campaign(ctx, "/e", []byte("two"))
		if err != nil {
			t.Error(err)
		}
		won <- two
	})
	if err := one.Proclaim(ctx, []byte("still one")); err != nil {
		t.Fatal(err)
	}
	hear("true still one")
	if kv, err := c.Leader(ctx, "/e"); err != nil || string(kv.Value) != "still one" || kv.Created != one.Token {
		t.Fatal(kv, err)
	}
	if err := one.Resign(ctx); err != nil {
		t.Fatal(err)
	}
	two := <-won
	if err := one.Proclaim(ctx, nil); !errors.Is(err, client.ErrLeaseLost) {
		t.Error(err)
	}
	if two.Token <= one.Token {
		t.Error("tokens must grow")
	}
	stop()
	wait.Wait()
}
