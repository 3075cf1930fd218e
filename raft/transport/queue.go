package transport

import (
	"sync"

	"go.etcd.io/raft/v3/raftpb"
)

// Bounds of one class's queue to one peer. Raft's own window of messages in
// flight is smaller; the queue overflows only when a peer stops reading.
const (
	queueRecords = 8192
	queueBytes   = 64 << 20
	// idleVotes is how many vote requests the control queue keeps while there is
	// no connection, so that an election right after a start, when members still
	// look for each other, does not wait for a second try.
	idleVotes = 4
)

// queue holds the records of one class that wait for one peer's sender.
//
// Invariant: accepted == taken + dropped + len(records), where dropped counts
// those that were accepted and later thrown away.
type queue struct {
	wake chan struct{} // has a token when records may be waiting

	mu struct {
		sync.Mutex
		open    bool // a sender is taking
		records []record
		bytes   int // of records, and of those that the sender has not sent yet
		taken   int // of the latter
		total   queueTotals
	}
}

// queueTotals counts records since the start.
type queueTotals struct {
	Offered uint64 // all that Send and Forward were given for this class
	Taken   uint64 // handed to the sender
	Dropped uint64 // refused or thrown away: offered == taken + dropped + waiting
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1)}
}

// put queues what fits and returns how many records were dropped, new or old.
func (q *queue) put(records ...record) (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.total.Offered += uint64(len(records))
	wasEmpty := len(q.mu.records) == 0
	for _, r := range records {
		switch {
		case !q.mu.open && !isVoteRequest(r.msg):
			dropped++
		case !q.mu.open && len(q.mu.records) >= idleVotes: // the newest matter
			q.mu.bytes += r.body - q.mu.records[0].body
			copy(q.mu.records, q.mu.records[1:])
			q.mu.records[len(q.mu.records)-1] = r
			dropped++
		case len(q.mu.records) >= queueRecords || (q.mu.bytes+r.body > queueBytes && q.mu.bytes > 0):
			dropped++
		default:
			q.mu.records = append(q.mu.records, r)
			q.mu.bytes += r.body
		}
	}
	q.mu.total.Dropped += uint64(dropped)
	if wasEmpty && len(q.mu.records) > 0 {
		q.signal()
	}
	return dropped
}

func isVoteRequest(m *raftpb.Message) bool {
	return m != nil && (m.GetType() == raftpb.MsgVote || m.GetType() == raftpb.MsgPreVote)
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default: // the token is there already
	}
}

// start opens the queue for a sender.
func (q *queue) start() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.open = true
	q.signal() // something may have been kept
}

// stop closes the queue after its sender has ended. What waited is dropped: it
// is older than whatever Raft says after the reconnection.
func (q *queue) stop() (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	dropped = len(q.mu.records)
	q.mu.open = false
	q.mu.total.Dropped += uint64(dropped)
	q.mu.records, q.mu.bytes, q.mu.taken = nil, 0, 0
	return dropped
}

// take swaps all waiting records for an empty slice that the caller has done
// with. Their bytes count until the caller says sent.
func (q *queue) take(empty []record) []record {
	q.mu.Lock()
	defer q.mu.Unlock()
	records := q.mu.records
	q.mu.records = empty[:0]
	q.mu.taken = q.mu.bytes
	q.mu.total.Taken += uint64(len(records))
	return records
}

// sent says that nothing of the last take is held any more.
func (q *queue) sent() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.bytes -= q.mu.taken
	q.mu.taken = 0
}

func (q *queue) totals() queueTotals {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.total
}
