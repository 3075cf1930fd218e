package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/client"
	"github.com/keelson-io/keelson/compat/cluster"
)

// systems are the stores to run against: both, unless STORE names one.
func systems() []string {
	if s := os.Getenv("STORE"); s != "" {
		return []string{s}
	}
	return []string{"etcd", "kvd"}
}

// each runs a test against every store, with a cluster of three.
func each(t *testing.T, run func(ctx context.Context, t *testing.T, c *cluster.Cluster)) {
	for _, name := range systems() {
		t.Run(name, func(t *testing.T) {
			sys, err := cluster.Lookup(name)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			c, err := cluster.Start(ctx, sys, cluster.Options{Members: 3, Dir: t.TempDir(), NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			run(ctx, t, c)
		})
	}
}

func open(t *testing.T, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// lastPut remembers where the last Put was answered.
type lastPut struct{ endpoint atomic.Value }

func (l *lastPut) Notice(client.Notice) {}

func (l *lastPut) Call(ctx context.Context, op string) (context.Context, func(client.Outcome)) {
	return ctx, func(out client.Outcome) {
		if strings.HasSuffix(op, "/Put") {
			l.endpoint.Store(out.Endpoint)
		}
	}
}

// TestLeaderAware: writes go to the leader, and soon after it changed to the
// next one.
func TestLeaderAware(t *testing.T) {
	each(t, func(ctx context.Context, t *testing.T, cl *cluster.Cluster) {
		last := &lastPut{}
		c := open(t, client.Config{Endpoints: cl.Endpoints(), Observer: last})
		for range 3 {
			leader, err := cl.Leader(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for last.endpoint.Load() != leader.Endpoint {
				if _, err := c.Put(ctx, "k", nil); err != nil {
					t.Fatal(err)
				}
			}
			s, err := leader.Status(ctx)
			if err != nil {
				t.Fatal(err)
			}
			members, err := c.Cluster().Members(ctx)
			if err != nil {
				t.Fatal(err)
			}
			next := slices.IndexFunc(members, func(m *pb.Member) bool { return m.ID != s.Leader })
			if err := c.Maintenance().MoveLeader(ctx, leader.Endpoint, members[next].ID); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestRequests: the requests whose answers the client interprets.
func TestRequests(t *testing.T) {
	each(t, func(ctx context.Context, t *testing.T, cl *cluster.Cluster) {
		c := open(t, client.Config{Endpoints: cl.Endpoints()}).Namespace("/ns/")
		for i := 0; i < 2000; i += 100 {
			txn := c.Txn()
			for j := range 100 {
				txn.Then(client.OpPut(fmt.Sprintf("k%06d", i+j), bytes.Repeat([]byte{'v'}, 1000)))
			}
			if _, err := txn.Commit(ctx); err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		for kv, err := range c.Scan(ctx, client.Prefix("k")) {
			if err != nil {
				t.Fatal(err)
			}
			if kv.Key != fmt.Sprintf("k%06d", n) {
				t.Fatalf("%q at %d", kv.Key, n)
			}
			n++
		}
		if n != 2000 {
			t.Errorf("scanned %d keys", n)
		}
		rev, err := c.Put(ctx, "k000000", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Compact(ctx, rev, true); err != nil {
			t.Fatal(err)
		}
		// A member that has not heard of the compaction yet still tells history.
		for told := false; !told; {
			for _, err := range c.Watch(ctx, client.All(), client.After(1)) {
				var compacted *client.CompactedError
				if told = errors.As(err, &compacted); told && compacted.Revision != rev || !told && err != nil {
					t.Fatalf("watch of compacted history: %v", err)
				}
				break
			}
		}
		var b bytes.Buffer
		if _, err := c.Maintenance().Snapshot(ctx, "", &b); err != nil {
			t.Error(err)
		}
		s, err := c.NewSession(ctx, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.Lock(ctx, "lock")
		if err != nil {
			t.Fatal(err)
		}
		if r, err := c.Txn().If(l.Held()).Then(client.OpGet(client.Key("k000001"))).Commit(ctx); err != nil || !r.Succeeded || len(r.Results[0].KVs) != 1 {
			t.Error(r, err)
		}
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

// kills is how often the leader is killed.
const kills = 4

// TestLeaderKill: while leaders are killed, a watch tells every revision once, a
// cache follows, a session lives, and no write is lost or applied twice.
func TestLeaderKill(t *testing.T) {
	each(t, func(ctx context.Context, t *testing.T, cl *cluster.Cluster) {
		c := open(t, client.Config{Endpoints: cl.Endpoints(), Timeout: 20 * time.Second})
		var start client.Revision
		if _, err := c.List(ctx, client.All(), client.ReadRevision(&start)); err != nil {
			t.Fatal(err)
		}
		session, err := c.NewSession(ctx, 15*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		cache := client.NewCache[struct{}](c, client.Prefix("/w/"), nil)
		watching, stop := context.WithCancel(ctx)
		var wait sync.WaitGroup
		wait.Go(func() {
			if err := cache.Run(watching); !errors.Is(err, context.Canceled) {
				t.Errorf("cache: %v", err)
			}
		})
		var told atomic.Int64
		wait.Go(func() { told.Store(int64(follow(watching, t, c, start))) })
		w := writers{c: c}
		w.run(ctx, t)
		for range kills {
			victim, err := cl.Leader(ctx)
			if err != nil {
				t.Fatal(err)
			}
			victim.Kill()
			w.await(ctx, t, 30) // acknowledged writes without it
			if err := victim.Start(); err != nil {
				t.Fatal(err)
			}
			if err := cl.Ready(ctx); err != nil {
				t.Fatal(err)
			}
		}
		w.end()
		if session.Context().Err() != nil {
			t.Errorf("session: %v", context.Cause(session.Context()))
		}
		page, err := c.List(ctx, client.Prefix("/w/"))
		if err != nil {
			t.Fatal(err)
		}
		w.judge(t, page.KVs)
		if err := cache.Reach(ctx, page.Revision); err != nil {
			t.Fatal(err)
		}
		if items, _ := cache.List(); len(items) != len(page.KVs) {
			t.Errorf("the cache has %d keys, the store %d", len(items), len(page.KVs))
		}
		if _, err := c.Put(ctx, "last", nil); err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			deadline := time.After(time.Minute)
			for told.Load() == 0 {
				select {
				case <-deadline:
					t.Error("the watch did not tell the last change")
					stop()
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
			stop()
		})
		wait.Wait()
	})
}

// follow reads every revision after start until the key "last" is written, and
// returns its revision.
func follow(ctx context.Context, t *testing.T, c *client.Client, start client.Revision) client.Revision {
	next := start + 1
	for ev, err := range c.Watch(ctx, client.All(), client.After(start)) {
		if err != nil {
			t.Errorf("watch, at revision %d: %v", next, err)
			return 0
		}
		if ev.Revision != next {
			t.Errorf("watch: revision %d, expected %d", ev.Revision, next)
		}
		if next = ev.Revision + 1; ev.KV.Key == "last" {
			return ev.Revision
		}
	}
	return 0
}

// writers write each key once.
type writers struct {
	c              *client.Client
	acked, unknown sync.Map // keys
	count          atomic.Int64
	stop           atomic.Bool
	wait           sync.WaitGroup
}

func (w *writers) run(ctx context.Context, t *testing.T) {
	for i := range 4 {
		w.wait.Go(func() {
			for n := 0; !w.stop.Load(); n++ {
				key := fmt.Sprintf("/w/%d/%d", i, n)
				switch _, err := w.c.Put(ctx, key, nil); {
				case err == nil:
					w.acked.Store(key, true)
					w.count.Add(1)
				case errors.Is(err, client.ErrUnknownOutcome):
					w.unknown.Store(key, true)
				default:
					t.Errorf("put: %v", err)
				}
			}
		})
	}
}

func (w *writers) await(ctx context.Context, t *testing.T, more int64) {
	t.Helper()
	for goal := w.count.Load() + more; w.count.Load() < goal; {
		select {
		case <-ctx.Done():
			t.Fatal("no writes are acknowledged")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (w *writers) end() {
	w.stop.Store(true)
	w.wait.Wait()
}

func (w *writers) judge(t *testing.T, there []client.KV) {
	found := map[string]bool{}
	for _, kv := range there {
		found[kv.Key] = true
		if kv.Version != 1 {
			t.Errorf("%s was written %d times", kv.Key, kv.Version)
		}
		_, acked := w.acked.Load(kv.Key)
		_, unknown := w.unknown.Load(kv.Key)
		if !acked && !unknown {
			t.Errorf("%s is there, and its writer was told that it is not", kv.Key)
		}
	}
	unsure := 0
	w.unknown.Range(func(any, any) bool { unsure++; return true })
	w.acked.Range(func(key, _ any) bool {
		if !found[key.(string)] {
			t.Errorf("%v was acknowledged and is gone", key)
		}
		return true
	})
	t.Logf("%d keys, %d writes of unknown outcome", len(there), unsure)
}

// TestFrozenMember: a leader that stops without dying holds up calls only until
// another one leads and the client turns away from it.
func TestFrozenMember(t *testing.T) {
	each(t, func(ctx context.Context, t *testing.T, cl *cluster.Cluster) {
		c := open(t, client.Config{Endpoints: cl.Endpoints()})
		if _, err := c.Put(ctx, "k", []byte("v")); err != nil {
			t.Fatal(err)
		}
		leader, err := cl.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := leader.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer leader.Signal(syscall.SIGCONT)
		for began := time.Now(); ; {
			call, cancel := context.WithTimeout(ctx, 4*time.Second)
			_, readErr := c.Get(call, "k")
			_, writeErr := c.Put(call, "k", []byte("v"))
			cancel()
			if readErr == nil && writeErr == nil {
				t.Logf("served again after %v", time.Since(began))
				return
			}
			if time.Since(began) > 40*time.Second {
				t.Fatal(readErr, writeErr)
			}
			if writeErr != nil && strings.Contains(writeErr.Error(), "closed") {
				t.Fatal(writeErr)
			}
		}
	})
}
