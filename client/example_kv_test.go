package client_test

import (
	"context"
	"fmt"
	"time"

	"github.com/keelson-io/keelson/client"
)

// A revision is a state of the store: reads can name it.
func ExampleRevision() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	rev, _ := c.Put(ctx, "/config", []byte("old"))
	_, _ = c.Put(ctx, "/config", []byte("new"))
	kv, err := c.Get(ctx, "/config", client.AtRevision(rev))
	fmt.Printf("%s %v\n", kv.Value, err)
	// Output: old <nil>
}

// A lease may have an id of the caller's choice.
func ExampleLeaseID() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	const id client.LeaseID = 0x10ad
	_, _ = c.GrantID(ctx, id, time.Minute)
	_, _ = c.Put(ctx, "/nodes/a", nil, client.WithLease(id))
	kv, _ := c.Get(ctx, "/nodes/a")
	fmt.Println(kv.Lease == id)
	fmt.Println(c.Revoke(ctx, id))
	// Output:
	// true
	// <nil>
}

// What a KV remembers besides its value.
func ExampleKV() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	created, _ := c.Put(ctx, "/jobs/1", []byte("queued"))
	changed, _ := c.Put(ctx, "/jobs/1", []byte("running"))
	kv, _ := c.Get(ctx, "/jobs/1")
	fmt.Println(kv.Exists(), kv.Version, kv.Created == created, kv.Modified == changed)
	// Output: true 2 true true
}

func ExampleReadOption() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	for i := range 5 {
		_, _ = c.Put(ctx, fmt.Sprint("/jobs/", i), []byte("queued"))
	}

	page, err := c.List(ctx, client.Prefix("/jobs/"), client.Limit(2), client.KeysOnly())
	for _, kv := range page.KVs {
		fmt.Println(kv.Key, len(kv.Value))
	}
	fmt.Println("of", page.Count, err)
	// Output:
	// /jobs/0 0
	// /jobs/1 0
	// of 5 <nil>
}

// What was changed last comes first.
func ExampleSortField() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	for _, key := range []string{"/b", "/c", "/a"} {
		_, _ = c.Put(ctx, key, nil)
	}

	page, _ := c.List(ctx, client.All(), client.Descending(client.ByModified))
	for _, kv := range page.KVs {
		fmt.Print(kv.Key, " ")
	}
	// Output: /a /c /b
}

func ExampleDeleted() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	_, _ = c.Put(ctx, "/jobs/1", nil)
	_, _ = c.Put(ctx, "/jobs/2", nil)

	gone, err := c.DeleteRange(ctx, client.Prefix("/jobs/"))
	fmt.Println(gone.Count, err)
	// Output: 2 <nil>
}

// Previous tells what a write replaced.
func ExampleWriteOption() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	_, _ = c.Put(ctx, "/owner", []byte("ann"))

	var before []client.KV
	_, _ = c.Put(ctx, "/owner", []byte("ben"), client.Previous(&before))
	fmt.Printf("it was %s's\n", before[0].Value)
	// Output: it was ann's
}

func ExampleTxnResult() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	_, _ = c.Put(ctx, "/owner", []byte("ann"))

	r, err := c.Txn().
		If(client.Key("/owner").Missing()).
		Then(client.OpPut("/owner", []byte("me"))).
		Else(client.OpGet(client.Key("/owner"))).
		Commit(ctx)
	if err == nil && !r.Succeeded {
		fmt.Printf("it is %s's\n", r.Results[0].KVs[0].Value)
	}
	// Output: it is ann's
}

// Each operation has its result, in their order.
func ExampleOpResult() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	_, _ = c.Put(ctx, "/jobs/1", []byte("queued"))

	r, _ := c.Txn().Then(
		client.OpGet(client.Prefix("/jobs/")),
		client.OpDelete(client.Prefix("/jobs/"), client.Previous(nil)),
	).Commit(ctx)
	get, del := r.Results[0], r.Results[1]
	fmt.Println(get.Count, del.Deleted, del.Previous[0].Key)
	// Output: 1 1 /jobs/1
}

// Operations are values: here, a transaction of as many as there are hosts.
func ExampleOp() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	var ops []client.Op
	for _, host := range []string{"a", "b", "c"} {
		ops = append(ops, client.OpPut("/hosts/"+host, nil))
	}
	_, _ = c.Txn().Then(ops...).Commit(ctx)
	fmt.Println(c.Count(ctx, client.Prefix("/hosts/")))
	// Output: 3 <nil>
}

// A condition on a range must hold for each of its keys.
func ExampleCondition() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	_, _ = c.Put(ctx, "/votes/a", []byte("yes"))
	_, _ = c.Put(ctx, "/votes/b", []byte("no"))

	unanimous := client.Prefix("/votes/").Value(client.Equal, []byte("yes"))
	r, err := c.Txn().If(unanimous).Then(client.OpPut("/decided", nil)).Commit(ctx)
	fmt.Println(r.Succeeded, err)
	// Output: false <nil>
}

func ExampleComparison() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	_, _ = c.Put(ctx, "/attempts", nil)

	r, err := c.Txn().If(client.Key("/attempts").Version(client.Less, 3)).Then(client.OpPut("/attempts", nil)).Commit(ctx)
	fmt.Println(r.Succeeded, err)
	// Output: true <nil>
}
