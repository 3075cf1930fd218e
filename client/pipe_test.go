package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/client"
)

// many runs f in n goroutines and waits for them.
func many(n int, f func(i int)) {
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { f(i) })
	}
	wait.Wait()
}

// TestPipeUnderLoad: callers one after the other need no pipe, many at once get
// one, and each call is answered with what it did.
func TestPipeUnderLoad(t *testing.T) {
	c := open(t, client.Config{Endpoints: []string{startMember(t).addr}})
	ctx := testContext(t)
	for i := range 20 {
		put(ctx, t, c, "alone", i)
	}
	if c.Pipes() != 0 {
		t.Error("one caller has got a pipe")
	}
	var round atomic.Int64
	var revisions sync.Map
	waitFor(t, "calls to go through a pipe", func() bool {
		n := round.Add(1)
		many(100, func(i int) {
			key := fmt.Sprintf("/%d/%d", n, i)
			rev, err := c.Put(ctx, key, []byte(key))
			if err != nil {
				t.Error(err)
				return
			}
			if other, twice := revisions.LoadOrStore(rev, key); twice {
				t.Errorf("%s and %s have revision %d", key, other, rev)
			}
			kv, err := c.Get(ctx, key)
			if err != nil || string(kv.Value) != key || kv.Modified != rev {
				t.Errorf("%s, put at %d: %v, %v", key, rev, kv, err)
			}
		})
		all, _ := c.PipedCalls()
		return all > 500
	})
	if all, open := c.PipedCalls(); open != 0 {
		t.Errorf("%d of %d calls have not ended", open, all)
	}
}

// TestPipeIsNotForAll: calls that a pipe cannot carry go by themselves: large
// ones, and ones with metadata.
func TestPipeIsNotForAll(t *testing.T) {
	c := open(t, client.PipedAtOnce(client.Config{Endpoints: []string{startMember(t).addr}}))
	ctx := testContext(t)
	onePipe(ctx, t, c)
	before, _ := c.PipedCalls()
	if _, err := c.Put(ctx, "large", make([]byte, 1<<20)); err != nil {
		t.Error(err)
	}
	if _, err := c.Put(metadata.AppendToOutgoingContext(ctx, "x", "y"), "k", nil); err != nil {
		t.Error(err)
	}
	if _, err := c.List(ctx, client.All()); err != nil {
		t.Error(err)
	}
	if after, _ := c.PipedCalls(); after != before {
		t.Errorf("%d calls went through the pipe", after-before)
	}
}

// oldServer is a member from before pipelines, and like etcd in that.
type oldServer struct {
	pb.UnimplementedKVServer
	puts atomic.Int64
}

func (s *oldServer) Put(context.Context, *pb.PutRequest) (*pb.PutResponse, error) {
	return &pb.PutResponse{Header: &pb.ResponseHeader{Revision: s.puts.Add(1)}}, nil
}

func TestPipeFallsBack(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &oldServer{}
	g := grpc.NewServer()
	pb.RegisterKVServer(g, s)
	done := make(chan error)
	go func() { done <- g.Serve(l) }()
	defer func() {
		g.Stop()
		<-done
	}()
	c := open(t, client.PipedAtOnce(client.Config{Endpoints: []string{l.Addr().String()}}))
	ctx := testContext(t)
	many(50, func(int) {
		for range 5 {
			if _, err := c.Put(ctx, "k", nil); err != nil {
				t.Error(err)
			}
		}
	})
	waitFor(t, "the refusal", c.PipesRefused)
	if n := s.puts.Load(); n != 250 || c.Pipes() != 0 {
		t.Errorf("%d puts for 250, %d pipes", n, c.Pipes())
	}
}

