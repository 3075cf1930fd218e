package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/client"
)

func TestWatch(t *testing.T) {
	root := open(t, client.Config{Endpoints: []string{startMember(t).addr}})
	c := root.Namespace("/n/")
	ctx := testContext(t)
	var log []string
	// Of its own: the watch may hear of the last write before its writer does.
	watching, enough := context.WithCancel(ctx)
	defer enough()
	ready := make(chan client.Revision)
	var wait sync.WaitGroup
	wait.Go(func() {
		for ev, err := range c.Watch(watching, client.Prefix("k"), client.WithPrevious(), client.Bookmarks()) {
			switch {
			case err != nil:
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				return
			case ev.Type == client.EventBookmark && ready != nil:
				ready <- ev.Revision
				ready = nil
			case ev.Type != client.EventBookmark:
				s := fmt.Sprintf("%d %v %s=%s", ev.Revision, ev.Type, ev.KV.Key, ev.KV.Value)
				if ev.Previous != nil {
					s += fmt.Sprintf(" was %s", ev.Previous.Value)
				}
				log = append(log, s)
				if ev.Type == client.EventDelete {
					enough()
				}
			}
		}
	})
	if rev := <-ready; rev != 1 {
		t.Errorf("watching after revision %d", rev)
	}
	for _, do := range []func() error{
		func() error { _, err := c.Put(ctx, "k1", []byte("a")); return err },
		func() error { _, err := root.Put(ctx, "k1", []byte("elsewhere")); return err },
		func() error { _, err := c.Put(ctx, "k1", []byte("b")); return err },
		func() error { _, err := c.Delete(ctx, "k1"); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	wait.Wait()
	want := []string{"2 put k1=a", "4 put k1=b was a", "5 delete k1= was b"}
	if fmt.Sprint(log) != fmt.Sprint(want) {
		t.Errorf("told %q, want %q", log, want)
	}
}

// TestWatchUntil reads parts of history: whole, through a bookmark when the last
// revisions are not of the range, and of a transaction all or nothing.
func TestWatchUntil(t *testing.T) {
	c := open(t, client.Config{Endpoints: []string{startMember(t).addr}})
	ctx := testContext(t)
	for i := range 3 {
		if _, err := c.Txn().Then(client.OpPut("k/a", nil), client.OpPut("k/b", nil), client.OpPut(fmt.Sprint("other", i), nil)).Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(ctx, "other", nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		after, until client.Revision
		want         string
	}{{1, 7, "2+ 2 4+ 4 6+ 6"}, {1, 6, "2+ 2 4+ 4 6+ 6"}, {2, 5, "4+ 4"}, {4, 5, ""}, {6, 7, ""}, {1, 1, ""}} {
		var log []string
		for ev, err := range c.Watch(ctx, client.Prefix("k/"), client.After(tc.after), client.Until(tc.until)) {
			if err != nil {
				t.Fatal(err)
			}
			s := fmt.Sprint(ev.Revision)
			if ev.More {
				s += "+"
			}
			log = append(log, s)
		}
		if got := strings.Join(log, " "); got != tc.want {
			t.Errorf("after %d until %d: %s, want %s", tc.after, tc.until, got, tc.want)
		}
	}
	marks := 0
	for ev, err := range c.Watch(ctx, client.Prefix("k/"), client.After(6), client.Until(8), client.Bookmarks()) {
		if err != nil || ev.Type != client.EventBookmark {
			t.Fatal(ev, err)
		}
		if marks++; marks == 1 {
			if _, err := c.Put(ctx, "other", nil); err != nil { // revision 8, which it waits for
				t.Fatal(err)
			}
		}
	}
	if marks < 2 {
		t.Errorf("%d bookmarks", marks)
	}
}

func TestWatchEnds(t *testing.T) {
	c := open(t, client.Config{Endpoints: []string{startMember(t).addr}})
	ctx := testContext(t)
	for range 10 {
		if _, err := c.Put(ctx, "k", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Compact(ctx, 8, true); err != nil {
		t.Fatal(err)
	}
	last := func(opts ...client.WatchOption) (n int, last error) {
		for ev, err := range c.Watch(ctx, client.Key("k"), opts...) {
			if last = err; err == nil {
				n++
			}
			if ev.Revision == 11 {
				break
			}
		}
		return n, last
	}
	_, err := last(client.After(3))
	var compacted *client.CompactedError
	if !errors.As(err, &compacted) || compacted.Revision != 8 || !errors.Is(err, client.ErrCompacted) {
		t.Fatal(err)
	}
	if n, err := last(client.After(compacted.Revision)); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	for _, err := range c.Watch(ctx, client.Range{}) {
		if !errors.Is(err, api.ErrEmptyKey) {
			t.Error(err)
		}
	}
	other, err := client.New(client.Config{Endpoints: c.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range other.Watch(ctx, client.Key("k"), client.Bookmarks()) {
		if err != nil {
			if !errors.Is(err, client.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
			break
		}
		other.Close()
	}
	for _, err := range other.Watch(ctx, client.Key("k")) {
		if !errors.Is(err, client.ErrClosed) {
			t.Error(err)
		}
	}
}

// follow reads a watch until it has told revision last, and checks that it tells
// every revision from first on, in order, once.
func follow(ctx context.Context, t testing.TB, c *client.Client, first, last client.Revision, slow func(), opts ...client.WatchOption) {
	next := first
	for ev, err := range c.Watch(ctx, client.All(), append(opts, client.After(first-1))...) {
		if err != nil {
			t.Errorf("watch from %d, expecting %d: %v", first, next, err)
			return
		}
		if ev.Type == client.EventBookmark {
			if ev.Revision >= next {
				t.Errorf("bookmark of %d before the event of %d", ev.Revision, next)
			}
			continue
		}
		if ev.Revision != next {
			t.Errorf("watch from %d: event of revision %d, expected %d", first, ev.Revision, next)
			return
		}
		if next == last {
			return
		}
		next++
		slow()
	}
}

// TestWatchResumes: streams are cut at random while many watch; no watch misses
// an event or hears one twice.
func TestWatchResumes(t *testing.T) {
	m := startMember(t)
	a, b := newProxy(t, m.addr), newProxy(t, m.addr)
	seen := &recorder{}
	c := open(t, client.Config{Endpoints: []string{a.addr(), b.addr()}, Observer: seen})
	direct := open(t, client.Config{Endpoints: []string{m.addr}})
	ctx := testContext(t)
	const last = 1500
	var wait sync.WaitGroup
	for i := range 30 {
		wait.Go(func() {
			var opts []client.WatchOption
			if i%2 == 0 {
				opts = append(opts, client.Bookmarks())
			}
			follow(ctx, t, c, client.Revision(2+i*10), last, func() {}, opts...)
		})
	}
	var stop atomic.Bool
	var cutter sync.WaitGroup
	cutter.Go(func() {
		for !stop.Load() {
			time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
			p := []*proxy{a, b}[rand.IntN(2)]
			if rand.IntN(3) == 0 {
				p.down()
				time.Sleep(30 * time.Millisecond)
				p.up()
			} else {
				p.cut()
			}
		}
	})
	for rev := client.Revision(1); rev < last; {
		if rev == last-100 { // however fast the writer is, the watches meet broken streams
			waitFor(t, "broken streams", func() bool { return seen.count(client.NoticeWatchBroken) >= 5 })
		}
		now, err := direct.Put(ctx, "k", []byte("some value"))
		if err != nil {
			t.Fatal(err)
		}
		rev = now
		if rev%10 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	wait.Wait()
	stop.Store(true)
	cutter.Wait()
}

// TestSlowWatch: a reader that stands still costs a bounded queue, holds up
// nobody on the same stream, and misses nothing.
func TestSlowWatch(t *testing.T) {
	seen := &recorder{}
	c := open(t, client.Config{Endpoints: []string{startMember(t).addr}, Observer: seen})
	ctx := testContext(t)
	const last = 6000
	var wait sync.WaitGroup
	fast := make(chan struct{})
	wait.Go(func() {
		first := true
		follow(ctx, t, c, 2, last, func() {
			if first {
				first = false
				<-fast // stands still until the others are through
			}
		})
	})
	var others sync.WaitGroup
	for range 3 {
		others.Go(func() { follow(ctx, t, c, 2, last, func() {}) })
	}
	var writers sync.WaitGroup
	for range 20 {
		writers.Go(func() {
			for {
				rev, err := c.Put(ctx, "k", make([]byte, 100))
				if err != nil {
					t.Error(err)
				}
				if err != nil || rev >= last {
					return
				}
			}
		})
	}
	writers.Wait()
	others.Wait()
	close(fast)
	wait.Wait()
	if seen.count(client.NoticeWatchLagging) == 0 {
		t.Error("nobody lagged: the test shows nothing")
	}
}
