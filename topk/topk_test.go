package topk

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// check holds a sketch against the exact counts.
func check(t *testing.T, s *Sketch[int], truth map[string]uint64, n uint64) {
	t.Helper()
	sum, last := uint64(0), ^uint64(0)
	found := map[string]bool{}
	for _, e := range s.Entries() {
		found[e.Key] = true
		sum += e.Count
		if real := truth[e.Key]; real > e.Count || e.Count-e.Over > real || e.Over > n/uint64(s.room) {
			t.Fatalf("%s: count %d, over %d, truth %d of %d", e.Key, e.Count, e.Over, real, n)
		}
		if e.Note < 1 || uint64(e.Note) > e.Count {
			t.Fatalf("%s: note %d, count %d", e.Key, e.Note, e.Count)
		}
		if e.Count > last {
			t.Fatalf("%s: %d comes after %d", e.Key, e.Count, last)
		}
		last = e.Count
	}
	if sum != n || len(found) > s.room {
		t.Fatalf("the counts of %d keys sum up to %d of %d", len(found), sum, n)
	}
	for key, real := range truth {
		if real > n/uint64(s.room) && !found[key] {
			t.Fatalf("%s was seen %d times of %d and is not found", key, real, n)
		}
	}
}

func TestAgainstExactCounts(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		zipf := rand.NewZipf(r, 1.1+r.Float64(), 1, 5000)
		s, truth := New[int](1+r.IntN(100)), map[string]uint64{}
		for n := range uint64(20_000) {
			key := fmt.Sprint("k", zipf.Uint64())
			truth[key]++
			*s.Add([]byte(key))++
			if n%997 == 0 {
				check(t, s, truth, n+1)
			}
		}
		check(t, s, truth, 20_000)
	}
}

func TestEmpty(t *testing.T) {
	if s := New[int](0); len(s.Entries()) != 0 || s.room != 1 {
		t.Error("a new sketch is not empty")
	}
}

func BenchmarkAdd(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	zipf := rand.NewZipf(r, 1.2, 1, 1<<20)
	keys := make([][]byte, 1<<16)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "/registry/pods/default/pod-%d", zipf.Uint64())
	}
	s := New[int](512)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.Add(keys[i%len(keys)])
	}
}
