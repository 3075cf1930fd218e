package wal

import (
	"fmt"
	"slices"
	"sort"

	"github.com/keelson-io/keelson/api"
)

// table knows where each live entry is and what term it has. It has no lock
// and touches no file: Append and recovery feed it the same operations, so
// that what is read after a restart is what was read before.
//
// Invariants:
//
//	start.Index <= last.Index
//	the offsets of all segments, joined, cover start.Index+1 … last.Index
//	the offsets within a segment ascend
//	terms starts with start's term and ascends in index and term
type table struct {
	start Position
	last  Position
	segs  []*segment // oldest first; entries are added to the last
	terms []termRun
}

// termRun says that entries from first on, up to the next run, have the term.
// The first run begins at start.Index.
type termRun struct {
	first api.Index
	term  api.Term
}

func newTable(start Position) *table {
	t := &table{}
	t.reset(start)
	return t
}

// reset forgets all entries and all segments.
func (t *table) reset(start Position) {
	t.start, t.last, t.segs = start, start, nil
	t.terms = append(t.terms[:0], termRun{start.Index, start.Term})
}

func (t *table) active() *segment { return t.segs[len(t.segs)-1] }

// add lists the entry after the last one, at [off, off+size) of the active
// segment.
func (t *table) add(p Position, off, size int64) error {
	if p.Index != t.last.Index+1 {
		return fmt.Errorf("entry %d follows entry %d", p.Index, t.last.Index)
	}
	if p.Term < t.last.Term {
		return fmt.Errorf("entry %d has term %d, below term %d of the one before", p.Index, p.Term, t.last.Term)
	}
	s := t.active()
	if len(s.offsets) == 0 {
		s.first = p.Index
	}
	s.offsets = append(s.offsets, uint32(off/alignment))
	s.bound = off + size
	if p.Term != t.last.Term {
		t.terms = append(t.terms, termRun{p.Index, p.Term})
	}
	t.last = p
	return nil
}

// cut forgets the entries after p. A p below start is where the log now
// starts: the entries up to it were released.
func (t *table) cut(p Position) error {
	if p.Index > t.last.Index {
		return fmt.Errorf("cut after entry %d, the last being %d", p.Index, t.last.Index)
	}
	if term, ok := t.term(p.Index); ok && term != p.Term {
		return fmt.Errorf("cut after entry %d of term %d, which has term %d", p.Index, p.Term, term)
	}
	for _, s := range t.segs {
		if len(s.offsets) > 0 && s.last() > p.Index {
			keep := max(s.first, p.Index+1) - s.first
			s.bound = int64(s.offsets[keep]) * alignment
			s.offsets = s.offsets[:keep]
		}
	}
	t.last = p
	if p.Index <= t.start.Index {
		t.start = p
		t.terms = append(t.terms[:0], termRun{p.Index, p.Term})
		return nil
	}
	t.terms = slices.DeleteFunc(t.terms, func(r termRun) bool { return r.first > p.Index })
	return nil
}

// dropOldest forgets the oldest segment and the entries in it.
func (t *table) dropOldest() {
	s := t.segs[0]
	if len(s.offsets) > 0 {
		term, _ := t.term(s.last())
		t.start = Position{s.last(), term}
		run := t.run(t.start.Index)
		t.terms = append(t.terms[:0], t.terms[run:]...)
		t.terms[0].first = t.start.Index
	}
	t.segs = append(t.segs[:0:0], t.segs[1:]...)
}

// run returns the index in terms of the run that holds entry i >= start.Index.
func (t *table) run(i api.Index) int {
	return sort.Search(len(t.terms), func(k int) bool { return t.terms[k].first > i }) - 1
}

// term returns the term of entry i, or of start.
func (t *table) term(i api.Index) (api.Term, bool) {
	if i < t.start.Index || i > t.last.Index {
		return 0, false
	}
	return t.terms[t.run(i)].term, true
}

// find returns the segment that holds the live entry i.
func (t *table) find(i api.Index) *segment {
	for k := len(t.segs) - 1; k >= 0; k-- {
		if s := t.segs[k]; len(s.offsets) > 0 && s.first <= i {
			return s
		}
	}
	panic(fmt.Sprintf("wal: entry %d of (%d, %d] is in no segment", i, t.start.Index, t.last.Index))
}
