package mvcc

import (
	"fmt"
	"sort"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// History calls fn for the events with from <= Rev <= to, in the order of
// (Rev, Sub), until fn returns false. to may be beyond the exposed revision.
// It returns ErrCompacted when from is below the compact revision. The events
// live on after the call, but FixPrev works inside fn only.
func (s *Store) History(from, to api.Revision, fn func(*Event) bool) error {
	t, err := s.Read(0)
	if err != nil {
		return err
	}
	defer t.Release()
	if from < t.st.compact {
		return ErrCompacted
	}
	to = min(to, t.st.rev)
	flushed := t.st.view.rev
	ok := true
	if from <= flushed {
		end := mainKey(min(to, flushed) + 1)
		t.st.view.Scan(engine.Key, mainKey(max(from, 0)), end, func(k, v []byte) bool {
			var e *Event
			if e, err = t.storedEvent(k, v); err != nil {
				return false
			}
			ok = fn(e)
			return ok
		})
	}
	if !ok || err != nil {
		return err
	}
	t.st.tail.scan(max(from, flushed+1), to, func(rev revision, data []byte) bool {
		var e *Event
		if e, err = t.event(rev, trimTrailer(data)); err != nil {
			return false
		}
		return fn(e)
	})
	return err
}

// storedEvent makes the event of a record in the engine, copying it.
func (t *ReadTxn) storedEvent(k, v []byte) (*Event, error) {
	rev, err := parseRevision(k)
	if err != nil {
		return nil, err
	}
	rec, err := t.st.view.verify(k, v)
	if err != nil {
		return nil, err
	}
	return t.event(rev, append(Record(nil), rec...))
}

// event makes the event of a record, which it keeps.
func (t *ReadTxn) event(rev revision, rec Record) (*Event, error) {
	rec, f, err := withModRevision(rec, rev)
	if err != nil {
		return nil, fmt.Errorf("revision %d.%d: %w", rev.main, rev.sub, err)
	}
	e := &Event{
		Rev: rev.main, Sub: int64(rev.sub), Key: f.key, KV: rec, Source: prevReader{t},
		Delete: rev.tomb, Create: !rev.tomb && f.create == rev.main, Lease: f.lease,
	}
	if !e.Create {
		e.PrevRev, e.PrevSub = t.previous(stringOf(f.key), rev)
	}
	return e, nil
}

// unknownPrev is the previous revision of an event whose previous record has
// been compacted: asking for it gets ErrCompacted.
const unknownPrev = -1

// previous finds what was there before the transaction of a change or a delete:
// 0 when the transaction made the key itself.
func (t *ReadTxn) previous(key string, rev revision) (api.Revision, int64) {
	it := get(t.st.root, key)
	if it == nil {
		return unknownPrev, 0
	}
	older := it.older()
	i := sort.Search(len(older), func(i int) bool { return !older[i].before(rev) })
	own := i
	for i > 0 && older[i-1].main == rev.main {
		i--
	}
	if i == 0 || older[i-1].tomb {
		if i < own {
			return 0, 0
		}
		return unknownPrev, 0
	}
	return older[i-1].main, int64(older[i-1].sub)
}

// prevReader reads previous values for the events of one History call.
type prevReader struct{ t *ReadTxn }

// PrevRecord implements PrevSource.
func (p prevReader) PrevRecord(rev api.Revision, sub int64) (Record, error) {
	if rev <= 0 || p.t.st == nil {
		return nil, ErrCompacted
	}
	rec, err := p.t.own.record(revision{main: rev, sub: int32(sub)})
	return append(Record(nil), rec...), err
}
