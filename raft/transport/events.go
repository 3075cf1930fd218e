package transport

import (
	"context"
	"sync"

	"github.com/keelson-io/keelson/api"
)

// eventQueue tells the handler of peers' ups and downs, in order, from one
// goroutine, so that Send may report a drop while Raft's own goroutine is in it.
type eventQueue struct {
	wake chan struct{}
	mu   struct {
		sync.Mutex
		events []event
		// lost holds the peers with an Unreachable in events, so that a storm
		// of drops is one event.
		lost map[api.MemberID]bool
	}
}

type eventKind uint8

const (
	eventUp eventKind = iota
	eventDown
	eventUnreachable
	eventRefused
)

type event struct {
	kind eventKind
	peer api.MemberID
	err  error // of eventRefused
}

func newEventQueue() *eventQueue {
	q := &eventQueue{wake: make(chan struct{}, 1)}
	q.mu.lost = map[api.MemberID]bool{}
	return q
}

func (q *eventQueue) up(peer api.MemberID)   { q.put(event{kind: eventUp, peer: peer}) }
func (q *eventQueue) down(peer api.MemberID) { q.put(event{kind: eventDown, peer: peer}) }

func (q *eventQueue) unreachable(peer api.MemberID) {
	q.put(event{kind: eventUnreachable, peer: peer})
}

func (q *eventQueue) refused(peer api.MemberID, err error) {
	q.put(event{eventRefused, peer, err})
}

func (q *eventQueue) put(e event) {
	q.mu.Lock()
	if e.kind == eventUnreachable {
		if q.mu.lost[e.peer] {
			q.mu.Unlock()
			return
		}
		q.mu.lost[e.peer] = true
	}
	q.mu.events = append(q.mu.events, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default: // run is awake
	}
}

func (q *eventQueue) take() []event {
	q.mu.Lock()
	defer q.mu.Unlock()
	events := q.mu.events
	q.mu.events = nil
	clear(q.mu.lost)
	return events
}

func (q *eventQueue) run(ctx context.Context, h Handler) {
	for {
		for _, e := range q.take() {
			switch e.kind {
			case eventUp:
				h.PeerUp(e.peer)
			case eventDown:
				h.PeerDown(e.peer)
			case eventUnreachable:
				h.Unreachable(e.peer)
			case eventRefused:
				h.Refused(e.peer, e.err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		}
	}
}
