package mvcc

import (
	"fmt"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/planted"
)

// WriteTxn is one transaction of the apply goroutine. It sees its own changes,
// which all get the revision after the store's. There is no way back: whatever
// may be refused must be checked before the first change. Items and records it
// returns are valid until End.
type WriteTxn struct {
	s    *Store
	w    *working
	base api.Revision // the store's revision when the transaction began
	sub  int32        // changes so far
	open bool
	look lookups
}

// Begin starts a transaction; every Begin has one End. The store's other users
// of the working state wait meanwhile.
func (s *Store) Begin() *WriteTxn {
	s.mu.Lock()
	t := &s.mu.txn
	if t.open {
		panic("mvcc: a transaction within a transaction")
	}
	*t = WriteTxn{s: s, w: &s.mu.working, base: s.mu.rev, open: true}
	return t
}

// End ends the transaction; its revision is the store's from now on.
func (t *WriteTxn) End() Result {
	r := Result{Revision: t.Revision(), Changed: t.sub > 0}
	if planted.EmptyTxnCounts && !r.Changed {
		r.Revision++
	}
	t.w.rev = r.Revision
	if r.Changed {
		t.w.chain.close(r.Revision)
	}
	t.open = false
	t.s.mu.Unlock()
	return r
}

// Revision returns the store's revision, or the transaction's own once it has
// changed a key.
func (t *WriteTxn) Revision() api.Revision {
	if t.sub > 0 {
		return t.base + 1
	}
	return t.base
}

// CompactRevision returns the revision below which history is gone.
func (t *WriteTxn) CompactRevision() api.Revision { return t.w.compact }

// Readable returns nil when Scan and Count are exact at this revision, or else
// ErrFutureRevision or ErrCompacted. 0 means the transaction's own state.
func (t *WriteTxn) Readable(at api.Revision) error {
	return readable(at, t.Revision(), t.w.compact)
}

func readable(at, rev, compact api.Revision) error {
	switch {
	case at > rev:
		return ErrFutureRevision
	case at > 0 && at < compact:
		return ErrCompacted
	case at <= 0 && rev < compact:
		panic(fmt.Sprintf("mvcc: compacted at %d, beyond revision %d", compact, rev))
	}
	return nil
}

// Get returns the live item of key in the transaction's own state.
func (t *WriteTxn) Get(key []byte) (Item, bool) {
	it := get(t.w.tree.root, stringOf(key))
	if it == nil || it.tomb {
		return Item{}, false
	}
	return it.public(), true
}

// Scan calls fn for each live key of the range at revision at (0: own state) in
// order, until fn returns false. The range is named as in requests: no end is
// the one key, the end "\x00" is all keys from key on. The caller has checked
// Readable, and does not change the store inside fn.
func (t *WriteTxn) Scan(key, end []byte, at api.Revision, fn func(Item) bool) {
	r := t.reader(at)
	r.scan(key, end, fn)
}

// Count returns the number of live keys that Scan would visit.
func (t *WriteTxn) Count(key, end []byte, at api.Revision) int {
	r := t.reader(at)
	return r.count(key, end)
}

// Record returns the record of an item, valid until End.
func (t *WriteTxn) Record(it Item) (Record, error) {
	r := t.reader(0)
	return r.lookups.record(revision{main: it.Mod, sub: int32(it.Sub)})
}

// reader reads the working state at a revision.
func (t *WriteTxn) reader(at api.Revision) reader {
	if t.look.view == nil {
		t.look.view = t.s.mu.view // stays the store's until End, as mu is held
	}
	t.look.tail = t.w.tail.view()
	exact := at <= 0 || at >= t.Revision()
	return reader{root: t.w.tree.root, at: at, exact: exact, lookups: &t.look}
}

// next returns the place of the transaction's next change.
func (t *WriteTxn) next() (api.Revision, int32) {
	if !t.open {
		panic("mvcc: change after the end of the transaction")
	}
	sub := t.sub
	if planted.SplitTxn && sub > 0 {
		t.base++
	}
	t.sub++
	t.w.touched = true
	return t.base + 1, sub
}

// Put writes a key and attaches it to the lease, which must exist or be 0; from
// the lease it was attached to before it is detached. It returns the item that
// was there.
func (t *WriteTxn) Put(key, value []byte, lease api.LeaseID) (prev Item, had bool) {
	if len(key) == 0 {
		panic("mvcc: put of the empty key")
	}
	old := t.w.tree.seek(stringOf(key))
	it := &item{version: 1, lease: lease}
	if planted.VersionKept && old != nil && old.tomb {
		it.version++
	}
	it.mod, it.sub = t.next()
	it.create = it.mod
	if old == nil {
		it.key = string(key)
		t.w.keyBytes += int64(len(key))
	} else {
		old.succeed(it)
		if !old.tomb {
			it.create, it.version = old.create, old.version+1
			prev, had = old.public(), true
		}
	}
	if !t.s.leases.move(it.key, prev.Lease, lease) {
		panic(fmt.Sprintf("mvcc: put to lease %x, which does not exist", int64(lease)))
	}
	t.replace(it, old, value)
	return prev, had
}

