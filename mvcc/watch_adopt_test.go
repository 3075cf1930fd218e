package mvcc

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// openMember opens a store that writes what happens in the world, when told.
func openMember(t *testing.T, w *world) (_ *storm, stop func()) {
	t.Helper()
	store, err := Open(Config{Clock: clock.System(), Engine: engine.NewMemory(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- store.Run(ctx) }()
	return &storm{world: w, real: store}, func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}
}

// TestAdoptWatchers: a member that was behind installs a snapshot. Its streams
// move to the new store, miss nothing and repeat nothing.
func TestAdoptWatchers(t *testing.T) {
	w := newWorld() // what happened in the cluster
	behind, closeBehind := openMember(t, w)
	ahead, closeAhead := openMember(t, w)
	defer closeAhead()
	for i := range 10 {
		ops := []op{{"a", fmt.Sprint(i)}, {key(i), "x"}}
		w.apply(ops...)
		ahead.writeReal([][]op{ops})
		behind.writeReal([][]op{ops})
	}
	r := record(behind.real.NewWatchStream())
	for _, q := range []WatchRequest{
		{Key: []byte("a"), PrevKV: true},
		{Key: []byte("a"), Start: 2},
		{Key: []byte("a"), End: []byte{0}, Start: 17, NoDelete: true},
		{Key: []byte("a"), Start: 1000},
	} {
		if _, err := r.watch(q); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run(t.Context())
	}()
	for i := range 20 {
		ops := []op{{"a", fmt.Sprint(-i - 1)}, {key(i), "y"}}
		w.apply(ops...)
		ahead.writeReal([][]op{ops})
		if i < 5 {
			behind.writeReal([][]op{ops})
		}
	}
	exposed := api.Revision(0)
	ahead.real.AdoptWatchers(behind.real, func() { exposed = ahead.real.Revision() })
	closeBehind()
	if exposed != 31 {
		t.Errorf("exposed at revision %d", exposed)
	}
	ops := []op{{"a", "last"}}
	w.apply(ops...)
	ahead.writeReal([][]op{ops})
	r.stream.RequestProgress() // silent: one watch is of the future
	h := w.history()
	eventually(t, "the streams have everything", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		c := stormClient{recorder: &recorder{watches: r.watches}}
		return c.behind(h, 32) == 0
	})
	r.stream.Close()
	<-done
	r.check(t, h)
	if r.all != 0 {
		t.Errorf("%d progress notices for a stream with a watch of the future", r.all)
	}
}
