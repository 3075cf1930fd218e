package client_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/client"
)

func TestGetPutDelete(t *testing.T) { bothWays(t, testGetPutDelete) }

func testGetPutDelete(t *testing.T, open func(client.Config) *client.Client) {
	c := open(client.Config{Endpoints: []string{startMember(t).addr}})
	ctx := testContext(t)
	if _, err := c.Get(ctx, "a"); !errors.Is(err, client.ErrNotFound) {
		t.Fatalf("get of nothing: %v", err)
	}
	rev, err := c.Put(ctx, "a", []byte("1"))
	if err != nil || rev != 2 {
		t.Fatal(rev, err)
	}
	var was []client.KV
	if _, err := c.Put(ctx, "a", []byte("2"), client.Previous(&was)); err != nil || len(was) != 1 || string(was[0].Value) != "1" {
		t.Fatal(was, err)
	}
	kv, err := c.Get(ctx, "a")
	if err != nil || string(kv.Value) != "2" || kv.Created != 2 || kv.Modified != 3 || kv.Version != 2 || kv.Key != "a" {
		t.Fatal(kv, err)
	}
	if kv, err := c.Get(ctx, "a", client.AtRevision(2)); err != nil || string(kv.Value) != "1" {
		t.Fatal(kv, err)
	}
	if there, err := c.Delete(ctx, "a", client.Previous(&was)); err != nil || !there || string(was[0].Value) != "2" {
		t.Fatal(there, was, err)
	}
	if there, err := c.Delete(ctx, "a"); err != nil || there {
		t.Fatal(there, err)
	}
	_, err = c.Put(ctx, "", nil)
	var e *client.Error
	if !errors.Is(err, api.ErrEmptyKey) || !errors.As(err, &e) || e.Unknown || e.Endpoint == "" {
		t.Fatal(err)
	}
}

func TestList(t *testing.T) {
	c := open(t, client.Config{Endpoints: []string{startMember(t).addr}})
	ctx := testContext(t)
	for i := range 10 {
		if _, err := c.Put(ctx, fmt.Sprint("/k/", i), []byte{byte('z' - i)}); err != nil {
			t.Fatal(err)
		}
	}
	keys := func(p client.Page, err error) (out []string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range p.KVs {
			out = append(out, kv.Key)
		}
		return out
	}
	k := func(ids ...int) (out []string) {
		for _, i := range ids {
			out = append(out, fmt.Sprint("/k/", i))
		}
		return out
	}
	for name, tc := range map[string]struct {
		r    client.Range
		opts []client.ReadOption
		want []string
	}{
		"prefix":   {client.Prefix("/k/"), nil, k(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)},
		"span":     {client.Span("/k/3", "/k/5"), nil, k(3, 4)},
		"from":     {client.From("/k/8"), nil, k(8, 9)},
		"key":      {client.Key("/k/8"), nil, k(8)},
		"after":    {client.Prefix("/k/").After("/k/7"), nil, k(8, 9)},
		"limit":    {client.All(), []client.ReadOption{client.Limit(2)}, k(0, 1)},
		"modified": {client.All(), []client.ReadOption{client.ModifiedBetween(4, 5)}, k(2, 3)},
		"created":  {client.All(), []client.ReadOption{client.CreatedBetween(0, 3)}, k(0, 1)},
		"sorted":   {client.Span("/k/3", "/k/5"), []client.ReadOption{client.Ascending(client.ByValue)}, k(4, 3)},
		"down":     {client.Span("/k/3", "/k/5"), []client.ReadOption{client.Descending(client.ByKey)}, k(4, 3)},
		"past":     {client.All(), []client.ReadOption{client.AtRevision(3), client.Serializable()}, k(0, 1)},
	} {
		if got := keys(c.List(ctx, tc.r, tc.opts...)); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	p, err := c.List(ctx, client.All(), client.Limit(3), client.KeysOnly())
	if err != nil || !p.More || p.Count != 10 || p.Revision != 11 || p.KVs[0].Value != nil {
		t.Fatal(p, err)
	}
	if n, err := c.Count(ctx, client.Prefix("/k/")); err != nil || n != 10 {
		t.Fatal(n, err)
	}
	if _, err := c.List(ctx, client.Range{}); !errors.Is(err, api.ErrEmptyKey) {
		t.Fatal(err)
	}
	if d, err := c.DeleteRange(ctx, client.From("/k/4")); err != nil || d.Count != 6 || d.Revision != 12 {
		t.Fatal(d, err)
	}
	if err := c.Compact(ctx, 12, true); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, "/k/1", client.AtRevision(5)); !errors.Is(err, client.ErrCompacted) {
		t.Fatal(err)
	}
}

