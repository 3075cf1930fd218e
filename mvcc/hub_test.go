package mvcc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestMatcher compares the matcher with asking every span.
func TestMatcher(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	word := func() []byte {
		b := make([]byte, rng.IntN(3))
		for i := range b {
			b[i] = byte('a' + rng.IntN(4))
		}
		return b
	}
	type entry struct {
		span
		id int
	}
	var m matcher[int]
	var all []entry
	for i := range 20000 {
		switch {
		case len(all) > 60 || len(all) > 0 && rng.IntN(3) == 0:
			j := rng.IntN(len(all))
			m.remove(all[j].span, all[j].id)
			all = slices.Delete(all, j, j+1)
		default:
			end := word()
			if rng.IntN(5) == 0 {
				end = []byte{0}
			}
			s := newSpan(word(), end)
			if s.empty() {
				continue
			}
			m.add(s, i)
			all = append(all, entry{s, i})
		}
		key := word()
		var want []int
		for _, e := range all {
			if e.contains(key) {
				want = append(want, e.id)
			}
		}
		got := m.match(key, nil)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("step %d, key %q: got %v, want %v of %v", i, key, got, want, all)
		}
	}
	for _, e := range all {
		m.remove(e.span, e.id)
	}
	if len(m.keys) != 0 || m.root != nil {
		t.Error("an empty matcher holds something")
	}
}

// TestPublishBeforeExpose: when a revision becomes visible, the watchers that
// were there before have it queued, and nobody can register in between.
func TestPublishBeforeExpose(t *testing.T) {
	w := newWorld()
	r := record(w.hub.newStream())
	if _, err := r.watch(WatchRequest{Key: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	exposed := false
	w.hub.publish(2, w.apply(op{"a", "1"}), func() {
		exposed = true
		if len(r.stream.ready) != 1 || r.stream.ready[0].next != 2 {
			t.Errorf("the watcher has nothing queued: %+v", r.stream.ready)
		}
		if w.hub.mu.published != 2 {
			t.Errorf("a watch registered now would start after %d", w.hub.mu.published)
		}
		if w.hub.mu.TryLock() {
			t.Error("the lock of registrations is free")
		}
	})
	if !exposed {
		t.Error("nothing was exposed")
	}
}

// TestPublishRefusesDisorder: the apply thread's order is an invariant.
func TestPublishRefusesDisorder(t *testing.T) {
	for name, run := range map[string]func(w *world){
		"back": func(w *world) { w.hub.publish(4, nil, func() {}); w.hub.publish(3, nil, func() {}) },
		"old": func(w *world) {
			e := w.apply(op{"a", "1"})
			w.hub.publish(2, e, func() {})
			w.hub.publish(3, e, func() {})
		},
		"future":  func(w *world) { w.apply(op{"a", "1"}); w.hub.publish(2, w.apply(op{"a", "2"}), func() {}) },
		"resetup": func(w *world) { w.hub.publish(4, nil, func() {}); w.hub.reset(w, 3, func() {}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			run(newWorld())
		})
	}
}

// TestLogBounds: a stream that does not read costs a bounded amount, whatever
// is published.
func TestLogBounds(t *testing.T) {
	w := newWorld()
	w.hub.limits.logBytes, w.hub.limits.logEvents = 1<<20, 1<<17
	r := record(w.hub.newStream())
	if _, err := r.watch(WatchRequest{Key: []byte("a"), End: []byte{0}}); err != nil {
		t.Fatal(err)
	}
	value := string(make([]byte, 1000))
	for i := range 5000 {
		w.write(op{fmt.Sprint("a", i%10), value})
		if held := w.hub.mu.log.bytes; held > 1<<20+4096 {
			t.Fatalf("%d bytes held after %d events", held, i+1)
		}
	}
	if g := w.hub.mu.groups[groupKey{span: newSpan([]byte("a"), []byte{0})}]; len(g.seqs) > 5000 || cap(g.seqs) > 3*len(w.hub.mu.log.events) {
		t.Errorf("the group holds %d (%d) names for %d events", len(g.seqs), cap(g.seqs), len(w.hub.mu.log.events))
	}
	r.step()
	r.check(t, w.history())
	if len(w.hub.mu.log.events) != 0 || w.hub.mu.log.bytes != 0 {
		t.Errorf("everybody has everything, and %d events are held", len(w.hub.mu.log.events))
	}
}

// TestControlsAreBounded: a client that asks and does not read has to wait.
func TestControlsAreBounded(t *testing.T) {
	s := newWorld().hub.newStream()
	for range maxControls {
		s.Refuse("no")
	}
	waited := make(chan error, 1)
	go func() { waited <- s.Room(t.Context()) }()
	select {
	case err := <-waited:
		t.Fatalf("there was room: %v", err)
	default:
	}
	if _, err := s.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
}
