package client_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"

	"github.com/keelson-io/keelson/client"
)

func TestTxn(t *testing.T) { bothWays(t, testTxn) }

func testTxn(t *testing.T, open func(client.Config) *client.Client) {
	c := open(client.Config{Endpoints: []string{startMember(t).addr}}).Namespace("/n/")
	ctx := testContext(t)
	if _, err := c.Put(ctx, "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	a, err := c.Get(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	inner := new(client.Txn).If(client.Prefix("").Missing()).Then(client.OpGet(client.All())).Else(client.OpDelete(client.Key("a"), client.Previous(nil)))
	r, err := c.Txn().
		If(a.Unchanged(), client.Key("b").Missing(), client.Key("a").Exists(), client.Prefix("a").Value(client.Equal, []byte("1")),
			client.Key("a").Version(client.Less, 2), client.Key("a").CreatedAt(client.Greater, 1), client.Key("a").ModifiedAt(client.NotEqual, 1),
			client.Key("a").Lease(client.Equal, 0)).
		Then(client.OpPut("b", []byte("2"), client.Previous(nil)), client.OpGet(client.All(), client.Limit(1)), client.OpTxn(inner)).
		Else(client.OpGet(client.Key("a"))).
		Commit(ctx)
	if err != nil || !r.Succeeded || r.Revision != 3 || len(r.Results) != 3 {
		t.Fatal(r, err)
	}
	if get := r.Results[1]; get.Count != 2 || !get.More || get.KVs[0].Key != "a" {
		t.Error(get)
	}
	if del := r.Results[2].Txn; del.Succeeded || del.Results[0].Deleted != 1 || del.Results[0].Previous[0].Key != "a" {
		t.Error(del)
	}
	r, err = c.Txn().If(a.Unchanged()).Then(client.OpPut("c", nil)).Else(client.OpGet(client.Key("b"))).Commit(ctx)
	if err != nil || r.Succeeded || string(r.Results[0].KVs[0].Value) != "2" {
		t.Fatal(r, err)
	}
}

func TestSwap(t *testing.T) { bothWays(t, testSwap) }

func testSwap(t *testing.T, open func(client.Config) *client.Client) {
	c := open(client.Config{Endpoints: []string{startMember(t).addr}})
	ctx := testContext(t)
	if _, err := c.Create(ctx, "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	_, err := c.Create(ctx, "a", []byte("2"))
	var conflict *client.ConflictError
	if !errors.Is(err, client.ErrConflict) || !errors.As(err, &conflict) || string(conflict.Current.Value) != "1" {
		t.Fatal(err)
	}
	old := *conflict.Current
	if rev, err := c.Replace(ctx, old, []byte("2")); err != nil || rev != 3 {
		t.Fatal(rev, err)
	}
	if _, err := c.Remove(ctx, old); !errors.Is(err, client.ErrConflict) {
		t.Fatal(err)
	}
	now, _ := c.Get(ctx, "a")
	if _, err := c.Remove(ctx, now); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Replace(ctx, now, nil); !errors.As(err, &conflict) || conflict.Current != nil {
		t.Fatal(err)
	}
}

// TestUpdate: many who add to one number lose nothing and add nothing twice.
func TestUpdate(t *testing.T) { bothWays(t, testUpdate) }

func testUpdate(t *testing.T, open func(client.Config) *client.Client) {
	m := startMember(t)
	ctx := testContext(t)
	const workers, rounds = 8, 25
	add := func(now client.KV) ([]byte, error) {
		n, _ := strconv.Atoi(string(now.Value))
		return strconv.AppendInt(nil, int64(n+1), 10), nil
	}
	c := open(client.Config{Endpoints: []string{m.addr}})
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for range rounds {
				if kv, err := c.Update(ctx, "n", add); err != nil || string(kv.Value) != strconv.FormatInt(kv.Version, 10) {
					t.Error(kv, err)
				}
			}
		})
	}
	wait.Wait()
	kv, err := c.Get(ctx, "n")
	if err != nil || string(kv.Value) != strconv.Itoa(workers*rounds) {
		t.Fatalf("%s, %v", kv.Value, err)
	}
	same, err := c.Update(ctx, "n", func(now client.KV) ([]byte, error) { return now.Value, nil })
	if err != nil || same.Modified != kv.Modified {
		t.Errorf("an update to the same value wrote revision %d: %v", same.Modified, err)
	}
	stop := errors.New("stop")
	if _, err := c.Update(ctx, "n", func(client.KV) ([]byte, error) { return nil, stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.Update(over, "n", add); !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrUnknownOutcome) {
		t.Error(err)
	}
}
