package mvcc

import (
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Page is some neighbouring keys as lists answer them: for each live one, in
// order, its checked record as field 2 of a message, which is the field kvs of a
// RangeResponse. Bytes is shared and must not be changed; it stays valid.
type Page struct {
	Bytes []byte
	Keys  int
}

const (
	fieldPage = 2
	// pageBudget bounds the pages kept. Those that are used stay: a list that is
	// longer finds its beginning here each time, rather than nothing.
	pageBudget = 64 << 20
	// pageLife is how long a page is kept that nobody asks for.
	pageLife = 10 * time.Second
	// maxPages bounds the entries, marks of leaves that were read once included.
	maxPages = 1 << 16
)

// pageCache keeps the pages of leaves that lists read again: the records are then
// neither looked up nor checked nor copied another time, and all lists share the
// bytes. A leaf that has been handed out never changes, so a page is right for as
// long as the leaf is in the index that is read; what a write replaces is not
// asked for again and ages.
type pageCache struct {
	mu struct {
		sync.Mutex
		pages map[*leaf]*pageEntry
		bytes int
		now   time.Time // of the last expire
	}
}

type pageEntry struct {
	page Page // no Bytes: the leaf was read, once
	used time.Time
}

// get returns the page of a leaf. Without one it tells whether the leaf was read
// before, and so is worth a page, and remembers that it was read now.
func (c *pageCache) get(n *leaf) (p Page, ok, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.mu.pages[n]
	if e == nil {
		if len(c.mu.pages) < maxPages {
			if c.mu.pages == nil {
				c.mu.pages = map[*leaf]*pageEntry{}
			}
			c.mu.pages[n] = &pageEntry{used: c.mu.now}
		}
		return Page{}, false, false
	}
	e.used = c.mu.now
	return e.page, e.page.Bytes != nil, c.mu.bytes < pageBudget
}

// add keeps the page of a leaf, unless another reader was first.
func (c *pageCache) add(n *leaf, p Page) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.mu.pages[n]; e != nil && e.page.Bytes == nil && c.mu.bytes < pageBudget {
		e.page = p
		c.mu.bytes += cap(p.Bytes)
	}
}

// expire drops what nobody has asked for lately.
func (c *pageCache) expire(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, e := range c.mu.pages {
		if now.Sub(e.used) > pageLife && !e.used.IsZero() {
			c.mu.bytes -= cap(e.page.Bytes)
			delete(c.mu.pages, n)
		} else if e.used.IsZero() {
			e.used = now
		}
	}
	c.mu.now = now
}

// ScanPages is Scan for a caller that sends records on: page is given the keys of
// whole leaves that are read often, item each of the others. At most limit keys
// come in pages, unless it is 0. Either ends the scan by returning false.
func (t *ReadTxn) ScanPages(key, end []byte, limit int64, page func(Page) bool, item func(Item) bool) {
	left := limit
	whole := func(n *leaf, drain func() bool) (done, goOn bool) {
		if !t.exact {
			return false, true
		}
		p, ok, again := t.s.pages.get(n)
		if !ok && !again {
			return false, true
		}
		if !drain() {
			return true, false
		}
		if limit > 0 && int64(n.count()) > left {
			return false, true
		}
		if !ok {
			if p, ok = t.page(n); !ok {
				return false, true // the caller learns why from the record itself
			}
			t.s.pages.add(n, p)
		}
		left -= int64(p.Keys)
		return true, page(p)
	}
	t.reader.scanLeaves(key, end, whole, func(it Item) bool {
		left--
		return item(it)
	})
}

// page encodes a leaf; false when a record cannot be had.
func (t *ReadTxn) page(n *leaf) (Page, bool) {
	var recs [leafCap]Record
	p, size := Page{}, 0
	for _, it := range n.items[:n.n] {
		if it.tomb {
			continue
		}
		rec, err := t.own.record(it.rev())
		if err != nil {
			return Page{}, false
		}
		recs[p.Keys] = rec
		p.Keys++
		size += 1 + protowire.SizeBytes(len(rec))
	}
	p.Bytes = make([]byte, 0, size)
	for _, rec := range recs[:p.Keys] {
		p.Bytes = protowire.AppendTag(p.Bytes, fieldPage, protowire.BytesType)
		p.Bytes = protowire.AppendBytes(p.Bytes, rec)
	}
	return p, true
}
