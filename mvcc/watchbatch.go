package mvcc

import (
	"slices"
	"sync/atomic"

	"github.com/keelson-io/keelson/api"
)

// maxJoinedBytes is up to where a batch's events are copied into one buffer:
// one buffer costs gRPC less than many, and watchers of one group share it.
const maxJoinedBytes = 64 << 10

// Batch is a run of events for one or more watchers: whole revisions, rising.
// It does not change and may be used by any goroutine.
type Batch struct {
	Events []*Event
	// PrevKV tells which form of the events goes on the wire.
	PrevKV bool
	// Revision is the header's: every event of the watch up to it has been sent
	// when this batch has been.
	Revision api.Revision

	wire atomic.Pointer[[][]byte]
}

func newBatch(events []*Event, prev bool) *Batch {
	return &Batch{Events: events, PrevKV: prev, Revision: events[len(events)-1].Rev}
}

// Size returns the bytes of Wire, exactly.
func (b *Batch) Size() int {
	n := 0
	for _, w := range b.Wire() {
		n += len(w)
	}
	return n
}

// Wire returns the encoded elements of WatchResponse.events in one or more
// pieces. It is made once; the slices are shared and must not be changed.
func (b *Batch) Wire() [][]byte {
	if w := b.wire.Load(); w != nil {
		return *w
	}
	pieces := make([][]byte, len(b.Events))
	size := 0
	for i, e := range b.Events {
		pieces[i] = e.Wire(b.PrevKV)
		size += len(pieces[i])
	}
	if len(pieces) > 1 && size <= maxJoinedBytes {
		pieces = [][]byte{slices.Concat(pieces...)}
	}
	b.wire.Store(&pieces)
	return pieces
}

// from returns the part of the batch from revision floor on; nil when nothing
// is left.
func (b *Batch) from(floor api.Revision) *Batch {
	if b.Events[0].Rev >= floor {
		return b
	}
	i, _ := slices.BinarySearchFunc(b.Events, floor, func(e *Event, r api.Revision) int { return int(e.Rev - r) })
	if i == len(b.Events) {
		return nil
	}
	return &Batch{Events: b.Events[i:], PrevKV: b.PrevKV, Revision: b.Revision}
}

// approxSize is Size within some framing, without encoding anything.
func (b *Batch) approxSize() int {
	n := 0
	for _, e := range b.Events {
		n += e.WireSize(b.PrevKV)
	}
	return n
}
