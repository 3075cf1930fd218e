package mvcc

import (
	"fmt"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
)

// groupKey is what watchers have in common that get the same bytes.
type groupKey struct {
	span
	noPut, noDelete bool
	prev            bool
}

// skips reports whether the filters refuse the event.
func (k groupKey) skips(e *Event) bool {
	if e.Delete {
		return k.noDelete
	}
	return k.noPut
}

// group is the queue of events for all feeds of one key. Guarded by hub.mu.
type group struct {
	key    groupKey
	serial int64 // groups in the order of their beginnings
	feeds  []*feed
	armed  []*feed // the feeds in that state

	// seqs names the events that matched, by position: seqs[i] is at base+i.
	// Those that no feed is at any more are dropped now and then.
	base int64
	seqs []int64

	// The last batch taken: streams that read at the same pace share it, and
	// its encoding with it.
	shared struct {
		from, to int64
		batch    *Batch
	}
}

func (g *group) end() int64 { return g.base + int64(len(g.seqs)) }

type feedState uint8

const (
	feedArmed feedState = iota + 1
	feedPending
	feedLagging
)

// feed is the watchers of one stream and one group that have seen the same
// events. Guarded by hub.mu.
type feed struct {
	stream *WatchStream
	key    groupKey
	state  feedState
	queued bool // in stream.ready

	// watchers only grows in place; a removal makes a new slice, so that the
	// sender may walk an old one without the lock.
	watchers []*watcher

	group   *group       // nil while lagging
	slot    int          // in group.feeds
	armedAt int          // in group.armed, while armed
	cursor  int64        // while pending: position in the group of the next event
	next    api.Revision // while pending or lagging: every event below was taken
}

// appendLocked queues an event for the group's feeds.
func (h *hub) appendLocked(g *group, seq int64, rev api.Revision) {
	switch {
	case len(g.armed) == len(g.feeds): // nobody is at an older one
		g.base, g.seqs = g.end(), g.seqs[:0]
	case len(g.seqs) == cap(g.seqs):
		gone := 0
		for gone < len(g.seqs) && g.seqs[gone] < h.mu.log.first {
			gone++
		}
		g.seqs = append(g.seqs[:0], g.seqs[gone:]...)
		g.base += int64(gone)
	}
	at := g.end()
	g.seqs = append(g.seqs, seq)
	for _, f := range g.armed {
		f.state, f.cursor, f.next = feedPending, at, rev
		f.stream.queueLocked(f)
		h.notifyLocked(f.stream)
	}
	h.mu.pending += len(g.armed)
	g.armed = g.armed[:0]
}

// attachLocked puts a feed that has everything published into its group. When
// the stream has a feed there already, that one takes the watchers over.
func (h *hub) attachLocked(f *feed) {
	for _, w := range f.watchers {
		w.floor = max(w.floor, h.mu.published+1)
		if planted.FutureStartNow {
			w.floor = h.mu.published + 1
		}
	}
	if into := f.stream.synced[f.key]; into != nil {
		for _, w := range f.watchers {
			w.feed = into
		}
		into.watchers = append(into.watchers, f.watchers...)
		return
	}
	g := h.mu.groups[f.key]
	if g == nil {
		h.mu.serial++
		g = &group{key: f.key, serial: h.mu.serial}
		h.mu.groups[f.key] = g
		h.mu.match.add(f.key.span, g)
	}
	f.stream.synced[f.key] = f
	f.group, f.slot = g, len(g.feeds)
	g.feeds = append(g.feeds, f)
	h.armLocked(f)
}

func (h *hub) armLocked(f *feed) {
	f.state, f.armedAt = feedArmed, len(f.group.armed)
	f.group.armed = append(f.group.armed, f)
}

// detachLocked takes a feed out of its group, which ends with its last feed.
func (h *hub) detachLocked(f *feed) {
	g := f.group
	last := g.feeds[len(g.feeds)-1]
	g.feeds[f.slot], last.slot = last, f.slot
	g.feeds = g.feeds[:len(g.feeds)-1]
	switch f.state {
	case feedArmed:
		last := g.armed[len(g.armed)-1]
		g.armed[f.armedAt], last.armedAt = last, f.armedAt
		g.armed = g.armed[:len(g.armed)-1]
	case feedPending:
		if f.queued {
			f.stream.ready = without(f.stream.ready, f)
			f.queued = false
		}
		h.takenLocked()
	default:
		panic(fmt.Sprintf("watch hub: detaching a feed in state %d", f.state))
	}
	delete(f.stream.synced, f.key)
	f.group = nil
	if len(g.feeds) == 0 {
		delete(h.mu.groups, g.key)
		h.mu.match.remove(g.key.span, g)
	}
}

// takenLocked notes that a feed is not pending any more.
func (h *hub) takenLocked() {
	if h.mu.pending--; h.mu.pending == 0 {
		h.mu.log.clear()
	}
}

// fallBehindLocked makes a synced feed read history from next on.
func (h *hub) fallBehindLocked(f *feed, next api.Revision) {
	h.detachLocked(f)
	if next > h.mu.published {
		h.attachLocked(f)
		return
	}
	h.lagLocked(f, next)
	h.notifyLocked(f.stream)
}

// lagLocked makes a feed that is in no group read history.
func (h *hub) lagLocked(f *feed, next api.Revision) {
	f.state, f.next = feedLagging, next
	f.stream.lagging = append(f.stream.lagging, f)
	h.mu.stats.Slow += len(f.watchers)
}

// takeLocked takes the next events of a pending feed, at most about
// limits.batchBytes and whole revisions. It returns nil when they have fallen out
// of the log. A feed that took everything is armed.
func (h *hub) takeLocked(f *feed) *Batch {
	g := f.group
	from := f.cursor - g.base
	if from < 0 || g.seqs[from] < h.mu.log.first {
		return nil
	}
	if last := int64(len(g.seqs)); planted.DropWhenBehind && last-from > 4 {
		from = last - 4
	}
	to, bytes := from, 0
	for ; to < int64(len(g.seqs)); to++ {
		e := h.mu.log.get(g.seqs[to])
		if bytes >= h.limits.batchBytes && e.Rev != h.mu.log.get(g.seqs[to-1]).Rev || planted.SplitRevision && to > from {
			break
		}
		bytes += e.WireSize(g.key.prev)
	}
	batch := h.sharedBatchLocked(g, from, to)
	if to == int64(len(g.seqs)) {
		h.armLocked(f)
		h.takenLocked()
		if len(g.armed) == len(g.feeds) {
			g.shared.batch = nil // nobody else comes for it; let the events go
		}
		return batch
	}
	f.cursor, f.next = g.base+to, h.mu.log.get(g.seqs[to]).Rev
	return batch
}

func (h *hub) sharedBatchLocked(g *group, from, to int64) *Batch {
	if g.shared.batch != nil && g.shared.from == g.base+from && g.shared.to == g.base+to {
		return g.shared.batch
	}
	events := make([]*Event, to-from)
	for i := range events {
		events[i] = h.mu.log.get(g.seqs[from+int64(i)])
	}
	batch := newBatch(events, g.key.prev)
	g.shared.from, g.shared.to, g.shared.batch = g.base+from, g.base+to, batch
	return batch
}

// allBehindLocked makes all feeds of a group read history; the armed ones have
// everything below rev.
func (h *hub) allBehindLocked(g *group, rev api.Revision) {
	for len(g.feeds) > 0 {
		f := g.feeds[0]
		next := f.next
		if f.state == feedArmed {
			next = rev
		}
		h.detachLocked(f)
		h.lagLocked(f, next)
		h.notifyLocked(f.stream)
	}
}
