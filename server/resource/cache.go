package resource

import (
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/keelson-io/keelson/mvcc"
)

// collection is the cache of one resource: its objects as of a revision, and the
// changes that led there.
//
// Invariant: entries holds what the store has under the prefix at revision seen;
// every change with floor < rev <= seen is in the ring or has been pushed out of
// it, and then floor has risen.
type collection struct {
	kind *Kind // what is stored
	log  *slog.Logger
	// concern is told of changes that give controllers something to do.
	concern func()

	mu struct {
		sync.RWMutex
		loaded  bool
		need    int64         // loading must begin at this revision or later: earlier events were missed
		gone    bool          // nobody serves the kind any more
		pending []*mvcc.Event // arrived while the collection was being loaded
		entries []*entry      // by key
		bytes   int           // of the entries' objects
		shared  bool          // a reader holds entries: copy before changing it
		seen    int64         // the last change's revision, or the one of loading
		ring    ring
		bells   []*bell // of those who listen
	}
}

// newCollection makes a collection that is told of all events after revision need.
func newCollection(k *Kind, need int64, log *slog.Logger, concern func()) *collection {
	c := &collection{kind: k, log: log, concern: concern}
	c.mu.need = need
	return c
}

// snapshot is the entries of a moment, in order of their keys.
type snapshot struct {
	entries []*entry
	rev     int64
}

// snapshot returns the entries at a revision of at least applied, which the
// feed had applied before the call.
func (c *collection) snapshot(applied int64) snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.shared = true
	return snapshot{c.mu.entries, max(applied, c.mu.seen)}
}

// within cuts a snapshot to the keys that a selection can meet.
func (s snapshot) within(sel *Selection) []*entry {
	prefix, exact := sel.within()
	from, found := position(s.entries, prefix)
	if exact {
		if !found {
			return nil
		}
		return s.entries[from : from+1]
	}
	if prefix == "" {
		return s.entries
	}
	rest := s.entries[from:]
	n, _ := slices.BinarySearchFunc(rest, prefix, func(e *entry, prefix string) int {
		if strings.HasPrefix(e.key, prefix) {
			return -1
		}
		return 1
	})
	return rest[:n]
}

func position(entries []*entry, key string) (int, bool) {
	return slices.BinarySearchFunc(entries, key, func(e *entry, key string) int { return strings.Compare(e.key, key) })
}

// apply takes over the changes of one revision, in order, or keeps them until
// the collection is loaded.
func (c *collection) apply(events []*mvcc.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.loaded {
		c.mu.pending = append(c.mu.pending, events...)
		return
	}
	c.applyLocked(events)
}

func (c *collection) applyLocked(events []*mvcc.Event) {
	rev := int64(events[0].Rev)
	if rev <= c.mu.seen {
		return // loading has seen it
	}
	for _, ev := range events {
		c.changeLocked(ev)
	}
	c.mu.seen = rev
	c.ringLocked()
}

// changeLocked makes one change. A value that cannot be read is logged and counts
// as no object: others must not wait for it.
func (c *collection) changeLocked(ev *mvcc.Event) {
	key := string(ev.Key[len(c.kind.Prefix):])
	at, found := position(c.mu.entries, key)
	ch := &change{rev: int64(ev.Rev), key: key}
	if found {
		ch.old = c.mu.entries[at]
	}
	if !ev.Delete {
		e, err := newEntry(c.kind, key, valueOf(ev.KV), int64(ev.Rev))
		if err != nil {
			c.log.Error("an object cannot be read", "error", err)
		}
		ch.new = e
	}
	if ch.old == nil && ch.new == nil {
		return
	}
	c.ownLocked()
	c.mu.bytes += ch.new.size() - ch.old.size()
	switch {
	case ch.new == nil:
		c.mu.entries = slices.Delete(c.mu.entries, at, at+1)
	case found:
		c.mu.entries[at] = ch.new
	default:
		c.mu.entries = slices.Insert(c.mu.entries, at, ch.new)
	}
	c.mu.ring.push(ch)
	if ch.concerns(c.kind) {
		c.concern()
	}
}

// ownLocked makes sure that nobody else holds entries.
func (c *collection) ownLocked() {
	if c.mu.shared {
		c.mu.entries, c.mu.shared = append(make([]*entry, 0, len(c.mu.entries)+16), c.mu.entries...), false
	}
}

// load fills the collection from a state of the store, and applies what came
// meanwhile. Two may load at once, the one who asked first and the feed that begins
// again: the first to finish does it. It returns false when the state is too old.
func (c *collection) load(tx *mvcc.ReadTxn) (bool, error) {
	entries, err := readEntries(c.kind, tx, c.log)
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.loaded || int64(tx.At()) < c.mu.need {
		return c.mu.loaded, nil
	}
	c.mu.entries, c.mu.shared, c.mu.loaded = entries, false, true
	c.mu.bytes = 0
	for _, e := range entries {
		c.mu.bytes += e.size()
	}
	c.mu.seen = int64(tx.At())
	c.mu.ring.reset(c.mu.seen)
	pending := c.mu.pending
	c.mu.pending = nil
	eachRevision(pending, c.applyLocked)
	c.ringLocked()
	return true, nil
}

// end tells watchers that nothing will follow what they have not yet seen.
func (c *collection) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.gone = true
	c.ringLocked()
}

func (c *collection) size() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.bytes
}

// unload makes the collection wait for another load; its watchers go on from
// history. What it is told from now on follows revision need.
func (c *collection) unload(need int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.loaded, c.mu.need = false, need
	c.mu.pending = nil
}

// readEntries reads all objects of a kind from a state of the store.
func readEntries(k *Kind, tx *mvcc.ReadTxn, log *slog.Logger) ([]*entry, error) {
	var out []*entry
	var failed error
	tx.Scan([]byte(k.Prefix), prefixEnd(k.Prefix), func(it mvcc.Item) bool {
		rec, err := tx.Record(it)
		if err != nil {
			failed = err
			return false
		}
		e, err := newEntry(k, string(it.Key[len(k.Prefix):]), valueOf(rec), int64(it.Mod))
		if err != nil {
			log.Error("an object cannot be read", "error", err)
			return true
		}
		out = append(out, e)
		return true
	})
	return out, failed
}

// after appends the changes after a revision that the ring has. ok is false when the
// ring no longer reaches back that far; ended when nothing will follow.
func (c *collection) after(to []*change, rev int64) (changes []*change, ended, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.mu.loaded {
		return to, false, false
	}
	changes, ok = c.mu.ring.after(to, rev)
	return changes, c.mu.gone, ok
}

// eachRevision calls fn for the events of each revision.
func eachRevision(events []*mvcc.Event, fn func([]*mvcc.Event)) {
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].Rev == events[0].Rev {
			n++
		}
		fn(events[:n])
		events = events[n:]
	}
}

// prefixEnd is the key after all that begin with prefix.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++ // a prefix ends with a slash
	return end
}