func TestNamespace(t *testing.T) { bothWays(t, testNamespace) }

func testNamespace(t *testing.T, open func(client.Config) *client.Client) {
	c := open(client.Config{Endpoints: []string{startMember(t).addr}})
	ctx := testContext(t)
	n := c.Namespace("t").Namespace("/")
	for _, k := range []string{"s/x", "t0", "u"} {
		if _, err := c.Put(ctx, k, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []string{"a", "b", "\xff"} {
		if _, err := n.Put(ctx, k, []byte(k)); err != nil {
			t.Fatal(err)
		}
	}
	if kv, err := c.Get(ctx, "t/a"); err != nil || string(kv.Value) != "a" {
		t.Fatal(kv, err)
	}
	for _, r := range []client.Range{client.All(), client.Prefix(""), client.From("a"), client.Span("a", "\xff\xff")} {
		p, err := n.List(ctx, r)
		if err != nil || len(p.KVs) != 3 || p.KVs[0].Key != "a" || p.KVs[2].Key != "\xff" {
			t.Fatal(r, p, err)
		}
	}
	if d, err := n.DeleteRange(ctx, client.All()); err != nil || d.Count != 3 {
		t.Fatal(d, err)
	}
	if _, err := n.Put(ctx, "", nil); !errors.Is(err, api.ErrEmptyKey) {
		t.Fatal(err)
	}
}

// TestNamespaceRefusesNothing does everything in a namespace: it sees a store of
// its own, and the keys around it are neither seen nor touched.
func TestNamespaceRefusesNothing(t *testing.T) {
	root := open(t, client.Config{Endpoints: []string{startMember(t).addr}})
	ctx := testContext(t)
	for _, prefix := range []string{"/n/", "\xff\xff"} {
		n := root.Namespace(prefix)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		before, err := root.Put(ctx, "/m", nil)
		must(err)
		_, err = n.Create(ctx, "a", []byte("1"))
		must(err)
		a, err := n.Update(ctx, "a", func(kv client.KV) ([]byte, error) { return append(kv.Value, '2'), nil })
		must(err)
		_, err = n.Replace(ctx, a, []byte("3"))
		must(err)
		_, err = n.Atomically(ctx, func(tx *client.Tx) error {
			kv, err := tx.Get("a")
			tx.Put("b", kv.Value)
			return err
		})
		must(err)
		inner := new(client.Txn).If(client.All().ModifiedAt(client.Greater, before)).Then(client.OpGet(client.All()))
		r, err := n.Txn().If(client.Key("a").Exists(), client.Prefix("").Value(client.Equal, []byte("3"))).Then(client.OpTxn(inner)).Commit(ctx)
		if err != nil || !r.Succeeded || len(r.Results[0].Txn.Results) != 1 || r.Results[0].Txn.Results[0].Count != 2 {
			t.Fatal(r, err)
		}
		s, err := n.NewSession(ctx, time.Minute)
		must(err)
		l, err := s.Lock(ctx, "lock")
		must(err)
		lead, err := s.Campaign(ctx, "election", []byte("me"))
		must(err)
		must(lead.Proclaim(ctx, []byte("still me")))
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
		now, err := n.Put(ctx, "d", nil)
		must(err)
		var told []string
		for ev, err := range n.Watch(ctx, client.All(), client.After(before), client.Until(now), client.WithPrevious()) {
			must(err)
			told = append(told, ev.KV.Key)
		}
		if len(told) < 7 || told[0] != "a" || told[len(told)-1] != "d" {
			t.Errorf("a watch of %q told %q", prefix, told)
		}
		cache := client.NewCache[struct{}](n, client.All(), nil)
		run(t, cache)
		must(cache.Reach(ctx, now))
		listed, _ := cache.List()
		var scanned []string
		for kv, err := range n.Scan(ctx, client.From("a")) {
			must(err)
			scanned = append(scanned, kv.Key)
		}
		if fmt.Sprint(keysOf(listed)) != fmt.Sprint(scanned) || len(scanned) != 6 || scanned[0] != "a" {
			t.Errorf("cache %q, scan %q", keysOf(listed), scanned)
		}
		must(s.Close(ctx))
		if d, err := n.DeleteRange(ctx, client.All()); err != nil || d.Count != 3 {
			t.Error(d, err)
		}
		if keys, err := root.Count(ctx, client.All()); err != nil || keys != 1 {
			t.Errorf("%d keys are left, %v", keys, err)
		}
	}
}
