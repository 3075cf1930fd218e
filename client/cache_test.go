package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/keelson-io/keelson/client"
)

type pod struct {
	Node   string
	Labels map[string]string
}

func decodePod(kv client.KV) (p pod, err error) { return p, json.Unmarshal(kv.Value, &p) }

func put(ctx context.Context, t testing.TB, c *client.Client, key string, p any) client.Revision {
	t.Helper()
	value, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	rev, err := c.Put(ctx, key, value)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func keysOf[T any](items []client.Item[T]) (keys []string) {
	for _, it := range items {
		keys = append(keys, it.Key)
	}
	return keys
}

// run runs a cache until the test ends.
func run[T any](t testing.TB, k *client.Cache[T]) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, client.ErrClosed) {
			t.Errorf("the cache ended: %v", err)
		}
	})
}

func TestCache(t *testing.T) {
	c := open(t, client.Config{Endpoints: []string{startMember(t).addr}}).Namespace("/registry")
	ctx := testContext(t)
	put(ctx, t, c, "/pods/a", pod{"n1", map[string]string{"app": "web", "tier": "front"}})
	put(ctx, t, c, "/pods/b", pod{"n2", map[string]string{"app": "web"}})
	told := make(chan string, 10)
	k := client.NewCache(c, client.Prefix("/pods/"), decodePod,
		client.Index("node", func(p pod) []string { return []string{p.Node} }),
		client.Labels("labels", func(p pod) map[string]string { return p.Labels }),
		client.OnChange(func(ch client.Change[pod]) {
			switch {
			case ch.Old == nil:
				told <- "+" + ch.New.Key
			case ch.New == nil:
				told <- "-" + ch.Old.Key + " from " + ch.Old.Object.Node
			default:
				told <- ch.Old.Object.Node + "->" + ch.New.Object.Node
			}
		}))
	if k.Revision() != 0 {
		t.Error("an empty cache claims a revision")
	}
	run(t, k)
	expect := func(what string, got []string, want ...string) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	if err := k.Fresh(ctx); err != nil {
		t.Fatal(err)
	}
	all, rev := k.List()
	expect("list", keysOf(all), "/pods/a", "/pods/b")
	if rev < 3 {
		t.Error(rev)
	}
	expect("by label", keysOf(k.Find("labels", "app=web")), "/pods/a", "/pods/b")
	expect("by labels", keysOf(k.Find("labels", "app=web", "tier=front")), "/pods/a")
	expect("by node", keysOf(k.Find("node", "n2")), "/pods/b")

	put(ctx, t, c, "/pods/b", pod{"n3", nil})
	put(ctx, t, c, "/pods/c", "not a pod")
	if err := k.Fresh(ctx); err != nil {
		t.Fatal(err)
	}
	expect("moved away", keysOf(k.Find("node", "n2")))
	expect("moved", keysOf(k.Find("node", "n3")), "/pods/b")
	if it, ok := k.Get("/pods/c"); !ok || it.Err == nil {
		t.Error("a value that cannot be decoded must show", it)
	}
	d, err := c.DeleteRange(ctx, client.Prefix("/pods/"))
	if err := errors.Join(err, k.Reach(ctx, d.Revision)); err != nil {
		t.Fatal(err)
	}
	all, _ = k.List()
	expect("deleted", keysOf(all))
	expect("deleted", keysOf(k.Find("labels", "app=web")))
	brief, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := k.Reach(brief, d.Revision+3); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("reached the future")
	}
	for _, want := range []string{"+/pods/a", "+/pods/b", "n2->n3", "+/pods/c", "-/pods/a from n1", "-/pods/b from n3", "-/pods/c from "} {
		if got := <-told; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
	}
}

// TestCacheFresh: after Fresh a cache has what was written before it, although
// nothing in its range changes and streams break. Transactions appear whole.
func TestCacheFresh(t *testing.T) {
	m := startMember(t)
	p := newProxy(t, m.addr)
	c, direct := open(t, client.Config{Endpoints: []string{p.addr()}}), open(t, client.Config{Endpoints: []string{m.addr}})
	ctx := testContext(t)
	k := client.NewCache[struct{}](c, client.Prefix("/k/"), nil)
	run(t, k)
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rand.IntN(60)) * time.Millisecond):
				p.cut()
			}
		}
	})
	for i := range 100 {
		value := fmt.Append(nil, i)
		if i%3 == 0 {
			if _, err := direct.Put(ctx, "elsewhere", nil); err != nil {
				t.Fatal(err)
			}
		} else if _, err := direct.Txn().Then(client.OpPut("/k/a", value), client.OpPut("/k/b", value)).Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if err := k.Fresh(ctx); err != nil {
			t.Fatal(err)
		}
		all, _ := k.List()
		if i == 0 {
			continue
		}
		want := string(value)
		if i%3 == 0 {
			want = fmt.Sprint(i - 1)
		}
		if len(all) != 2 || string(all[0].Value) != want || string(all[1].Value) != want {
			t.Fatalf("after write %d the cache has %v", i, all)
		}
	}
	close(stop)
	wait.Wait()
}

// TestCacheResync: a cache that was away while history was compacted lists anew
// and tells what changed meanwhile.
func TestCacheResync(t *testing.T) {
	m := startMember(t)
	p := newProxy(t, m.addr)
	seen := &recorder{}
	c, direct := open(t, client.Config{Endpoints: []string{p.addr()}, Observer: seen}), open(t, client.Config{Endpoints: []string{m.addr}})
	ctx := testContext(t)
	for _, key := range []string{"stays", "changes", "goes"} {
		put(ctx, t, direct, "/"+key, key)
	}
	var mu sync.Mutex
	told := map[string]string{}
	k := client.NewCache(c, client.Prefix("/"), nil, client.OnChange(func(ch client.Change[struct{}]) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case ch.New == nil:
			told[ch.Old.Key] += "-"
		case ch.Old == nil:
			told[ch.New.Key] += "+"
		default:
			told[ch.New.Key] += "~"
		}
	}))
	run(t, k)
	if err := k.Fresh(ctx); err != nil {
		t.Fatal(err)
	}
	p.down()
	put(ctx, t, direct, "/changes", "changed")
	put(ctx, t, direct, "/comes", "new")
	if _, err := direct.Delete(ctx, "/goes"); err != nil {
		t.Fatal(err)
	}
	rev := put(ctx, t, direct, "/changes", "again")
	if err := direct.Compact(ctx, rev, true); err != nil {
		t.Fatal(err)
	}
	p.up()
	if err := k.Reach(ctx, rev); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint(map[string]string{"/stays": "+", "/changes": "+~", "/comes": "+", "/goes": "+-"})
	// The cache shows the changes before it has told the last of them.
	waitFor(t, "the changes to be told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return fmt.Sprint(told) == want
	})
	if seen.count(client.NoticeCacheResync) != 1 {
		t.Error("no resync was noticed")
	}
}
