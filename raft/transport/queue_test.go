package transport

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func vote(index uint64) record {
	return messageRecord(&raftpb.Message{Type: raftpb.MsgPreVote.Enum(), Index: proto.Uint64(index)})
}

// accounted is the queue's invariant.
func accounted(t *testing.T, q *queue) {
	t.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	total := q.mu.total
	if total.Offered != total.Taken+total.Dropped+uint64(len(q.mu.records)) {
		t.Fatalf("offered %d, taken %d, dropped %d, waiting %d", total.Offered, total.Taken, total.Dropped, len(q.mu.records))
	}
	bytes := 0
	for _, r := range q.mu.records {
		bytes += r.body
	}
	if bytes+q.mu.taken != q.mu.bytes {
		t.Fatalf("%d bytes wait, %d are with the sender, %d are counted", bytes, q.mu.taken, q.mu.bytes)
	}
}

func TestQueueWithoutConnection(t *testing.T) {
	q := newQueue()
	if q.put(messageRecord(heartbeat(1, 2, 1)), forwardRecord(1, nil)) != 2 {
		t.Fatal("something stale was kept")
	}
	for i := range uint64(idleVotes + 3) {
		q.put(vote(i))
		accounted(t, q)
	}
	q.start()
	records := q.take(nil)
	if len(records) != idleVotes || records[0].msg.GetIndex() != 3 {
		t.Fatalf("%d vote requests were kept, from %d", len(records), records[0].msg.GetIndex())
	}
	accounted(t, q)
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue()
	q.start()
	for range queueRecords {
		if q.put(forwardRecord(1, nil)) != 0 {
			t.Fatal("dropped before the bound")
		}
	}
	if q.put(forwardRecord(1, nil)) != 1 {
		t.Fatal("the number of records is not bounded")
	}
	accounted(t, q)
	q.take(nil)
	q.sent()
	if q.put(forwardRecord(1, make([]byte, queueBytes+1))) != 0 {
		t.Fatal("one large record must pass an empty queue")
	}
	if q.put(forwardRecord(1, make([]byte, 10))) != 1 {
		t.Fatal("the bytes are not bounded")
	}
	accounted(t, q)
	large := q.take(nil)
	if q.put(forwardRecord(1, nil)) != 1 {
		t.Fatal("bytes that the sender still holds do not count")
	}
	accounted(t, q)
	q.sent()
	clear(large)
	if q.put(forwardRecord(1, nil)) != 0 {
		t.Fatal("what was sent still counts")
	}
	accounted(t, q)
	if q.stop() != 1 {
		t.Fatal("what waits must be dropped when the sender ends")
	}
	accounted(t, q)
}

func TestEventsOfOneKindAreOne(t *testing.T) {
	q := newEventQueue()
	q.up(2)
	for range 1000 {
		q.unreachable(2)
		q.unreachable(3)
	}
	q.down(2)
	if got := q.take(); len(got) != 4 {
		t.Fatalf("%v", got)
	}
	q.unreachable(2)
	if got := q.take(); len(got) != 1 {
		t.Fatalf("a drop after the handler was told is news: %v", got)
	}
}
