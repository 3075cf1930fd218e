package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-io/keelson/client"
)

func ExampleClient() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	_, _ = c.Put(ctx, "/jobs/1", []byte("queued"))
	kv, err := c.Get(ctx, "/jobs/1")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s is %s\n", kv.Key, kv.Value)
	// Output: /jobs/1 is queued
}

func ExampleConfig() {
	c, err := client.New(client.Config{
		Endpoints: []string{"https://10.0.0.1:2379", "https://10.0.0.2:2379", "https://10.0.0.3:2379"},
		Username:  "controller", Password: os.Getenv("STORE_PASSWORD"),
		Timeout: 5 * time.Second,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	fmt.Println(len(c.Endpoints()), "endpoints")
	// Output: 3 endpoints
}

func ExampleClient_Scan() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	for i := range 3 {
		_, _ = c.Put(ctx, fmt.Sprint("/jobs/", i), nil)
	}

	for kv, err := range c.Scan(ctx, client.Prefix("/jobs/")) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(kv.Key)
	}
	// Output:
	// /jobs/0
	// /jobs/1
	// /jobs/2
}

func ExampleRange() {
	r := client.Prefix("/jobs/")
	fmt.Println(r.Contains("/jobs/1"), r.Contains("/job"), r.After("/jobs/1").Contains("/jobs/1"))
	// Output: true false false
}

func ExamplePage() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	for i := range 5 {
		_, _ = c.Put(ctx, fmt.Sprint("/jobs/", i), nil)
	}

	r := client.Prefix("/jobs/")
	page, err := c.List(ctx, r, client.Limit(2))
	for err == nil {
		fmt.Println(len(page.KVs), "of", page.Count)
		if !page.More {
			break
		}
		r = r.After(page.KVs[len(page.KVs)-1].Key)
		page, err = c.List(ctx, r, client.Limit(2), client.AtRevision(page.Revision))
	}
	// Output:
	// 2 of 5
	// 2 of 3
	// 1 of 1
}

func ExampleTxn() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	r, err := c.Txn().
		If(client.Key("/owner").Missing()).
		Then(client.OpPut("/owner", []byte("me")), client.OpPut("/log/1", []byte("taken"))).
		Else(client.OpGet(client.Key("/owner"))).
		Commit(ctx)
	fmt.Println(r.Succeeded, err)
	// Output: true <nil>
}

func ExampleConflictError() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	_, _ = c.Put(ctx, "/owner", []byte("ann"))

	_, err := c.Create(ctx, "/owner", []byte("me"))
	var conflict *client.ConflictError
	if errors.As(err, &conflict) {
		fmt.Printf("it is %s's\n", conflict.Current.Value)
	}
	// Output: it is ann's
}

func ExampleClient_Update() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	for range 3 {
		_, err := c.Update(ctx, "/counter", func(now client.KV) ([]byte, error) {
			n := 0
			if now.Exists() {
				var err error
				if n, err = strconv.Atoi(string(now.Value)); err != nil {
					return nil, err
				}
			}
			return strconv.AppendInt(nil, int64(n+1), 10), nil
		})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	kv, _ := c.Get(ctx, "/counter")
	fmt.Printf("%s\n", kv.Value)
	// Output: 3
}

func ExampleTx() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	_, _ = c.Put(ctx, "/a", []byte("x"))

	_, err := c.Atomically(ctx, func(tx *client.Tx) error {
		kv, err := tx.Get("/a")
		if err != nil {
			return err
		}
		tx.Put("/b", kv.Value)
		tx.Delete("/a")
		return nil
	})
	kv, _ := c.Get(ctx, "/b")
	fmt.Printf("%s %v\n", kv.Value, err)
	// Output: x <nil>
}

func ExampleEvent() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	var rev client.Revision
	_, _ = c.List(ctx, client.Prefix("/jobs/"), client.ReadRevision(&rev))
	_, _ = c.Put(ctx, "/jobs/1", []byte("queued"))
	_, _ = c.Delete(ctx, "/jobs/1")

	for ev, err := range c.Watch(ctx, client.Prefix("/jobs/"), client.After(rev), client.WithPrevious()) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(ev.Type, ev.KV.Key, ev.Previous != nil)
		if ev.Type == client.EventDelete {
			break
		}
	}
	// Output:
	// put /jobs/1 false
	// delete /jobs/1 true
}

// A watch that history overtook begins again with what is there now.
func ExampleCompactedError() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	rev, _ := c.Put(ctx, "/jobs/1", nil)
	rev2, _ := c.Put(ctx, "/jobs/1", nil)
	_ = c.Compact(ctx, rev2, false)

	for _, err := range c.Watch(ctx, client.Prefix("/jobs/"), client.After(rev-1)) {
		var compacted *client.CompactedError
		if errors.As(err, &compacted) {
			page, _ := c.List(ctx, client.Prefix("/jobs/"))
			fmt.Println("read", len(page.KVs), "keys; watch on after", page.Revision-rev, "more revisions")
		}
		break
	}
	// Output: read 1 keys; watch on after 1 more revisions
}

func ExampleError() {
	c, stop := exampleClient()
	defer stop()

	_, err := c.Put(context.Background(), "/jobs/1", nil)
	switch {
	case err == nil:
		fmt.Println("done")
	case errors.Is(err, client.ErrUnknownOutcome):
		fmt.Println("read the key to learn what happened")
	default:
		fmt.Println("nothing was written")
	}
	// Output: done
}

