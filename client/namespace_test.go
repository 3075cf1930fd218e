package client_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/keelson-io/keelson/client"
)

// TestNamespaceRefusesNothing does everything in a namespace: it sees a store of
// its own, and the keys around it are neither seen nor touched.
func TestNamespaceRefusesNothing(t *testing.T) {
	root := open(t, client.Config{Endpoints: []string{startMember(t).addr}})
	ctx := testContext(t)
	for _, prefix := range []string{"/n/", "\xff\xff"} {
		n := root.Namespace(prefix)
		before, err := root.Put(ctx, "/m", nil)
		if err != nil {
			t.Fatal(err)
		}
		writeIn(ctx, t, n, before)
		end := queueIn(ctx, t, n)
		followIn(ctx, t, n, before)
		end()
		if d, err := n.DeleteRange(ctx, client.All()); err != nil || d.Count != 3 {
			t.Error(d, err)
		}
		if keys, err := root.Count(ctx, client.All()); err != nil || keys != 1 {
			t.Errorf("%d keys are left, %v", keys, err)
		}
	}
}

// writeIn makes the keys a and b in all ways, behind a revision.
func writeIn(ctx context.Context, t *testing.T, n *client.Client, before client.Revision) {
	t.Helper()
	_, err := n.Create(ctx, "a", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := n.Update(ctx, "a", func(kv client.KV) ([]byte, error) { return append(kv.Value, '2'), nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err = n.Replace(ctx, a, []byte("3")); err != nil {
		t.Fatal(err)
	}
	_, err = n.Atomically(ctx, func(tx *client.Tx) error {
		kv, err := tx.Get("a")
		tx.Put("b", kv.Value)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	inner := new(client.Txn).If(client.All().ModifiedAt(client.Greater, before)).Then(client.OpGet(client.All()))
	r, err := n.Txn().If(client.Key("a").Exists(), client.Prefix("").Value(client.Equal, []byte("3"))).Then(client.OpTxn(inner)).Commit(ctx)
	if err != nil || !r.Succeeded || len(r.Results[0].Txn.Results) != 1 || r.Results[0].Txn.Results[0].Count != 2 {
		t.Fatal(r, err)
	}
}

// queueIn holds a lock and leads an election until end is called, and makes the
// key c, which ends with them.
func queueIn(ctx context.Context, t *testing.T, n *client.Client) (end func()) {
	t.Helper()
	s, err := n.NewSession(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Lock(ctx, "lock")
	if err != nil {
		t.Fatal(err)
	}
	lead, err := s.Campaign(ctx, "election", []byte("me"))
	if err != nil {
		t.Fatal(err)
	}
	if err := lead.Proclaim(ctx, []byte("still me")); err != nil {
		t.Fatal(err)
	}
	if kv, err := n.Leader(ctx, "election"); err != nil || string(kv.Value) != "still me" || kv.Key != lead.Key {
		t.Error(kv, err)
	}
	for kv, err := range n.Leaders(ctx, "election") {
		if err != nil || kv.Key != lead.Key {
			t.Error(kv, err)
		}
		break
	}
	if r, err := n.Txn().If(l.Held()).Then(client.OpPut("c", nil, client.WithLease(s.Lease()))).Commit(ctx); err != nil || !r.Succeeded {
		t.Error(r, err)
	}
	return func() {
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

// followIn makes the key d: watch, cache and scan tell of everything.
func followIn(ctx context.Context, t *testing.T, n *client.Client, before client.Revision) {
	t.Helper()
	now, err := n.Put(ctx, "d", nil)
	if err != nil {
		t.Fatal(err)
	}
	var told, scanned []string
	for ev, err := range n.Watch(ctx, client.All(), client.After(before), client.Until(now), client.WithPrevious()) {
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, ev.KV.Key)
	}
	if len(told) < 7 || told[0] != "a" || told[len(told)-1] != "d" {
		t.Errorf("a watch told %q", told)
	}
	cache := client.NewCache[struct{}](n, client.All(), nil)
	run(t, cache)
	if err := cache.Reach(ctx, now); err != nil {
		t.Fatal(err)
	}
	listed, _ := cache.List()
	for kv, err := range n.Scan(ctx, client.From("a")) {
		if err != nil {
			t.Fatal(err)
		}
		scanned = append(scanned, kv.Key)
	}
	if fmt.Sprint(keysOf(listed)) != fmt.Sprint(scanned) || len(scanned) != 6 || scanned[0] != "a" {
		t.Errorf("cache %q, scan %q", keysOf(listed), scanned)
	}
}
