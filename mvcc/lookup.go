package mvcc

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/keelson-io/keelson/mvcc/engine"
)

// lookups finds records in a tail and an engine view that belong together. It
// is for one goroutine.
type lookups struct {
	tail tailView
	view *sharedView

	asked  int           // look-ups in the engine so far
	cursor engine.Cursor // made at the second one
	last   revision      // where the cursor stands
	key    [tombstoneKeyLen]byte

	// ahead holds what a scan has looked up for the caller, in the order of the
	// scan, from next on.
	ahead    []aheadRecord
	next     int
	seenAsks int // asked when the last batch was begun
}

type aheadRecord struct {
	rev   revision
	value []byte // as stored
}

// nearRevisions is how far ahead of the cursor a record may lie to be looked
// for by stepping rather than by searching from the root.
const nearRevisions = 8

// record returns a record's bytes, checked, without the trailer.
func (l *lookups) record(at revision) (Record, error) {
	if at.main > l.view.rev {
		if data := l.tail.find(at); data != nil {
			return trimTrailer(data), nil
		}
		return nil, fmt.Errorf("%w: revision %d.%d is not in the tail", ErrCorrupt, at.main, at.sub)
	}
	l.asked++
	for i := l.next; i < len(l.ahead); i++ { // the caller skips few, if any
		if a := &l.ahead[i]; a.rev.main == at.main && a.rev.sub == at.sub {
			l.next = i + 1
			return l.verified(at, a.value)
		}
	}
	return l.verified(at, l.fetch(at))
}

func (l *lookups) verified(at revision, value []byte) (Record, error) {
	if value == nil {
		return nil, fmt.Errorf("%w: revision %d.%d is missing", ErrCorrupt, at.main, at.sub)
	}
	return l.view.verify(l.name(at), value)
}

// name returns the record's stored key, valid until the next call.
func (l *lookups) name(at revision) []byte { return at.appendTo(l.key[:0]) }

// fetch returns a record of the engine as it is stored, or nil.
func (l *lookups) fetch(at revision) []byte {
	key := l.name(at)
	if l.asked < 2 && l.cursor == nil {
		return l.view.Get(engine.Key, key)
	}
	var k, v []byte
	if l.cursor == nil {
		l.cursor = l.view.Cursor(engine.Key)
	} else if l.last.before(at) && at.main-l.last.main <= nearRevisions {
		for range nearRevisions {
			if k, v = l.cursor.Next(); k == nil || bytes.Compare(k, key) >= 0 {
				break
			}
		}
	}
	if !bytes.Equal(k, key) {
		k, v = l.cursor.Seek(key)
	}
	l.last = at
	if !bytes.Equal(k, key) {
		return nil
	}
	return v
}

// prefetch looks up the records of a scan's next items, in the order of their
// revisions, if the caller asked for those of the batch before.
func (l *lookups) prefetch(batch []*item, r *reader) {
	asked := l.asked > l.seenAsks
	l.seenAsks = l.asked
	l.ahead, l.next = l.ahead[:0], 0
	if !asked {
		return
	}
	order := make([]int32, 0, len(batch))
	for _, it := range batch {
		rev, ok := it.rev(), true
		if !r.exact {
			rev, ok = it.at(r.at)
		}
		if ok && !rev.tomb && rev.main <= l.view.rev {
			order = append(order, int32(len(l.ahead)))
			l.ahead = append(l.ahead, aheadRecord{rev: rev})
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		if l.ahead[a].rev.before(l.ahead[b].rev) {
			return -1
		}
		return 1
	})
	for _, i := range order {
		l.ahead[i].value = l.fetch(l.ahead[i].rev)
	}
}