func ExampleLease() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	l, _ := c.Grant(ctx, time.Minute)
	_, _ = c.Put(ctx, "/nodes/a", []byte("alive"), client.WithLease(l.ID))
	_ = c.Revoke(ctx, l.ID)
	_, err := c.Get(ctx, "/nodes/a")
	fmt.Println(errors.Is(err, client.ErrNotFound))
	// Output: true
}

func ExampleSession() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	s, err := c.NewSession(ctx, 15*time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close(ctx)
	_, err = c.Put(ctx, "/nodes/a", nil, client.WithLease(s.Lease()))
	fmt.Println(err, s.Context().Err())
	// Output: <nil> <nil>
}

// What a lock protects is written on the condition that the lock is still held.
func ExampleLock() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	s, _ := c.NewSession(ctx, 15*time.Second)
	defer s.Close(ctx)

	l, err := s.Lock(ctx, "/locks/migration")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Unlock(ctx)
	r, err := c.Txn().If(l.Held()).Then(client.OpPut("/schema", []byte("2"))).Commit(ctx)
	fmt.Println(r.Succeeded, err)
	// Output: true <nil>
}

func ExampleLeadership() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	s, _ := c.NewSession(ctx, 15*time.Second)
	defer s.Close(ctx)

	l, err := s.Campaign(ctx, "/scheduler", []byte("host-1"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Resign(ctx)
	kv, _ := c.Leader(ctx, "/scheduler")
	fmt.Printf("%s leads\n", kv.Value)
	// Output: host-1 leads
}

func ExampleCache() {
	c, stop := exampleClient()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	type job struct{ Queue string }
	cache := client.NewCache(c, client.Prefix("/jobs/"),
		func(kv client.KV) (job, error) { return job{Queue: string(kv.Value)}, nil },
		client.Index("queue", func(j job) []string { return []string{j.Queue} }))
	ended := make(chan error, 1)
	go func() { ended <- cache.Run(ctx) }()

	_, _ = c.Put(ctx, "/jobs/1", []byte("urgent"))
	_, _ = c.Put(ctx, "/jobs/2", []byte("later"))
	if err := cache.Fresh(ctx); err != nil { // now it has both
		fmt.Println(err)
		return
	}
	for _, it := range cache.Find("queue", "urgent") {
		fmt.Println(it.Key, it.Object.Queue)
	}
	cancel()
	fmt.Println(<-ended)
	// Output:
	// /jobs/1 urgent
	// Watch: context canceled
}

// A Change is what an OnChange function hears: here, with one of a reconciler's
// queues in mind, the keys that need work.
func ExampleChange() {
	c, stop := exampleClient()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	queue := make(chan string, 10)
	cache := client.NewCache(c, client.Prefix("/jobs/"), nil, client.OnChange(func(ch client.Change[struct{}]) {
		if ch.New != nil {
			queue <- ch.New.Key
		}
	}))
	ended := make(chan error, 1)
	go func() { ended <- cache.Run(ctx) }()
	_, _ = c.Put(ctx, "/jobs/1", nil)
	fmt.Println(<-queue)
	cancel()
	<-ended
	// Output: /jobs/1
}

func ExampleAuth() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	_ = c.Auth().AddRole(ctx, "reader")
	_ = c.Auth().Grant(ctx, "reader", client.Permission{Access: client.MayRead, Keys: client.Prefix("/jobs/")})
	list, err := c.Auth().Role(ctx, "reader")
	fmt.Println(len(list), list[0].Access == client.MayRead, err)
	// Output: 1 true <nil>
}

func ExampleCluster() {
	c, stop := exampleClient()
	defer stop()

	members, err := c.Cluster().Members(context.Background())
	fmt.Println(len(members), err)
	// Output: 1 <nil>
}

func ExampleMaintenance() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	file, err := os.CreateTemp("", "snapshot")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(file.Name())
	defer file.Close()

	info, err := c.Maintenance().Snapshot(ctx, "", file)
	fmt.Println(info.Size > 0, err)
	// Output: true <nil>
}

// calls counts calls that failed: the smallest useful Observer.
type calls struct{ failed int }

func (o *calls) Call(ctx context.Context, op string) (context.Context, func(client.Outcome)) {
	return ctx, func(out client.Outcome) {
		if out.Err != nil {
			o.failed++
		}
	}
}

func (o *calls) Notice(n client.Notice) {}

func ExampleObserver() {
	o := &calls{}
	c, err := client.New(client.Config{Endpoints: []string{"127.0.0.1:1"}, Timeout: 50 * time.Millisecond, Observer: o})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	_, _ = c.Get(context.Background(), "a")
	fmt.Println(o.failed)
	// Output: 1
}

// exampleMember is one for all examples, which see nothing of each other: each
// has a namespace. TestMain stops it.
var exampleMember = struct {
	sync.Once
	*member
	dir  string
	used atomic.Int64
}{}

// exampleClient is a client of a store that looks empty. Other programs call
// client.New with their endpoints.
func exampleClient(change ...func(*client.Config)) (*client.Client, func()) {
	e := &exampleMember
	e.Do(func() {
		var err error
		if e.dir, err = os.MkdirTemp("", "keelson-example"); err == nil {
			e.member, err = runMember(e.dir)
		}
		if err != nil {
			panic(err)
		}
	})
	cfg := client.Config{Endpoints: []string{e.addr}}
	for _, f := range change {
		f(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		panic(err)
	}
	return c.Namespace(fmt.Sprintf("/example-%d", e.used.Add(1))), func() { c.Close() }
}

func TestMain(m *testing.M) {
	code := m.Run()
	if e := &exampleMember; e.member != nil {
		e.stop()
		os.RemoveAll(e.dir)
	}
	os.Exit(code)
}
