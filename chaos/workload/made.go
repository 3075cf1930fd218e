package workload

import (
	"container/heap"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// Make makes a history without a fault of so many calls, by clients that work at
// the same time, on a store that is a model: to see how fast the oracles are, and
// to damage it and see whether they notice. It is what a harness would record of
// real members, without the members' logs.
func Make(seed uint64, calls, clients int) *history.History {
	m := &maker{
		r: rand.New(rand.NewPCG(seed, 99)), store: oracle.NewModel(), left: calls, ends: map[int64]time.Duration{}, granted: map[int64]int64{},
		h: &history.History{Meta: history.Meta{Ring: "made", Seed: seed, Election: time.Second}},
	}
	for id := range uint64(3) {
		m.h.Members = append(m.h.Members, history.Member{ID: id + 1, Name: string(rune('a' + id))})
	}
	m.watch(clients, watchcheck.Request{Key: []byte{0}, End: []byte{0}, Start: 1})
	m.watch(clients+1, watchcheck.Request{Key: []byte("key/"), End: []byte("key0"), Start: 1})
	for n := range clients {
		m.next(n, m.source(n, seed))
	}
	for len(m.events) > 0 {
		e := heap.Pop(&m.events).(moment)
		m.now = e.at
		m.expire()
		e.run()
	}
	m.finish()
	return m.h
}

type maker struct {
	h       *history.History
	r       *rand.Rand
	store   *oracle.Model
	now     time.Duration
	events  moments
	seq     int
	left    int
	told    int // events of the store that watches have
	ends    map[int64]time.Duration
	granted map[int64]int64
	soonest time.Duration // that a lease can end
}

type moment struct {
	at  time.Duration
	seq int
	run func()
}

type moments []moment

func (q moments) Len() int { return len(q) }
func (q moments) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q moments) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *moments) Push(x any)   { *q = append(*q, x.(moment)) }
func (q *moments) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func (m *maker) after(d time.Duration, run func()) {
	m.seq++
	heap.Push(&m.events, moment{m.now + d, m.seq, run})
}

func (m *maker) source(n int, seed uint64) Source {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	switch n % 4 {
	case 1:
		return NewLists(n, r)
	case 2:
		return NewLocks(n, r)
	case 3:
		return NewRegistry(n, r, 40)
	}
	return &Mixed{Client: n, R: r, Keys: 50, ValueBytes: 40, Mix: Mix{
		Put: 20, Get: 20, List: 1, Stale: 2, Delete: 4, Swap: 12, Count: 6, Txn: 6, ReadTxn: 2, Old: 2, Compact: 1, Grant: 2, KeepAlive: 4, Revoke: 1, LeasedPut: 3,
	}}
}

// some is a time of some hundred microseconds.
func (m *maker) some() time.Duration { return time.Duration(1+m.r.IntN(500)) * time.Microsecond }

func (m *maker) next(n int, s Source) {
	if m.left == 0 {
		return
	}
	method, req := s.Next()
	if method == "" {
		m.after(10*time.Millisecond, func() { m.next(n, s) })
		return
	}
	m.left--
	op := &history.Op{ID: m.left, Client: n, Member: uint64(n%3) + 1, Method: method, Call: m.now, Request: req, Outcome: history.OK}
	lost, dropped := m.r.IntN(300) == 0, m.r.IntN(2) == 0
	m.after(m.some(), func() {
		if !lost || !dropped {
			m.answer(op)
		}
	})
	m.after(m.some()+500*time.Microsecond, func() {
		op.Return = m.now
		if lost {
			op.Outcome, op.Response, op.Err = history.Unknown, nil, "the connection broke"
		}
		m.h.Ops = append(m.h.Ops, op)
		s.Learn(op)
		m.next(n, s)
	})
}

