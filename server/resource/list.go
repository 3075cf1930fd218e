package resource

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/server/resource/object"
)

// page is the answer to a list, before it is written.
type page struct {
	entries   []*entry
	rev       int64
	next      string // continue token
	remaining int64  // after this page; -1: not told
}

// list answers GET of a collection.
func (c *call) list() error {
	if err := c.form.fits(true); err != nil {
		return err
	}
	p, err := c.selected()
	if err != nil {
		return err
	}
	return c.sendList(p)
}

// selected is the page of the collection that the query asks for.
func (c *call) selected() (*page, error) {
	o, err := listOptionsOf(c.query)
	if err != nil {
		return nil, err
	}
	sel, err := selectionOf(c.kind, c.Namespace, o.labels, o.fields)
	if err != nil {
		return nil, err
	}
	return c.layer.page(c.ctx, sel, o)
}

// page reads what a list asks for. Which revision it may be told of is a table:
//
//	resourceVersion  match         limit  from
//	""               ""            any    the newest state there is
//	"0"              "" NotOlder   –      what the cache has
//	n                "" NotOlder   0, any the cache, once it has n
//	n                ""            > 0    the store at n
//	n                Exact         any    the store at n
//	continue                       any    the store at the token's revision
func (l *Layer) page(ctx context.Context, sel *Selection, o *listOptions) (*page, error) {
	switch {
	case o.start != nil && o.start.rev > 0:
		p, err := l.pageAt(sel, o.start.rev, o.start.start, o.limit)
		if errors.Is(err, mvcc.ErrCompacted) {
			f := expired(continueTooOld)
			f.Continue = continueToken(-1, o.start.start)
			return nil, f
		}
		return p, err
	case o.match == matchExact, o.rev > 0 && o.match == "" && o.limit > 0 && o.start == nil:
		return l.pageAt(sel, o.rev, "", o.limit)
	}
	s, err := l.snapshot(ctx, sel.kind, o.version)
	if err != nil {
		return nil, err
	}
	entries, start := s.within(sel), ""
	if o.start != nil {
		start = o.start.start
		prefix, _ := sel.within()
		from, _ := position(entries, prefix+start)
		entries = entries[from:]
	}
	limit := o.limit
	if o.version == "0" {
		limit = 0
	}
	return cut(sel, entries, s.rev, limit), nil
}

const continueTooOld = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the " +
	"continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided " +
	"token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned " +
	"and now may show up in the list."

// cut takes the selected entries up to a limit (0: none).
func cut(sel *Selection, entries []*entry, rev, limit int64) *page {
	p := &page{rev: rev, remaining: -1}
	if !sel.selective() && (limit == 0 || int64(len(entries)) <= limit) {
		p.entries = entries
		return p
	}
	for i, e := range entries {
		if !sel.matches(e) {
			continue
		}
		if limit > 0 && int64(len(p.entries)) == limit {
			p.continueAfter(sel, rev)
			if !sel.selective() {
				p.remaining = int64(len(entries) - i)
			}
			return p
		}
		p.entries = append(p.entries, e)
	}
	return p
}

// continueAfter says that the list goes on behind the page's last entry.
func (p *page) continueAfter(sel *Selection, rev int64) {
	prefix, _ := sel.within()
	last := p.entries[len(p.entries)-1].key
	p.next = continueToken(rev, strings.TrimPrefix(last, prefix)+"\x00")
}