// replace puts the new item where the tree has been told to seek, into tail and
// events.
func (t *WriteTxn) replace(it, old *item, value []byte) {
	w := t.w
	if !it.dirty && !it.clean() {
		it.dirty = true
		w.dirty = append(w.dirty, it.key)
	}
	w.tree.place(it)
	w.revisions++
	rec := w.tail.append(it, value)
	w.chain.add(w.tail.sum())
	e := &Event{
		Rev: it.mod, Sub: int64(it.sub), Key: bytesOf(it.key), KV: rec, Source: t.s,
		Delete: it.tomb, Create: it.create == it.mod, Lease: it.lease,
	}
	if !e.Create { // etcd's rule: what was there before the transaction, also for a key that it writes twice
		at := it.mod - 1
		if planted.PrevOlder {
			at = old.mod - 1
		}
		if prev, ok := old.at(at); ok && !prev.tomb {
			e.PrevRev, e.PrevSub = prev.main, int64(prev.sub)
		}
	}
	w.events = append(w.events, e)
}

// DeleteRange deletes the live keys of a range, named as for Scan, in order,
// and returns how many. fn, which may be nil, is given each before it goes; it
// may ask for its record.
func (t *WriteTxn) DeleteRange(key, end []byte, fn func(prev Item)) int {
	b, single := boundsOf(key, end)
	if single {
		it := get(t.w.tree.root, b.from)
		if it == nil || it.tomb {
			if planted.DeleteAbsentCounts && t.sub == 0 {
				t.base++
			}
			return 0
		}
		t.remove(it, fn)
		return 1
	}
	var doomed []*item
	ascend(t.w.tree.root, b, func(it *item) bool {
		if !it.tomb {
			doomed = append(doomed, it)
		}
		return true
	})
	for _, it := range doomed {
		t.remove(it, fn)
	}
	return len(doomed)
}

// remove puts a tombstone in the place of a live item.
func (t *WriteTxn) remove(old *item, fn func(prev Item)) {
	if fn != nil {
		fn(old.public())
	}
	t.w.tree.seek(old.key)
	it := &item{tomb: true}
	it.mod, it.sub = t.next()
	old.succeed(it)
	t.s.leases.move(it.key, old.lease, 0)
	t.replace(it, old, nil)
}

// LeaseExists reports whether there is a lease of this id.
func (t *WriteTxn) LeaseExists(id api.LeaseID) bool { return t.s.leases.exists(id) }

// LeaseGrant makes a lease of ttl seconds, or returns ErrLeaseExists.
func (t *WriteTxn) LeaseGrant(id api.LeaseID, ttl int64) error {
	if id == 0 {
		panic("mvcc: grant of lease 0")
	}
	if !t.s.leases.add(id, ttl, 0) {
		return ErrLeaseExists
	}
	t.SetRaw(engine.Lease, leaseKey(id), encodeLease(id, ttl, 0))
	t.w.changes = append(t.w.changes, LeaseChange{Kind: LeaseGranted, ID: id, TTL: ttl})
	return nil
}

// LeaseRevoke removes a lease and deletes its keys, in byte order, or returns
// ErrLeaseNotFound.
func (t *WriteTxn) LeaseRevoke(id api.LeaseID) error {
	if !t.s.leases.exists(id) {
		return ErrLeaseNotFound
	}
	for _, key := range t.s.leases.keys(id) {
		t.DeleteRange(bytesOf(key), nil, nil)
	}
	t.s.leases.remove(id)
	t.DeleteRaw(engine.Lease, leaseKey(id))
	t.w.changes = append(t.w.changes, LeaseChange{Kind: LeaseRevoked, ID: id})
	return nil
}

// LeaseCheckpoint notes how many seconds a lease has left, so that the next
// leader does not begin its TTL anew. An unknown lease is ignored: it was
// revoked meanwhile.
func (t *WriteTxn) LeaseCheckpoint(id api.LeaseID, remaining int64) {
	ttl, ok := t.s.leases.checkpoint(id, remaining)
	if !ok {
		return
	}
	t.SetRaw(engine.Lease, leaseKey(id), encodeLease(id, ttl, remaining))
	t.w.changes = append(t.w.changes, LeaseChange{Kind: LeaseCheckpointed, ID: id, TTL: ttl, Remaining: remaining})
}

// Compact gives up the history below revision at: from the moment the state is
// exposed, reads below it are refused. The records go later.
func (t *WriteTxn) Compact(at api.Revision) error {
	switch {
	case at <= t.w.compact:
		return ErrCompacted
	case at > t.Revision():
		return ErrFutureRevision
	}
	t.w.compact = at
	t.w.touched = true
	return nil
}

// SetRaw writes a pair of another bucket; it becomes durable together with the
// state. The slices are the store's from now on.
func (t *WriteTxn) SetRaw(b engine.Bucket, key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	t.raw(engine.Op{Bucket: b, Key: key, Value: value})
}

// DeleteRaw deletes a pair of another bucket.
func (t *WriteTxn) DeleteRaw(b engine.Bucket, key []byte) {
	t.raw(engine.Op{Bucket: b, Key: key})
}

func (t *WriteTxn) raw(op engine.Op) {
	if op.Bucket == engine.Key {
		panic("mvcc: raw write of bucket key")
	}
	t.w.ops = append(t.w.ops, op)
	t.w.touched = true
}
