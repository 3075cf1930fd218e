package main

import "testing"

// TestHeapGrowth gives what is cached no room for garbage, and the rest as much as
// it has.
func TestHeapGrowth(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		live, cached uint64
		want         int
	}{
		{0, 0, 100},
		{20 * mib, 19 * mib, 100}, // not worth it
		{1000 * mib, 0, 100},
		{1000 * mib, 400 * mib, 60},
		{1000 * mib, 900 * mib, 25},
		{1000 * mib, 2000 * mib, 25}, // loaded since the collector looked
	} {
		if got := heapGrowth(c.live, c.cached); got != c.want {
			t.Errorf("%d MiB, %d MiB of them cached: %d%%, want %d%%", c.live/mib, c.cached/mib, got, c.want)
		}
	}
}

// TestMemoryGoesBack once after each busy time.
func TestMemoryGoesBack(t *testing.T) {
	const mib = 1 << 20
	h := heap{growth: usualGrowth}
	state := heapState{live: 200 * mib, cached: 180 * mib}
	look := func(allocated uint64) bool {
		state.allocated += allocated
		_, back := h.look(state)
		return back
	}
	for busy := range 3 {
		for range 5 {
			if look(100 * mib) {
				t.Fatalf("busy time %d: memory goes back in its middle", busy)
			}
		}
		times := 0
		for range 20 {
			if look(mib) {
				times++
			}
		}
		if times != 1 {
			t.Errorf("after busy time %d memory went back %d times", busy, times)
		}
	}
	if h.growth != roomForGarbage {
		t.Errorf("the heap may grow by %d%%", h.growth)
	}
	state.live = mib
	for range 20 {
		if look(0) {
			t.Error("a small heap was given back")
		}
	}
}