// pageAt reads from the store at a revision: start is where a continued list goes
// on, below the selection's prefix.
func (l *Layer) pageAt(sel *Selection, rev int64, start string, limit int64) (*page, error) {
	tx, err := l.store.Read(api.Revision(rev))
	if errors.Is(err, mvcc.ErrFutureRevision) {
		return nil, tooLarge(rev, l.feed.revision())
	}
	if err != nil {
		return nil, err
	}
	defer tx.Release()
	storage := l.storage(sel.kind)
	prefix, exact := sel.within()
	from, end := storage.Prefix+prefix, prefixEnd(storage.Prefix)
	switch {
	case exact:
		end = nil
	case prefix != "":
		end = prefixEnd(from)
	}
	p := &page{rev: rev, remaining: -1}
	var failed error
	tx.Scan([]byte(from+start), end, func(it mvcc.Item) bool {
		if limit > 0 && int64(len(p.entries)) == limit {
			p.continueAfter(sel, rev)
			if !sel.selective() {
				p.remaining = int64(tx.Count(it.Key, end))
			}
			return false
		}
		rec, err := tx.Record(it)
		if err != nil {
			failed = err
			return false
		}
		e, err := newEntry(storage, string(it.Key[len(storage.Prefix):]), valueOf(rec), int64(it.Mod))
		if err != nil {
			l.log.Error("an object cannot be read", "error", err)
		} else if sel.matches(e) {
			p.entries = append(p.entries, e)
		}
		return true
	})
	if failed == nil && p.next != "" {
		tx.Pin()
	}
	return p, failed
}

// snapshot returns a kind's objects as fresh as version asks: "" is everything
// that was acknowledged before the call, "0" is anything.
func (l *Layer) snapshot(ctx context.Context, k *Kind, version string) (snapshot, error) {
	c, err := l.feed.collection(ctx, l.storage(k))
	if err != nil {
		return snapshot{}, err
	}
	applied, err := l.freshen(ctx, version)
	if err != nil {
		return snapshot{}, err
	}
	return c.snapshot(applied), nil
}

// freshen waits until the caches are as fresh as version asks, and returns what
// they have.
func (l *Layer) freshen(ctx context.Context, version string) (int64, error) {
	switch version {
	case "0":
		return l.anything(ctx)
	case "":
		return l.upToDate(ctx)
	}
	rev, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return 0, unreadable("resourceVersion", version)
	}
	if applied := l.feed.revision(); applied >= rev {
		return applied, nil
	}
	ctx, stop := l.withTimeout(ctx, freshTimeout)
	defer stop()
	// Another member may have it: ask how far the cluster is, then wait for that.
	if l.store.Barrier(ctx) == nil {
		if applied, err := l.feed.waitFor(ctx, rev); err == nil {
			return applied, nil
		}
	}
	return 0, tooLarge(rev, l.feed.revision())
}

// anything waits until this member has caught up with the cluster once since it
// began.
func (l *Layer) anything(ctx context.Context) (int64, error) {
	if applied := l.feed.revision(); applied > 0 {
		return applied, nil
	}
	ctx, stop := l.withTimeout(ctx, freshTimeout)
	defer stop()
	applied, err := l.feed.waitFor(ctx, 1) // the revision of an empty store
	if err != nil {
		err = tooMany("storage is (re)initializing")
	}
	return applied, err
}

// upToDate waits until the caches have everything that was acknowledged anywhere
// before the call.
func (l *Layer) upToDate(ctx context.Context) (int64, error) {
	if err := l.store.Barrier(ctx); err != nil {
		return 0, err
	}
	rev, err := l.published()
	if err != nil {
		return 0, err
	}
	return l.feed.waitFor(ctx, rev)
}

// published is the store's revision on this member.
func (l *Layer) published() (int64, error) {
	tx, err := l.store.Read(0)
	if err != nil {
		return 0, err
	}
	defer tx.Release()
	return int64(tx.Revision()), nil
}

