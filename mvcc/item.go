package mvcc

import (
	"sort"
	"unsafe"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
)

// item is the index's entry of one key: its latest record's figures, and where
// the older records are. Items never change once they are in a tree that has
// been sealed; a new revision makes a new item, which shares the key's bytes
// and extends the history.
//
// Invariants: 0 < create <= mod and version > 0, unless tomb, where all but mod
// are 0; history revisions rise and lie before (mod, sub).
type item struct {
	key     string
	mod     api.Revision
	create  api.Revision
	version int64
	lease   api.LeaseID
	hist    *history // nil when there is none
	sub     int32
	tomb    bool
	dirty   bool // the key is in the compaction queue
}

// history lists the records before an item's own, oldest first. The array
// behind revs is shared with the items of later revisions, which extend it
// beyond what this one sees; only the writer does, so no one looks there.
type history struct{ revs []revision }

func (it *item) rev() revision { return revision{it.mod, it.sub, it.tomb} }

func (it *item) older() []revision {
	if it.hist == nil {
		return nil
	}
	return it.hist.revs
}

// at returns the record that holds the key's state at revision r, or false
// when the key had none.
func (it *item) at(r api.Revision) (revision, bool) {
	if it.mod <= r {
		return it.rev(), true
	}
	revs := it.older()
	n := sort.Search(len(revs), func(i int) bool { return revs[i].main > r })
	if n == 0 {
		return revision{}, false
	}
	return revs[n-1], true
}

// liveAt reports whether the key exists at revision r.
func (it *item) liveAt(r api.Revision) bool {
	rev, ok := it.at(r)
	return ok && !rev.tomb
}

// public returns the item as readers see it.
func (it *item) public() Item {
	return Item{Key: bytesOf(it.key), Create: it.create, Mod: it.mod, Sub: int64(it.sub), Version: it.version, Lease: it.lease}
}

// succeed prepares next, which follows it: key bytes, history and queue mark.
func (it *item) succeed(next *item) {
	next.key = it.key
	next.dirty = it.dirty
	next.hist = &history{revs: append(it.older(), it.rev())}
}

// garbage looks at the key's records with compaction revision c. It returns how
// many of the oldest are garbage: of the records up to c only the last stays,
// and a tombstone only if it is of revision c itself, so that watchers that
// start there still see it. Counting the item's own, len(older)+1 means all.
func (it *item) garbage(c api.Revision) int {
	revs := it.older()
	last, n := it.rev(), len(revs)+1
	if it.mod > c {
		n = sort.Search(len(revs), func(i int) bool { return revs[i].main > c })
		if n == 0 {
			return 0
		}
		last = revs[n-1]
	}
	if last.tomb && last.main < c {
		return n
	}
	if planted.CompactTooMuch && it.mod > c {
		return n
	}
	return n - 1
}

// clean reports whether no compaction will ever find garbage here unless the
// key changes again.
func (it *item) clean() bool { return it.hist == nil && !it.tomb }

// bytesOf and stringOf view one as the other without copying. Neither may be
// changed afterwards.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
func stringOf(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b))
}
