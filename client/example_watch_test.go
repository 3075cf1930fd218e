package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/keelson-io/keelson/client"
)

// Bookmarks say how far a watch is when nothing happens.
func ExampleEventType() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	rev, _ := c.Put(ctx, "/jobs/1", nil)

	for ev, err := range c.Watch(ctx, client.Prefix("/jobs/"), client.After(rev-1), client.Bookmarks()) {
		switch {
		case err != nil:
			fmt.Println(err)
			return
		case ev.Type == client.EventBookmark:
			fmt.Println(ev.Type, "before", ev.Revision < rev)
			continue
		}
		fmt.Println(ev.Type, ev.KV.Key)
		break
	}
	// Output:
	// bookmark before true
	// put /jobs/1
}

// A part of history: what happened to a range between two revisions.
func ExampleWatchOption() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	first, _ := c.Put(ctx, "/jobs/1", []byte("queued"))
	_, _ = c.Put(ctx, "/jobs/1", []byte("running"))
	_, _ = c.Delete(ctx, "/jobs/1")
	last, _ := c.Put(ctx, "/other", nil)

	for ev, err := range c.Watch(ctx, client.Prefix("/jobs/"), client.After(first), client.Until(last), client.WithPrevious()) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%v: it was %s\n", ev.Type, ev.Previous.Value)
	}
	// Output:
	// put: it was queued
	// delete: it was running
}

// A value that cannot be decoded does not stop a cache: its item says why.
func ExampleItem() {
	c, stop := exampleClient()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, _ = c.Put(ctx, "/sizes/a", []byte("12"))
	_, _ = c.Put(ctx, "/sizes/b", []byte("large"))

	cache := client.NewCache(c, client.Prefix("/sizes/"), func(kv client.KV) (n int, err error) {
		_, err = fmt.Sscan(string(kv.Value), &n)
		return n, err
	})
	ended := make(chan error, 1)
	go func() { ended <- cache.Run(ctx) }()
	_ = cache.Fresh(ctx)
	items, _ := cache.List()
	for _, it := range items {
		fmt.Println(it.Key, it.Object, it.Err != nil)
	}
	cancel()
	<-ended
	// Output:
	// /sizes/a 12 false
	// /sizes/b 0 true
}

// Labels find what has all of them.
func ExampleCacheOption() {
	c, stop := exampleClient()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, _ = c.Put(ctx, "/pods/a", []byte("web"))
	_, _ = c.Put(ctx, "/pods/b", []byte("db"))

	type pod struct{ labels map[string]string }
	cache := client.NewCache(c, client.Prefix("/pods/"),
		func(kv client.KV) (pod, error) { return pod{map[string]string{"app": string(kv.Value)}}, nil },
		client.Labels("labels", func(p pod) map[string]string { return p.labels }))
	ended := make(chan error, 1)
	go func() { ended <- cache.Run(ctx) }()
	_ = cache.Fresh(ctx)
	for _, it := range cache.Find("labels", "app=web") {
		fmt.Println(it.Key)
	}
	cancel()
	<-ended
	// Output: /pods/a
}

func ExamplePermission() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	_ = c.Auth().AddRole(ctx, "operator")
	_ = c.Auth().Grant(ctx, "operator", client.Permission{Access: client.MayReadWrite, Keys: client.Prefix("/jobs/")})
	list, err := c.Auth().Role(ctx, "operator")
	fmt.Println(len(list), list[0].Access == client.MayReadWrite, err)
	// Output: 1 true <nil>
}

func ExampleAccess() {
	for _, a := range []client.Access{client.MayRead, client.MayWrite, client.MayReadWrite} {
		p := client.Permission{Access: a, Keys: client.Key("/config")}
		fmt.Println(p.Access == client.MayWrite || p.Access == client.MayReadWrite)
	}
	// Output:
	// false
	// true
	// true
}

func ExampleSnapshotInfo() {
	c, stop := exampleClient()
	defer stop()

	info, err := c.Maintenance().Snapshot(context.Background(), "", io.Discard)
	fmt.Println(info.Size > 0, info.Version, err)
	// Output: true 3.7.0 <nil>
}

// told prints what an observer hears.
type told struct{ notices chan client.Notice }

func (o told) Call(ctx context.Context, op string) (context.Context, func(client.Outcome)) {
	return ctx, func(out client.Outcome) {
		if out.Err != nil {
			fmt.Println(op, "failed after", out.Attempts, "attempts")
		}
	}
}

func (o told) Notice(n client.Notice) {
	select {
	case o.notices <- n:
	default: // an observer must not hold up the client
	}
}

func ExampleOutcome() {
	c, err := client.New(client.Config{Endpoints: []string{"127.0.0.1:1"}, Rounds: 2, Observer: told{}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	_, _ = c.Get(context.Background(), "a")
	// Output: /etcdserverpb.KV/Range failed after 2 attempts
}

// A notice of a lost lease.
func ExampleNotice() {
	o := told{make(chan client.Notice, 10)}
	c, stop := exampleClient(func(cfg *client.Config) { cfg.Observer = o })
	defer stop()
	ctx := context.Background()

	s, err := c.NewSession(ctx, 2*time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = c.Revoke(ctx, s.Lease())
	n := <-o.notices
	fmt.Println(n.Kind, errors.Is(n.Err, client.ErrLeaseLost))
	// Output: lease-lost true
}

// Counters are made by kind.
func ExampleNoticeKind() {
	count := map[client.NoticeKind]int{}
	for _, n := range []client.Notice{{Kind: client.NoticeFailover}, {Kind: client.NoticeLeader}, {Kind: client.NoticeFailover}} {
		count[n.Kind]++
	}
	fmt.Println(count[client.NoticeFailover], count[client.NoticeWatchBroken])
	// Output: 2 0
}

// AdoptSession: the lease of this process from before its restart.
func ExampleClient_AdoptSession() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()
	before, _ := c.Grant(ctx, time.Minute)

	s, err := c.AdoptSession(ctx, before.ID)
	if errors.Is(err, client.ErrLeaseLost) {
		s, err = c.NewSession(ctx, time.Minute)
	}
	fmt.Println(s.Lease() == before.ID, err)
	_ = s.Close(ctx)
	// Output: true <nil>
}
