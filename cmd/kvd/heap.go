package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/server"
)

// Go's collector lets the heap grow to twice what lives before it looks for garbage:
// its work is then in proportion to what is allocated. Objects that the resource
// layer keeps for lists are one piece of memory each, without pointers, which costs it
// next to nothing; to give them their own size once more as room for garbage would
// double the process's memory for nothing. So the room is that of the rest, and at
// least roomForGarbage of all. And what a busy time has left over goes back to the
// system when it is over: nothing else would ask for it until the next one. That takes a
// collection, which looks at all that lives: so not more than once a minute.
const (
	usualGrowth    = 100 // percent of what lives, as without a GOGC
	roomForGarbage = 25  // percent, measured: docs/reports/resource-bench.md
	growthStep     = 10  // to change it stops the process for a moment
	smallHeap      = 64 << 20
	heapEvery      = time.Second
	// A process is quiet that allocates less than quietBytes between two looks, so many
	// times in a row; only more than that ends the time for which one collection is
	// enough.
	quietBytes = 4 << 20
	quietLooks = 3
	restLooks  = 60 // from one time that memory goes back to the next
)

// growthAtStart is how far the heap grows between two collections while a member opens
// its store, in percent. All of what that allocates is kept, so looking for garbage
// finds none, again and again: it was a tenth of the time.
const growthAtStart = 400

// openMember is server.New with a heap that grows fast, unless somebody sets GOGC.
func openMember(cfg server.Config) (*server.Server, error) {
	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(growthAtStart))
	}
	return server.New(cfg)
}

// heap decides on the room of the collector and on when memory goes back.
type heap struct {
	growth    int // percent
	allocated uint64
	quiet     int  // looks since it was busy
	rest      int  // looks until memory may go back again
	given     bool // it went back since it was busy
}

// heapState is what a look finds.
type heapState struct{ live, cached, allocated uint64 }

// look says what is to be done: set the growth, unless it is 0, and give memory back.
func (h *heap) look(s heapState) (growth int, giveBack bool) {
	if want := heapGrowth(s.live, s.cached); want-h.growth >= growthStep || h.growth-want >= growthStep {
		h.growth, growth = want, want
	}
	if s.allocated-h.allocated > quietBytes {
		h.quiet, h.given = 0, false
	} else {
		h.quiet++
	}
	h.allocated, h.rest = s.allocated, max(h.rest-1, 0)
	if h.quiet < quietLooks || h.given || h.rest > 0 || s.live < smallHeap {
		return growth, false
	}
	h.given, h.rest = true, restLooks
	return growth, true
}

// heapGrowth is by how many percent a heap may grow before the collector runs, of
// which live bytes are in use, cached of them without pointers.
func heapGrowth(live, cached uint64) int {
	if live < smallHeap {
		return usualGrowth
	}
	rest := live - min(cached, live)
	return max(int(usualGrowth*rest/live), roomForGarbage)
}

// tendHeap does so until ctx ends. Who sets GOGC has decided otherwise.
func tendHeap(ctx context.Context, clk clock.Clock, srv *server.Server) {
	if os.Getenv("GOGC") != "" {
		return
	}
	defer debug.SetGCPercent(usualGrowth)
	ticker := clk.NewTicker(heapEvery)
	defer ticker.Stop()
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	h := heap{growth: usualGrowth}
	for {
		select {
		case <-ticker.C():
		case <-ctx.Done():
			return
		}
		metrics.Read(samples)
		growth, giveBack := h.look(heapState{samples[0].Value.Uint64(), srv.CachedBytes(), samples[1].Value.Uint64()})
		if growth > 0 {
			debug.SetGCPercent(growth)
		}
		if giveBack {
			debug.FreeOSMemory()
		}
	}
}
