package mvcc

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
)

// watchSource is what the hub needs of the store behind it.
type watchSource interface {
	// History calls fn for the events with from <= Rev <= to, in the order of
	// (Rev, Sub), until fn returns false. It returns ErrCompacted when from is
	// below the compact revision or when compaction overtakes the read; at the
	// compact revision itself everything is there, tombstones too. Events and
	// their bytes live on after the call; FixPrev works inside fn.
	History(from, to api.Revision, fn func(*Event) bool) error
	// CompactRevision is the revision below which history is gone.
	CompactRevision() api.Revision
}

// hub hands published events to watchers.
//
// # Model
//
// Watchers that want the same (span, filters, previous values) share a group.
// A stream's watchers of one group that have seen the same things share a feed.
// A feed is in one of three states:
//
//	armed    everything published was taken; the next event of the group makes
//	         it pending and wakes its stream
//	pending  the group has events from cursor on that it has not taken
//	lagging  it is not in the group: its stream reads history from next on
//
// publish appends an event to the shared log and its sequence number to each
// matching group: the cost depends on groups and armed feeds, not on watchers,
// and a stream that does not read costs nothing. A pending feed whose events
// fell out of the log becomes lagging; so do all at a reset.
//
// # Invariants
//
//	a feed that is armed has every event <= published
//	a feed that is pending has every event < next, and next is in its group
//	a feed that is lagging has every event < next, and next <= published
//	a watcher gets no event below its floor: its start, or what it has already
type hub struct {
	limits hubLimits

	mu struct {
		sync.Mutex
		source    watchSource  // changes when a snapshot is installed
		published api.Revision // every event <= published is queued or readable as history
		groups    map[groupKey]*group
		serial    int64 // of the last group
		match     matcher[*group]
		log       eventLog
		pending   int      // feeds in that state; at 0 nobody needs the log
		hits      []*group // scratch of queueLocked
		stats     HubStats
	}

	wake []*WatchStream // owned by publish: streams that wait and have something now
}

// HubStats are figures for metrics.
type HubStats struct {
	Streams  int
	Watchers int
	Slow     int   // watchers that read history
	Events   int64 // published, matched or not
	Pending  int   // events kept for watchers that have not taken them
}

func newHub(source watchSource, published api.Revision) *hub {
	h := &hub{limits: defaultHubLimits}
	h.mu.source = source
	h.mu.published = published
	h.mu.groups = make(map[groupKey]*group)
	return h
}

// publish queues events, which are all those in (published, rev] in order, to
// the watchers registered before, then calls expose, which makes rev visible to
// readers, all under the lock that registrations take. So nobody can learn of
// rev before a watcher registered earlier has it queued. Called by the apply
// goroutine only.
func (h *hub) publish(rev api.Revision, events []*Event, expose func()) {
	h.mu.Lock()
	if rev < h.mu.published {
		panic(fmt.Sprintf("watch hub: published revision goes back from %d to %d", h.mu.published, rev))
	}
	last := h.mu.published
	for _, e := range events {
		if e.Rev <= h.mu.published || e.Rev < last || e.Rev > rev {
			panic(fmt.Sprintf("watch hub: event of revision %d after %d in (%d, %d]", e.Rev, last, h.mu.published, rev))
		}
		last = e.Rev
		h.queueLocked(e)
	}
	h.mu.stats.Events += int64(len(events))
	h.mu.published = rev
	expose()
	h.mu.Unlock()
	h.wakeAll()
}

// reset replaces the store, as an installed snapshot does: the revisions
// between the old state and rev are history that nobody was told. Every watcher
// reads what it lacks; whom compaction overtook is cancelled. Called by the
// apply goroutine only.
func (h *hub) reset(source watchSource, rev api.Revision, expose func()) {
	h.mu.Lock()
	h.mu.source = source
	old := h.mu.published
	if rev < old {
		panic(fmt.Sprintf("watch hub: reset goes back from %d to %d", old, rev))
	}
	var feeds []*feed
	// A simulation must see the same order whenever it runs.
	for _, g := range slices.SortedFunc(maps.Values(h.mu.groups), func(a, b *group) int { return cmp.Compare(a.serial, b.serial) }) {
		feeds = append(feeds, g.feeds...)
	}
	h.mu.published = rev
	expose()
	if planted.WatcherLost {
		feeds = nil
	}
	for _, f := range feeds {
		next := f.next
		if f.state == feedArmed {
			next = old + 1
		}
		h.fallBehindLocked(f, next)
	}
	h.mu.Unlock()
	h.wakeAll()
}

// maxDirectWakes bounds the streams that the apply goroutine wakes itself, at a
// fraction of a microsecond each.
const maxDirectWakes = 64

// wakeAll wakes the streams that publish found waiting. Outside the lock, so
// that they do not run into it. When many wait, a goroutine that does nothing
// else and ends at once wakes the rest: writes do not wait for it.
func (h *hub) wakeAll() {
	direct := h.wake
	if len(direct) > maxDirectWakes {
		rest := slices.Clone(direct[maxDirectWakes:])
		direct = direct[:maxDirectWakes]
		go signalAll(rest)
	}
	signalAll(direct)
	clear(h.wake)
	h.wake = h.wake[:0]
}

func signalAll(streams []*WatchStream) {
	for _, s := range streams {
		s.signal()
	}
}

// queueLocked gives the event to the groups that match it.
func (h *hub) queueLocked(e *Event) {
	h.mu.hits = h.mu.match.match(e.Key, h.mu.hits[:0])
	var wanted, wantPrev bool
	for _, g := range h.mu.hits {
		wanted = wanted || !g.key.skips(e)
		wantPrev = wantPrev || g.key.prev && !g.key.skips(e)
	}
	if !wanted {
		return
	}
	var failed error
	if wantPrev {
		failed = e.FixPrev()
	}
	seq := h.mu.log.append(e, &h.limits)
	for _, g := range h.mu.hits {
		switch {
		case g.key.skips(e):
		case g.key.prev && failed != nil:
			// The feeds find out from history whether it is compaction or
			// damage; either ends only the watches that need this value.
			h.allBehindLocked(g, e.Rev)
		default:
			h.appendLocked(g, seq, e.Rev)
		}
	}
	clear(h.mu.hits)
}

// notifyLocked makes publish wake the stream if it waits.
func (h *hub) notifyLocked(s *WatchStream) {
	if s.waiting {
		s.waiting = false
		h.wake = append(h.wake, s)
	}
}

func (h *hub) statsNow() HubStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	st := h.mu.stats
	st.Pending = len(h.mu.log.events)
	return st
}
