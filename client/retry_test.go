package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/client"
)

// TestFailover: calls go on while any endpoint answers, and say so.
func TestFailover(t *testing.T) { bothWays(t, testFailover) }

func testFailover(t *testing.T, open func(client.Config) *client.Client) {
	m := startMember(t)
	a, b := newProxy(t, m.addr), newProxy(t, m.addr)
	seen := &recorder{}
	c := open(client.Config{Endpoints: []string{a.addr(), b.addr(), freeAddr()}, Observer: seen})
	ctx := testContext(t)
	for i := range 20 {
		broken := []*proxy{a, b}[i%2]
		broken.down()
		if _, err := c.Put(ctx, "k", nil); err != nil && !errors.Is(err, client.ErrUnknownOutcome) {
			t.Fatal(err)
		}
		if _, err := c.List(ctx, client.All()); err != nil {
			t.Fatal(err)
		}
		broken.up()
	}
	if seen.count(client.NoticeFailover) == 0 {
		t.Error("no failover was reported")
	}
	a.down()
	b.down()
	brief, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := c.Put(brief, "k", nil)
	waitFor(t, "connections to be gone", func() bool {
		brief, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		_, err = c.Put(brief, "k", nil)
		return !errors.Is(err, client.ErrUnknownOutcome)
	})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "last attempt") {
		t.Fatalf("nobody there: %v", err)
	}
}

// TestHomeMoves: an endpoint that breaks is left once, not with each call.
func TestHomeMoves(t *testing.T) {
	m := startMember(t)
	a, b := newProxy(t, m.addr), newProxy(t, m.addr)
	seen := &recorder{}
	c := open(t, client.Config{Endpoints: []string{a.addr(), b.addr()}, Observer: seen})
	for _, p := range []*proxy{a, b} { // one of them is home
		p.down()
		for range 10 {
			if _, err := c.Get(testContext(t), "k"); err != nil && !errors.Is(err, client.ErrNotFound) {
				t.Fatal(err)
			}
		}
		p.up()
	}
	if n := seen.count(client.NoticeFailover); n < 1 || n > 2 {
		t.Errorf("%d failovers, when each endpoint broke once", n)
	}
}

// TestFrozenEndpoint: one endpoint that accepts and never answers costs a read
// half its time, and the next reads nothing.
func TestFrozenEndpoint(t *testing.T) { bothWays(t, testFrozenEndpoint) }

func testFrozenEndpoint(t *testing.T, open func(client.Config) *client.Client) {
	m := startMember(t)
	a, b := newProxy(t, m.addr), newProxy(t, m.addr)
	c := open(client.Config{Endpoints: []string{a.addr(), b.addr()}})
	ctx := testContext(t)
	for _, p := range []*proxy{a, b} {
		if _, err := c.Put(ctx, "k", nil); err != nil {
			t.Fatal(err)
		}
		p.freeze()
		for range 3 {
			call, cancel := context.WithTimeout(ctx, 2*time.Second)
			if _, err := c.Get(call, "k"); err != nil {
				t.Fatal(err)
			}
			cancel()
		}
		p.thaw()
	}
}

// TestDeadline: a call whose context has no deadline ends after Config.Timeout, and
// only a write that was sent is of unknown outcome.
func TestDeadline(t *testing.T) {
	p := newProxy(t, startMember(t).addr)
	c := open(t, client.Config{Endpoints: []string{p.addr()}, Timeout: 500 * time.Millisecond})
	waitFor(t, "a connection", func() bool { _, err := c.Put(context.Background(), "k", nil); return err == nil })
	p.freeze()
	if _, err := c.Get(context.Background(), "k"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("a read: %v", err)
	}
	if _, err := c.Put(context.Background(), "k", nil); !errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("a write: %v", err)
	}
}

// spanned is an Observer that gives each call's context a mark, as tracers do.
type spanned struct{ recorder }

type spanKey struct{}

func (o *spanned) Call(ctx context.Context, op string) (context.Context, func(client.Outcome)) {
	return o.recorder.Call(context.WithValue(ctx, spanKey{}, op), op)
}

// TestSpans: what an observer puts into a call's context is there when gRPC sends
// the request, so spans of requests have the call's as their parent.
func TestSpans(t *testing.T) {
	var seen sync.Map // methods, to what the context had
	catch := func(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		seen.Store(method, ctx.Value(spanKey{}))
		return invoke(ctx, method, in, out, cc, opts...)
	}
	o := &spanned{}
	c := open(t, client.Config{Endpoints: []string{startMember(t).addr}, Observer: o, DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(catch)}})
	if _, err := c.Put(testContext(t), "k", nil); err != nil {
		t.Fatal(err)
	}
	const put = "/etcdserverpb.KV/Put"
	if got, _ := seen.Load(put); got != put {
		t.Errorf("the request's context has %v", got)
	}
	if o.mu.calls[put] != 1 || o.attempts() < 1 {
		t.Errorf("the observer heard of %v", o.mu.calls)
	}
}