// TestPipeCut cuts pipes again and again under many callers. No write is done
// twice, every error is right about what it says, and who was told of a write
// reads it.
func TestPipeCut(t *testing.T) {
	m := startMember(t)
	proxies := []*proxy{newProxy(t, m.addr), newProxy(t, m.addr)}
	c := open(t, client.PipedAtOnce(client.Config{Endpoints: []string{proxies[0].addr(), proxies[1].addr()}, Timeout: time.Minute}))
	direct := open(t, client.Config{Endpoints: []string{m.addr}, NoPipeline: true})
	ctx := testContext(t)
	const callers, writes = 40, 25
	var written, unknown sync.Map
	var acked, lost, cuts atomic.Int64
	stop := make(chan struct{})
	var cutter sync.WaitGroup
	cutter.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if c.Pipes() > 0 && cuts.Load() < 100 {
				proxies[cuts.Add(1)%2].cut()
			}
		}
	})
	many(callers, func(w int) {
		for i := 0; (i < writes || cuts.Load() == 0) && ctx.Err() == nil; i++ {
			key := fmt.Sprintf("/w/%d/%d", w, i)
			switch _, err := c.Put(ctx, key, []byte(key)); {
			case err == nil:
				acked.Add(1)
				written.Store(key, true)
				if kv, err := c.Get(ctx, key); err != nil || string(kv.Value) != key {
					t.Errorf("%s was acknowledged: %v, %v", key, kv, err)
				}
			case errors.Is(err, client.ErrUnknownOutcome):
				lost.Add(1)
				unknown.Store(key, true)
			default:
				t.Errorf("%s: %v", key, err)
			}
		}
	})
	close(stop)
	cutter.Wait()
	page, err := direct.List(ctx, client.Prefix("/w/"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, kv := range page.KVs {
		found[kv.Key] = true
		_, was := written.Load(kv.Key)
		_, may := unknown.Load(kv.Key)
		if kv.Version != 1 || !was && !may {
			t.Errorf("%s has version %d; acknowledged: %v, unknown: %v", kv.Key, kv.Version, was, may)
		}
	}
	written.Range(func(key, _ any) bool {
		if !found[key.(string)] {
			t.Errorf("%s was acknowledged and is not there", key)
		}
		return true
	})
	t.Logf("%d acknowledged, %d unknown, %d cuts", acked.Load(), lost.Load(), cuts.Load())
	if cuts.Load() == 0 {
		t.Error("nothing was cut: the test shows nothing")
	}
}

// onePipe waits until c's calls go through a pipe.
func onePipe(ctx context.Context, t *testing.T, c *client.Client) {
	t.Helper()
	waitFor(t, "a pipe", func() bool {
		put(ctx, t, c, "k", 1)
		return c.Pipes() > 0
	})
}

// TestPipeCallsEndByThemselves: on one pipe, calls whose context ends leave at
// once with its error, and the others do not notice. A frozen connection changes
// neither.
func TestPipeCallsEndByThemselves(t *testing.T) {
	m := startMember(t)
	p := newProxy(t, m.addr)
	c := open(t, client.PipedAtOnce(client.Config{Endpoints: []string{p.addr()}, Timeout: time.Minute}))
	ctx := testContext(t)
	onePipe(ctx, t, c)
	many(60, func(i int) {
		rng := rand.New(rand.NewPCG(uint64(i), 7))
		for j := range 30 {
			key := fmt.Sprintf("/%d/%d", i, j)
			if i%2 == 0 {
				if _, err := c.Put(ctx, key, nil); err != nil {
					t.Error(err)
				}
				continue
			}
			call, cancel := context.WithTimeout(ctx, time.Duration(rng.IntN(2000))*time.Microsecond)
			_, err := c.Put(call, key, nil)
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			cancel()
		}
	})
	waitFor(t, "all calls to end", func() bool {
		_, open := c.PipedCalls()
		return open == 0
	})
	before, _ := c.PipedCalls()
	p.freeze()
	call, cancel := context.WithCancel(ctx)
	errs := make(chan error, 50)
	for range cap(errs) {
		go func() {
			_, err := c.Put(call, "frozen", nil)
			errs <- err
		}()
	}
	waitFor(t, "the calls", func() bool {
		all, open := c.PipedCalls()
		return all-before == cap(errs) && open == cap(errs)
	})
	cancel()
	for range cap(errs) {
		if err := <-errs; !errors.Is(err, context.Canceled) || !errors.Is(err, client.ErrUnknownOutcome) {
			t.Error(err)
		}
	}
	p.thaw()
	put(ctx, t, c, "k", 2)
}

// TestPipeKeepsTime: a call whose context says nothing of time ends by the
// client's own limit.
func TestPipeKeepsTime(t *testing.T) {
	m := startMember(t)
	p := newProxy(t, m.addr)
	c := open(t, client.PipedAtOnce(client.Config{Endpoints: []string{p.addr()}, Timeout: 2 * time.Second}))
	waitFor(t, "a pipe", func() bool {
		_, _ = c.Put(context.Background(), "k", nil)
		return c.Pipes() > 0
	})
	p.freeze()
	_, err := c.Put(context.Background(), "k", nil)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, client.ErrUnknownOutcome) {
		t.Error(err)
	}
	p.thaw()
}

// TestPipeIsClosed: Close ends the calls of a pipe.
func TestPipeIsClosed(t *testing.T) {
	m := startMember(t)
	p := newProxy(t, m.addr)
	c := open(t, client.PipedAtOnce(client.Config{Endpoints: []string{p.addr()}, Timeout: time.Minute}))
	ctx := testContext(t)
	onePipe(ctx, t, c)
	p.freeze()
	before, _ := c.PipedCalls()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Put(ctx, "k", nil)
		ended <- err
	}()
	waitFor(t, "the call", func() bool {
		all, _ := c.PipedCalls()
		return all > before
	})
	c.Close()
	if err := <-ended; !errors.Is(err, client.ErrClosed) {
		t.Error(err)
	}
	p.thaw()
}

// BenchmarkPut is a put of one of many callers, through the client, the pipe and a
// member without a disk to wait for, all in this process.
func BenchmarkPut(b *testing.B) {
	for _, unary := range []bool{true, false} {
		b.Run(fmt.Sprintf("unary=%v", unary), func(b *testing.B) {
			c := open(b, client.Config{Endpoints: []string{startMember(b).addr}, NoPipeline: unary})
			value := make([]byte, 256)
			ctx := context.Background()
			b.ReportAllocs()
			b.SetParallelism(500)
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := c.Put(ctx, fmt.Sprintf("/k/%04d", i%1000), value); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
