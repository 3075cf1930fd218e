package main

import (
	"slices"
	"testing"
)

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

// TestMemoryGoesBack once after each busy time, but not more than once a minute.
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
		var times []int
		for n := range 2 * restLooks {
			if look(mib) {
				times = append(times, n)
			}
		}
		if !slices.Equal(times, []int{quietLooks - 1}) {
			t.Errorf("after busy time %d memory went back at the looks %v", busy, times)
		}
	}
	last := -restLooks
	for n := range 10 * restLooks { // four quiet looks follow each busy one
		if look([]uint64{100 * mib, 0, 0, 0, 0}[n%5]) {
			if n-last < restLooks {
				t.Errorf("memory went back at look %d, and had at %d", n, last)
			}
			last = n
		}
	}
	if last < 8*restLooks {
		t.Errorf("short quiet times: memory went back at look %d for the last time", last)
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