// sendList writes a list, in pieces when it is long.
func (c *call) sendList(p *page) error {
	if c.form.as == "Table" {
		bodies := make([][]byte, len(p.entries))
		for i, e := range p.entries {
			bodies[i] = e.json
		}
		return c.send(http.StatusOK, c.form.table(string(p.meta()), bodies))
	}
	size := 256
	for _, e := range p.entries {
		size += len(e.json) + 1
	}
	items := c.items()
	if c.form.yaml && size <= maxYAMLBytes {
		return c.send(http.StatusOK, append(items.join(c.appendListHead(nil, p), p.entries), listEnd...))
	} else if c.form.yaml {
		return tooLongForYAML()
	}
	if size >= gzipBytes && c.takesGzip() {
		c.sendZipped(p, items)
		return nil
	}
	out := c.stream(size)
	b := c.appendListHead(out.room(), p)
	for i, e := range p.entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = items.append(b, e)
		if len(b) >= flushBytes {
			if err := out.write(b); err != nil {
				return nil // the client has left
			}
			b = out.room()
		}
	}
	return out.end(append(b, listEnd...))
}

// appendListHead appends what comes before a list's objects; listEnd follows them.
func (c *call) appendListHead(b []byte, p *page) []byte {
	kind, version := c.kind.ListName, c.kind.APIVersion()
	if c.form.as != "" {
		kind, version = "PartialObjectMetadataList", metaGroup+"/"+c.form.version
	}
	b = append(b, `{"kind":`...)
	b = append(object.AppendString(b, kind), `,"apiVersion":`...)
	b = append(object.AppendString(b, version), `,"metadata":`...)
	return append(append(b, p.meta()...), `,"items":[`...)
}

var listEnd = []byte("]}\n")

// sendZipped writes a list as gzip, of pieces that others may have listed before.
func (c *call) sendZipped(p *page, items items) {
	c.zippedHead(http.StatusOK)
	out := newZipped(c.w)
	out.text(c.appendListHead(nil, p), false)
	now := c.layer.clock.Now()
	for rest := p.entries; len(rest) > 0 && out.err == nil; {
		n := pieceOf(rest)
		out.piece(c.layer.pieces.get(c.kind.Prefix, items.id(), rest[:n], now, items.press))
		if rest = rest[n:]; len(rest) > 0 {
			out.text([]byte{','}, false)
		}
	}
	out.end(listEnd)
}

// items makes a list's objects what the client wants to see.
type items struct {
	form *form
	// bare: objects of built-in kinds do not say in a list what the list says
	// already: clients that compare a list with a watch count on it.
	bare bool
	// asKept: most entries are of the version that is served, and go out as they are.
	asKept bool
}

func (c *call) items() items {
	storage := c.layer.storage(c.kind)
	bare := !c.kind.Custom
	if c.form.as != "" {
		bare = c.form.typeless
	}
	return items{c.form, bare,
		c.form.as == "" && c.kind.From == nil && c.kind.Group == storage.Group && c.kind.Version == storage.Version}
}

// id distinguishes what append makes of the same entries.
func (it items) id() string {
	if it.bare {
		return it.form.id + " bare"
	}
	return it.form.id
}

func (it items) append(b []byte, e *entry) []byte {
	item, typeEnd := e.json, int(e.typeEnd)
	if typeEnd == 0 || !it.asKept {
		item = it.form.one(item)
		typeEnd = object.TypeEnd(item)
	}
	if it.bare && typeEnd > 0 {
		b, item = append(b, '{'), item[typeEnd:]
	}
	return append(b, item...)
}

// press compresses some objects of a list, and the commas between them.
func (it items) press(entries []*entry) *piece {
	return press(func(b []byte) []byte { return it.join(b, entries) })
}

// join appends objects of a list, and the commas between them.
func (it items) join(b []byte, entries []*entry) []byte {
	for i, e := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = it.append(b, e)
	}
	return b
}

// meta is the list's metadata. What was not read from the store has no revision.
func (p *page) meta() []byte {
	if p.rev == 0 {
		return []byte("{}")
	}
	b := append([]byte(`{"resourceVersion":"`), strconv.FormatInt(p.rev, 10)...)
	b = append(b, '"')
	if p.next != "" {
		b = object.AppendString(append(b, `,"continue":`...), p.next)
		if p.remaining >= 0 {
			b = strconv.AppendInt(append(b, `,"remainingItemCount":`...), p.remaining, 10)
		}
	}
	return append(b, '}')
}