// answer is what the store does, and says.
func (m *maker) answer(op *history.Op) {
	var resp proto.Message
	header := &pb.ResponseHeader{RaftTerm: 2, MemberId: op.Member}
	switch r := op.Request.(type) {
	case *pb.RangeRequest:
		if r.Revision > 0 && r.Revision < m.store.Compact {
			op.Outcome, op.Err = history.Refused, "compacted"
			return
		}
		out := m.store.Range(r, m.store.Rev)
		out.Header = header
		resp = out
	case *pb.LeaseKeepAliveRequest:
		out := &pb.LeaseKeepAliveResponse{Header: header, ID: r.ID}
		if m.ends[r.ID] > 0 {
			out.TTL = m.granted[r.ID]
			m.ends[r.ID] = m.now + time.Duration(out.TTL)*time.Second
		}
		resp = out
	default:
		out := m.store.Apply(1, history.Command{Request: op.Request})
		if out.Err != nil {
			op.Outcome, op.Err = history.Refused, out.Err.Error()
			return
		}
		resp = out.Response
		m.leases(op.Request)
		setHeader(resp, header)
	}
	header.Revision = m.store.Rev
	op.Response = resp
	m.tell()
}

func setHeader(r proto.Message, h *pb.ResponseHeader) {
	switch r := r.(type) {
	case *pb.PutResponse:
		r.Header = h
	case *pb.DeleteRangeResponse:
		r.Header = h
	case *pb.TxnResponse:
		r.Header = h
	case *pb.CompactionResponse:
		r.Header = h
	case *pb.LeaseGrantResponse:
		r.Header = h
	case *pb.LeaseRevokeResponse:
		r.Header = h
	}
}

func (m *maker) leases(req proto.Message) {
	switch r := req.(type) {
	case *pb.LeaseGrantRequest:
		m.granted[r.ID] = r.TTL
		m.ends[r.ID] = m.now + time.Duration(r.TTL)*time.Second
		m.soonest = min(m.soonest, m.ends[r.ID])
	case *pb.LeaseRevokeRequest:
		delete(m.ends, r.ID)
	}
}

// expire ends the leases whose time is up.
func (m *maker) expire() {
	if m.now < m.soonest {
		return
	}
	m.soonest = math.MaxInt64
	for _, id := range slices.Sorted(maps.Keys(m.ends)) {
		if at := m.ends[id]; at > m.now {
			m.soonest = min(m.soonest, at)
			continue
		}
		m.store.Apply(1, history.Command{Leader: 1, Expired: []history.Lease{{ID: id}}})
		delete(m.ends, id)
		m.tell() // one lease is one revision
	}
}

func (m *maker) watch(client int, req watchcheck.Request) {
	w := &history.Watch{ID: client, Client: client, Member: 1}
	w.Request = req
	w.Responses = []watchcheck.Response{{Created: true, Revision: 1}}
	w.At = []time.Duration{0}
	m.h.Watches = append(m.h.Watches, w)
}

// tell tells watches what has changed: one revision.
func (m *maker) tell() {
	events := m.store.Events[m.told:]
	m.told = len(m.store.Events)
	if len(events) == 0 {
		return
	}
	for i, w := range m.h.Watches {
		out := watchcheck.Response{Revision: m.store.Rev}
		for _, e := range events {
			if i == 0 || string(e.Kv.Key) >= "key/" && string(e.Kv.Key) < "key0" {
				out.Events = append(out.Events, &mvccpb.Event{Type: e.Type, Kv: e.Kv})
			}
		}
		if len(out.Events) > 0 {
			w.Responses, w.At = append(w.Responses, out), append(w.At, m.now)
		}
	}
}

// finish lets leases end, and says what each member holds.
func (m *maker) finish() {
	for len(m.ends) > 0 {
		m.now = m.soonest
		m.expire()
	}
	m.h.End = m.now + time.Second
	for _, member := range m.h.Members {
		m.h.States = append(m.h.States, history.State{
			Member: member.ID, Revision: m.store.Rev, Compact: m.store.Compact, Keys: m.store.Keys(), Leases: map[int64]int64{}, Rows: map[string]string{"auth": "off"},
		})
	}
}
