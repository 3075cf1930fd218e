package mvcc

import (
	"context"
	"testing"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// TestPrevIsBeforeTheTransaction writes and deletes keys in one transaction:
// the previous value of both events is what was there before it, for watchers
// that hear of it at once and for those that read it from history, from the
// tail and from the engine.
func TestPrevIsBeforeTheTransaction(t *testing.T) {
	s := openOn(t, engine.NewMemory(), 100)
	index := api.Index(0)
	apply := func(fn func(*WriteTxn)) {
		index++
		tx := s.Begin()
		fn(tx)
		tx.End()
		s.Seal(index, 1)
		s.Publish()
	}
	stream := s.NewWatchStream()
	defer stream.Close()
	if _, err := stream.Watch(WatchRequest{Key: []byte("a"), End: []byte("z"), PrevKV: true}); err != nil {
		t.Fatal(err)
	}
	apply(func(tx *WriteTxn) { tx.Put([]byte("old"), []byte("before"), 0) })
	apply(func(tx *WriteTxn) {
		for _, k := range []string{"new", "old"} {
			tx.Put([]byte(k), []byte("within"), 0)
			tx.DeleteRange([]byte(k), nil, nil)
		}
	})
	// want[i] is the previous value of event i of revision 3.
	want := []string{"", "", "before", "before"}
	check := func(where string, got []*Event) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%s: %d events, want %d", where, len(got), len(want))
		}
		for i, e := range got {
			value := ""
			if e.Prev != nil {
				value = valueOf(e.Prev)
			}
			if value != want[i] {
				t.Errorf("%s: event %d (%s, delete=%v) has previous value %q, want %q", where, i, e.Key, e.Delete, value, want[i])
			}
		}
	}
	history := func() []*Event { return historyOf(t, s, 3) }
	var live []*Event
	for len(live) < len(want) {
		d, err := stream.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if d.Kind != DeliverEvents {
			continue
		}
		for _, e := range d.Batch.Events {
			if e.Rev == 3 {
				live = append(live, e)
			}
		}
	}
	check("live", live)
	check("tail", history())
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	check("engine", history())
	mustCheck(t, s)
}

// historyOf reads one revision from history, with previous values.
func historyOf(t *testing.T, s *Store, rev api.Revision) (out []*Event) {
	t.Helper()
	err := s.History(rev, rev, func(e *Event) bool {
		if err := e.FixPrev(); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
