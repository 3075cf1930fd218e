package oracle

import (
	"fmt"
	"hash/fnv"
	"slices"
)

// Observer is O6: it watches a run while it goes on and fails at once. Members
// are known by their ids.
//
//   - one leader a term;
//   - log matching: all members apply the same entry at the same index;
//   - leader completeness: a new leader's log has every entry that anybody applied;
//   - what is committed is on the disks of a majority;
//   - a member's applied index and term never go back.
type Observer struct {
	leaders map[uint64]uint64 // term → leader
	applied []entryMark       // by index-1
	durable map[uint64]Position
	members map[uint64]*memberMark
}

// Position is a place in a log.
type Position struct{ Index, Term uint64 }

type entryMark struct{ term, hash uint64 }

type memberMark struct {
	term uint64
	next uint64 // first index it has not applied, 0: any

	damaged bool // since its last start
}

// NewObserver has seen nothing.
func NewObserver() *Observer {
	return &Observer{leaders: map[uint64]uint64{}, durable: map[uint64]Position{}, members: map[uint64]*memberMark{}}
}

func (o *Observer) member(id uint64) *memberMark {
	if o.members[id] == nil {
		o.members[id] = &memberMark{}
	}
	return o.members[id]
}

// Started notes that a member begins at an applied index and a term.
func (o *Observer) Started(id, applied, term uint64) error {
	m := o.member(id)
	m.next = applied + 1
	return o.Term(id, term)
}

// Term notes the member's term.
func (o *Observer) Term(id, term uint64) error {
	m := o.member(id)
	if term < m.term {
		return fmt.Errorf("the term of member %x went back from %d to %d", id, m.term, term)
	}
	return nil
}

// Promised notes that the member's disk holds a term: from now on it never goes back.
func (o *Observer) Promised(id, term uint64) { o.member(id).term = max(o.member(id).term, term) }

// Leads notes that a member leads a term.
func (o *Observer) Leads(id, term uint64) error {
	if was, ok := o.leaders[term]; ok && was != id {
		return fmt.Errorf("members %x and %x both lead term %d", was, id, term)
	}
	o.leaders[term] = id
	return nil
}

// Complete checks that a new leader's log has the newest entry that anybody had
// applied when the leader was elected, unless the leader has applied it itself.
// entryTerm is the term of an entry in its log, 0 when it has none there.
func (o *Observer) Complete(id, newest, applied uint64, entryTerm func(index uint64) uint64) error {
	if newest == 0 || newest <= applied {
		return nil
	}
	if got, want := entryTerm(newest), o.applied[newest-1].term; got != want {
		return fmt.Errorf("member %x leads, but its entry %d is of term %d and term %d was applied", id, newest, got, want)
	}
	return nil
}

// Newest is the newest entry that anybody had applied when a leader of a term was
// elected, and that it must have; 0 if a later term has a leader already: a member
// that slept through it wins its old votes and need not have what came after.
func (o *Observer) Newest(term uint64) uint64 {
	for later := range o.leaders {
		if later > term {
			return 0
		}
	}
	return uint64(len(o.applied))
}

// Applies notes an entry that a member is about to apply; fresh: nobody has
// before. data is what the entry asks for, the same on all members.
func (o *Observer) Applies(id, index, term uint64, data []byte) (fresh bool, err error) {
	m := o.member(id)
	if m.next != 0 && index != m.next {
		return false, fmt.Errorf("member %x applies entry %d, after %d", id, index, m.next-1)
	}
	m.next = index + 1
	h := fnv.New64a()
	h.Write(data)
	mark := entryMark{term, h.Sum64()}
	switch n := uint64(len(o.applied)); {
	case index == n+1:
		o.applied = append(o.applied, mark)
		return true, nil
	case index > n+1:
		return false, fmt.Errorf("member %x applies entry %d; nobody has applied %d", id, index, n+1)
	case o.applied[index-1] != mark:
		return false, fmt.Errorf("member %x applies an entry %d of term %d; others applied another, of term %d", id, index, term, o.applied[index-1].term)
	}
	return false, nil
}

// Wrote notes what the member's disk surely holds of the log.
func (o *Observer) Wrote(id uint64, last Position) { o.durable[id] = last }

// Holds is what the member's disk surely holds of the log.
func (o *Observer) Holds(id uint64) Position { return o.durable[id] }

// Damaged notes that a fault has hurt the member's log: what it finds at its next
// start may be less. What it had acknowledged before counts until then, for the
// repair must give it back.
func (o *Observer) Damaged(id uint64) { o.member(id).damaged = true }

// Committed checks that an entry which is committed is on a majority of disks.
// A log whose last entry is of the entry's term or a later one, and that reaches
// it, holds it: that is log matching.
func (o *Observer) Committed(index, term uint64, voters []uint64) error {
	holders := 0
	for _, v := range voters {
		if d := o.durable[v]; d.Index >= index && d.Term >= term {
			holders++
		}
	}
	if holders <= len(voters)/2 {
		var have []string
		for _, v := range slices.Sorted(slices.Values(voters)) {
			have = append(have, fmt.Sprintf("%x: %d/%d", v, o.durable[v].Index, o.durable[v].Term))
		}
		return fmt.Errorf("entry %d of term %d is committed, but only %d of %d disks have it %v", index, term, holders, len(voters), have)
	}
	return nil
}

// Behind reports whether the member has not applied up to index, so that its
// state must have come otherwise.
func (o *Observer) Behind(id, index uint64) bool {
	m := o.member(id)
	return m.next != 0 && m.next <= index
}

// Recovered notes what a member finds in its log at a start: all that its disk
// surely held, unless a later leader was replacing it. What that leader sent may
// be there although nobody was told so.
func (o *Observer) Recovered(id uint64, last Position, entryTerm func(index uint64) uint64) error {
	had := o.durable[id]
	if o.member(id).damaged {
		o.member(id).damaged = false
		o.durable[id] = Position{max(had.Index, last.Index), max(had.Term, last.Term)}
		return nil
	}
	if last.Term < had.Term || last.Term == had.Term && last.Index < had.Index {
		return fmt.Errorf("member %x had %d entries on its disk and finds %d", id, had.Index, last.Index)
	}
	if t := entryTerm(had.Index); last.Term == had.Term && t != 0 && t != had.Term {
		return fmt.Errorf("entry %d of member %x was of term %d and is of term %d after a restart", had.Index, id, had.Term, t)
	}
	o.durable[id] = last
	return nil
}
