package client_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-io/keelson/client"
)

// TestLoad: one client carries 10,000 watches and 1,000 concurrent callers.
// Every watch hears of its key's change, once.
func TestLoad(t *testing.T) {
	watches, callers, rounds := 10_000, 1000, 4
	if testing.Short() {
		watches, callers = 500, 50
	}
	seen := &recorder{}
	m := startMember(t)
	c := open(t, client.Config{Endpoints: []string{m.addr}, Timeout: time.Minute, Observer: seen})
	ctx, stop := context.WithCancel(testContext(t))
	var ready, heard atomic.Int64
	var wait sync.WaitGroup
	key := func(i int) string { return fmt.Sprint("/w/", i%watches) }
	for i := range watches {
		wait.Go(func() {
			for ev, err := range c.Watch(ctx, client.Key(key(i)), client.Bookmarks()) {
				switch {
				case err != nil:
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					return
				case ev.Type == client.EventBookmark:
					ready.Add(1)
				default:
					heard.Add(1)
				}
			}
		})
	}
	began := time.Now()
	waitFor(t, "the watches to stand", func() bool { return ready.Load() >= int64(watches) })
	t.Logf("%d watches stand after %v, with %d goroutines", watches, time.Since(began), runtime.NumGoroutine())

	began = time.Now()
	var calls sync.WaitGroup
	for w := range callers {
		calls.Go(func() {
			for i := range rounds {
				if _, err := c.Put(ctx, key(w*rounds+i), nil); err != nil {
					t.Error(err)
					return
				}
				if _, err := c.Get(ctx, key(w*rounds+i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	calls.Wait()
	want := int64(callers * rounds)
	waitFor(t, "the watches to hear", func() bool { return heard.Load() >= want })
	t.Logf("%d puts, gets and events in %v", want, time.Since(began))
	stop()
	wait.Wait()
	if heard.Load() != want {
		t.Errorf("heard %d events of %d", heard.Load(), want)
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if seen.mu.open != 0 {
		t.Errorf("%d calls have not ended", seen.mu.open)
	}
}