// TestNoWriteTwice cuts connections after the member has answered and before the
// client hears of it. No write may be applied twice, and every error must be
// right about what it says: without ErrUnknownOutcome, nothing was written.
func TestNoWriteTwice(t *testing.T) { bothWays(t, testNoWriteTwice) }

func testNoWriteTwice(t *testing.T, open func(client.Config) *client.Client) {
	m := startMember(t)
	a, b := newProxy(t, m.addr), newProxy(t, m.addr)
	var lost, pieces atomic.Int64
	lose := func([]byte) bool {
		if pieces.Add(1)%7 != 0 {
			return true
		}
		lost.Add(1)
		return false
	}
	c := open(client.Config{Endpoints: []string{a.addr(), b.addr()}})
	direct := open(client.Config{Endpoints: []string{m.addr}})
	ctx := testContext(t)
	if _, err := c.Put(ctx, "warm", nil); err != nil {
		t.Fatal(err)
	}
	a.answers.Store(&lose)
	b.answers.Store(&lose)

	const writers, writes = 8, 60
	var acked, unknown [writers]int
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			for i := range writes {
				_, err := c.Put(ctx, fmt.Sprintf("/w/%d/%d", w, i), bytes.Repeat([]byte{'x'}, 100))
				switch {
				case err == nil:
					acked[w]++
				case errors.Is(err, client.ErrUnknownOutcome):
					unknown[w]++
				default:
					t.Errorf("writer %d: %v", w, err)
				}
			}
		})
	}
	wait.Wait()
	p, err := direct.List(ctx, client.Prefix("/w/"))
	if err != nil {
		t.Fatal(err)
	}
	total, unsure := 0, 0
	for w := range writers {
		total, unsure = total+acked[w], unsure+unknown[w]
	}
	for _, kv := range p.KVs {
		if kv.Version != 1 {
			t.Errorf("%s was written %d times", kv.Key, kv.Version)
		}
	}
	t.Logf("%d acknowledged, %d unknown, %d written; %d answers lost", total, unsure, len(p.KVs), lost.Load())
	if len(p.KVs) < total || len(p.KVs) > total+unsure {
		t.Errorf("%d keys for %d acknowledged and %d unknown writes", len(p.KVs), total, unsure)
	}
	if unsure == 0 || lost.Load() == 0 {
		t.Error("nothing was lost: the test shows nothing")
	}
}

// TestNothingLeft: Close ends what the client started.
func TestNothingLeft(t *testing.T) {
	m := startMember(t)
	before := ourGoroutines()
	for range 3 {
		c, err := client.New(client.Config{Endpoints: []string{m.addr, freeAddr()}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(testContext(t), "k", nil); err != nil {
			t.Fatal(err)
		}
		s, err := c.NewSession(testContext(t), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		cache := client.NewCache[struct{}](c, client.All(), nil)
		var wait sync.WaitGroup
		wait.Go(func() {
			if err := cache.Run(testContext(t)); !errors.Is(err, client.ErrClosed) {
				t.Errorf("the cache ended with %v", err)
			}
		})
		if err := cache.Fresh(testContext(t)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		wait.Wait()
		<-s.Context().Done()
		if _, err := c.Get(testContext(t), "k"); !errors.Is(err, client.ErrClosed) {
			t.Fatalf("get after Close: %v", err)
		}
	}
	waitFor(t, "goroutines to end", func() bool { return ourGoroutines() <= before })
}

// ourGoroutines counts the goroutines that run in the client or in a connection
// of its.
func ourGoroutines() int {
	buf := make([]byte, 8<<20)
	n := 0
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "keelson/client.(*") || strings.Contains(stack, "http2Client") || strings.Contains(stack, "grpcsync") {
			n++
		}
	}
	return n
}

// recorder is an Observer that counts.
type recorder struct {
	mu struct {
		sync.Mutex
		events map[client.NoticeKind]int
		calls  map[string]int
		open   int
		tries  int // attempts at all calls that have ended
	}
}

func (r *recorder) Call(ctx context.Context, op string) (context.Context, func(client.Outcome)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.calls == nil {
		r.mu.calls = map[string]int{}
	}
	r.mu.calls[op]++
	r.mu.open++
	return ctx, func(o client.Outcome) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.mu.open--
		r.mu.tries += o.Attempts
	}
}

func (r *recorder) attempts() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.tries
}

func (r *recorder) Notice(e client.Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.events == nil {
		r.mu.events = map[client.NoticeKind]int{}
	}
	r.mu.events[e.Kind]++
}

func (r *recorder) count(kind client.NoticeKind) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.events[kind]
}
