package client_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

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
