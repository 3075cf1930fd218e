package admission

import "slices"

// Class is a kind of requests with slots and a queue of its own.
type Class uint8

// The classes; package doc says what is in them.
const (
	Lease Class = iota
	Election
	Write
	Read
	List
	classes
	// None is for what is not held back.
	None = classes
)

// Names of the classes, as metrics show them.
var names = [classes]string{"lease", "election", "write", "read", "list"}

func (c Class) String() string {
	if c < classes {
		return names[c]
	}
	return "none"
}

// Bounds of a class.
type Bounds struct {
	Slots     int   // requests under way
	Heavy     int   // heavy requests under way
	Waiting   int   // requests in the queue
	Light     int   // a client's request is heavy when so many of it are under way; 0: never
	LightCost int64 // a request that costs more is heavy; 0: never
	Quantum   int64 // cost that a client may take before it is the next one's turn
}

// Flow is one client. Each class's queue owns its share of it.
type Flow struct {
	Name   string
	shares [classes]share
}

// share is a client's part in one class.
type share struct {
	running int
	credit  int64
	waiting []*Waiter // the oldest first
	loudAt  int64     // when it last had more under way than a light client; owned by the gate
}

// Waiter is a request in a queue.
type Waiter struct {
	flow  *Flow
	cost  int64
	loud  bool // its client was, when it came: see queue.fits
	heavy bool // once granted: which slot it took
	// done is told once: true when granted, false when refused after all.
	done chan bool
}

// queue is one class. It is a value: whoever calls its methods one at a time
// sees the same decisions for the same calls.
type queue struct {
	class   Class
	bounds  Bounds
	running int
	heavy   int
	waiting int
	ring    []*Flow // with something waiting, in the order of their turns
	at      int     // whose turn it is
}

// fits reports whether a request could begin now, and whether it is heavy. All
// requests of a loud client are.
func (q *queue) fits(f *Flow, cost int64, loud bool) (heavy, ok bool) {
	b := &q.bounds
	heavy = loud || b.Light > 0 && f.shares[q.class].running >= b.Light || b.LightCost > 0 && cost > b.LightCost
	return heavy, q.running < b.Slots && (!heavy || q.heavy < b.Heavy)
}

// take begins a request if it can begin at once.
func (q *queue) take(f *Flow, cost int64, loud bool) (heavy, ok bool) {
	if heavy, ok = q.fits(f, cost, loud); ok {
		q.begin(f, heavy)
	}
	return heavy, ok
}

func (q *queue) begin(f *Flow, heavy bool) {
	f.shares[q.class].running++
	q.running++
	if heavy {
		q.heavy++
	}
}

// leave ends a request. What waits may begin now: next tells.
func (q *queue) leave(f *Flow, heavy bool) {
	f.shares[q.class].running--
	q.running--
	if heavy {
		q.heavy--
	}
}

// join lets a request wait. refused is the request that has no place then: w
// itself, or one of another client that has more waiting.
func (q *queue) join(w *Waiter) (refused *Waiter) {
	s := &w.flow.shares[q.class]
	if q.waiting >= q.bounds.Waiting {
		longest := w.flow
		for _, f := range q.ring {
			if len(f.shares[q.class].waiting) > len(longest.shares[q.class].waiting) {
				longest = f
			}
		}
		most := longest.shares[q.class].waiting
		if len(most) <= len(s.waiting)+1 {
			return w
		}
		refused = most[len(most)-1]
		q.cancel(refused)
	}
	if len(s.waiting) == 0 {
		// Behind everybody: the turn has just been at, or will come to, all others.
		q.ring = slices.Insert(q.ring, q.at, w.flow)
		if q.at++; q.at == len(q.ring) {
			q.at = 0
		}
	}
	s.waiting = append(s.waiting, w)
	q.waiting++
	return refused
}

// cancel removes a waiter; false if it does not wait any more.
func (q *queue) cancel(w *Waiter) bool {
	i := slices.Index(w.flow.shares[q.class].waiting, w)
	if i < 0 {
		return false
	}
	q.remove(w.flow, i)
	return true
}

func (q *queue) remove(f *Flow, i int) {
	s := &f.shares[q.class]
	s.waiting = slices.Delete(s.waiting, i, i+1)
	q.waiting--
	if len(s.waiting) > 0 {
		return
	}
	s.waiting, s.credit = nil, 0
	turn := slices.Index(q.ring, f)
	q.ring = slices.Delete(q.ring, turn, turn+1)
	if turn < q.at {
		q.at--
	}
	if q.at >= len(q.ring) {
		q.at = 0
	}
}

// next begins the waiter whose turn it is and returns it; nil if none of them
// can begin. Clients whose oldest request has no slot are passed over.
func (q *queue) next() *Waiter {
	passed := 0
	for passed < len(q.ring) {
		f := q.ring[q.at]
		s := &f.shares[q.class]
		w := s.waiting[0]
		heavy, ok := q.fits(f, w.cost, w.loud)
		switch {
		case !ok:
			passed++
		case s.credit >= w.cost:
			s.credit -= w.cost
			w.heavy = heavy
			q.begin(f, heavy)
			q.remove(f, 0)
			return w
		default:
			passed = 0 // its credit grows with every round
			s.credit += q.bounds.Quantum
		}
		q.at = (q.at + 1) % len(q.ring)
	}
	return nil
}
