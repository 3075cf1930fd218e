package resource

import (
	"slices"
	"sync"

	"github.com/keelson-io/keelson/server/lane"
)

// crowd are the watches of a collection that share a connection, and write to it past
// net/http. One of them is woken for all: to wake a goroutine for each costs more than what
// it does. While a watch waits it is a member, and the first member, who leads, sends what
// it is to see. Whoever cannot go on without waiting for its client, and whoever has something
// to do of its own, leaves and does it in its own goroutine.
//
// Invariant: the bell of the leader, and of each watch that is no member, is listed with the
// collection. A member's watcher belongs to who holds mu.
type crowd struct {
	mu      sync.Mutex
	members []*watcher
}

// crowds are all crowds that have watches.
type crowds struct {
	mu struct {
		sync.Mutex
		all map[crowdKey]*crowdPlaces
	}
}

type crowdKey struct {
	conn *lane.Conn
	coll *collection
}

type crowdPlaces struct {
	crowd
	watches int
}

// enter gives the crowd of a connection's watches; leave must be called when one ends.
func (cs *crowds) enter(key crowdKey) (c *crowd, leave func()) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	p := cs.mu.all[key]
	if p == nil {
		if cs.mu.all == nil {
			cs.mu.all = map[crowdKey]*crowdPlaces{}
		}
		p = &crowdPlaces{}
		cs.mu.all[key] = p
	}
	p.watches++
	return &p.crowd, func() {
		cs.mu.Lock()
		defer cs.mu.Unlock()
		if p.watches--; p.watches == 0 {
			delete(cs.mu.all, key)
		}
	}
}

// wait returns when the watch has something to do in its own goroutine.
func (w *watcher) wait() {
	if w.crowd == nil || !w.out.past.Ready(w.out.given) {
		<-w.bell.rung
		return
	}
	w.crowd.join(w)
	for <-w.bell.rung; w.crowd.lead(w); <-w.bell.rung {
	}
}

func (c *crowd) join(w *watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.members = append(c.members, w); len(c.members) > 1 {
		w.coll.leave(w.bell)
	}
}

// lead sends all members what has happened, if w leads and has nothing else to do. Otherwise
// it makes it leave.
func (c *crowd) lead(w *watcher) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.members) == 0 || c.members[0] != w || w.alarm.Load() || w.over() {
		c.leaveLocked(w)
		return false
	}
	var seen look
	for _, m := range slices.Backward(c.members) {
		if !m.step(&seen) {
			c.leaveLocked(m)
			m.bell.ring()
		}
	}
	w.out.past.Flush()
	return true // if it left, its bell rings
}

// leaveLocked makes a member leave, if it is one.
func (c *crowd) leaveLocked(w *watcher) {
	at, last := slices.Index(c.members, w), len(c.members)-1
	if at < 0 {
		return
	}
	c.members[at] = c.members[last]
	c.members[last] = nil
	c.members = c.members[:last]
	switch {
	case at > 0:
		w.coll.list(w.bell)
	case last > 0:
		next := c.members[0]
		next.coll.list(next.bell)
		next.bell.ring() // who led may not have seen all
	}
}

// look is what a collection has after a revision.
type look struct {
	taken     bool
	at        int64
	applied   int64
	losses    uint64
	changes   []*change
	ended, ok bool
}

func (l *look) take(w *watcher) {
	if l.taken && l.at == w.at {
		return
	}
	layer := w.call.layer
	l.taken, l.at, l.applied, l.losses = true, w.at, layer.feed.revision(), layer.pulse.losses.Load()
	l.changes, l.ended, l.ok = w.coll.after(l.changes[:0], w.at)
}

// step sends what has happened since at, as far as it can be sent at once. It returns
// false if the watch must do the rest itself.
func (w *watcher) step(seen *look) bool {
	// Nothing of the request is looked at: its end rings the watch's own bell.
	seen.take(w)
	if !seen.ok || seen.ended || seen.losses != w.losses {
		return false
	}
	for i, ch := range seen.changes {
		if i+1 < len(seen.changes) && seen.changes[i+1].rev == ch.rev {
			return false // a revision is sent as a whole
		}
		if line := w.line(ch); line != nil && !w.out.try(line) {
			return false
		}
		w.at = ch.rev
	}
	w.at = max(w.at, seen.applied)
	return true
}
