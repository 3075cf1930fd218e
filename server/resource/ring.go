package resource

import (
	"slices"
	"sort"
)

// ring keeps the last changes of a collection, oldest first.
//
// Invariant: it holds every change of a revision above floor.
type ring struct {
	changes []*change // a circle once it is full
	head    int       // the oldest
	floor   int64
}

// reset empties the ring: what is known begins after floor.
func (r *ring) reset(floor int64) { *r = ring{floor: floor} }

func (r *ring) push(c *change) {
	if len(r.changes) < ringEvents {
		r.changes = append(r.changes, c)
		return
	}
	// All of a revision go or none: the floor is the revision of what went.
	r.floor = r.changes[r.head].rev
	r.changes[r.head] = c
	r.head = (r.head + 1) % ringEvents
}

func (r *ring) at(i int) *change { return r.changes[(r.head+i)%len(r.changes)] }

// after appends the changes of revisions above rev; ok is false when some of them
// are gone.
func (r *ring) after(to []*change, rev int64) (out []*change, ok bool) {
	if rev < r.floor {
		return to, false
	}
	n := len(r.changes)
	from := sort.Search(n, func(i int) bool { return r.at(i).rev > rev })
	to = slices.Grow(to, n-from)
	for i := from; i < n; i++ {
		to = append(to, r.at(i))
	}
	return to, true
}
