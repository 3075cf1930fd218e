package resource

import "sort"

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

// after returns the changes of revisions above rev; ok is false when some of them
// are gone.
func (r *ring) after(rev int64) (out []*change, ok bool) {
	if rev < r.floor {
		return nil, false
	}
	n := len(r.changes)
	from := sort.Search(n, func(i int) bool { return r.at(i).rev > rev })
	if from == n {
		return nil, true
	}
	out = make([]*change, 0, n-from)
	for i := from; i < n; i++ {
		out = append(out, r.at(i))
	}
	return out, true
}
