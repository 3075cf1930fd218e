package mvcc

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// model is the store as simple as can be: every revision is a whole map.
type model struct {
	rev     api.Revision
	compact api.Revision
	states  map[api.Revision]map[string]*mvccpb.KeyValue
	leases  map[api.LeaseID]int64
	events  []modelEvent
}

type modelEvent struct {
	rev    api.Revision
	delete bool
	kv     *mvccpb.KeyValue
	prev   *mvccpb.KeyValue
}

func newModel() *model {
	return &model{rev: 1, compact: -1, states: map[api.Revision]map[string]*mvccpb.KeyValue{1: {}}, leases: map[api.LeaseID]int64{}}
}

func (m *model) next() map[string]*mvccpb.KeyValue {
	s := map[string]*mvccpb.KeyValue{}
	for k, v := range m.states[m.rev] {
		s[k] = v
	}
	return s
}

// command is one entry of the log: transactions of puts and deletes, lease
// operations, or a compaction.
type command struct {
	kind    string // txn, grant, revoke, checkpoint, compact
	ops     []commandOp
	lease   api.LeaseID
	n       int64
	compact api.Revision
}

type commandOp struct {
	delete   bool
	key, end string
	value    string
	lease    api.LeaseID
}

func (m *model) apply(c command) {
	switch c.kind {
	case "txn":
		s, changed := m.next(), false
		for _, op := range c.ops {
			if op.delete {
				changed = m.delete(s, op.key, op.end) || changed
				continue
			}
			changed = true
			kv := &mvccpb.KeyValue{
				Key: []byte(op.key), Value: []byte(op.value), Lease: int64(op.lease),
				CreateRevision: int64(m.rev) + 1, ModRevision: int64(m.rev) + 1, Version: 1,
			}
			if op.value == "" {
				kv.Value = nil
			}
			old := s[op.key]
			if old != nil {
				kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
			}
			s[op.key] = kv
			var prev *mvccpb.KeyValue // what was there before the transaction
			if kv.CreateRevision != kv.ModRevision {
				prev = m.states[m.rev][op.key]
			}
			m.events = append(m.events, modelEvent{rev: m.rev + 1, kv: kv, prev: prev})
		}
		if changed {
			m.rev++
			m.states[m.rev] = s
		}
	case "grant":
		m.leases[c.lease] = c.n
	case "revoke":
		delete(m.leases, c.lease)
		s, changed := m.next(), false
		for _, k := range sortedKeys(s) {
			if s[k].Lease == int64(c.lease) {
				changed = m.delete(s, k, "") || changed
			}
		}
		if changed {
			m.rev++
			m.states[m.rev] = s
		}
	case "compact":
		if c.compact > m.compact && c.compact <= m.rev {
			m.compact = c.compact
		}
	}
}

func (m *model) delete(s map[string]*mvccpb.KeyValue, key, end string) bool {
	changed := false
	for _, k := range sortedKeys(s) {
		if inRange(k, key, end) {
			m.events = append(m.events, modelEvent{
				rev: m.rev + 1, delete: true, prev: m.states[m.rev][k],
				kv: &mvccpb.KeyValue{Key: []byte(k), ModRevision: int64(m.rev) + 1},
			})
			delete(s, k)
			changed = true
		}
	}
	return changed
}

func sortedKeys(s map[string]*mvccpb.KeyValue) []string {
	var keys []string
	for k := range s {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func inRange(k, key, end string) bool {
	switch end {
	case "":
		return k == key
	case "\x00":
		return k >= key
	}
	return k >= key && k < end
}

// applyTo brings a command to a store, as the server does.
func (c command) applyTo(t *testing.T, s *Store, index api.Index) {
	t.Helper()
	c.change(t, s)
	s.Seal(index, 1)
	s.Publish()
}

// change is the part of it that readers do not see yet.
func (c command) change(t *testing.T, s *Store) {
	t.Helper()
	x := s.Begin()
	defer x.End()
	switch c.kind {
	case "txn":
		for _, op := range c.ops {
			if op.delete {
				x.DeleteRange([]byte(op.key), []byte(op.end), nil)
			} else {
				x.Put([]byte(op.key), []byte(op.value), op.lease)
			}
		}
	case "grant":
		if err := x.LeaseGrant(c.lease, c.n); err != nil {
			t.Fatal(err)
		}
	case "revoke":
		if err := x.LeaseRevoke(c.lease); err != nil {
			t.Fatal(err)
		}
	case "checkpoint":
		x.LeaseCheckpoint(c.lease, c.n)
	case "compact":
		if err := x.Compact(c.compact); err != nil && !errors.Is(err, ErrCompacted) && !errors.Is(err, ErrFutureRevision) {
			t.Fatal(err)
		}
	}
}

// randomCommand draws a command that the model's state allows.
func randomCommand(r *rand.Rand, m *model) command {
	key := func() string {
		return fmt.Sprintf("/%c/%0*d", 'a'+rune(r.Intn(3)), 1+r.Intn(12), r.Intn(25))
	}
	someLease := func() api.LeaseID {
		if len(m.leases) == 0 || r.Intn(3) > 0 {
			return 0
		}
		var ids []api.LeaseID
		for id := range m.leases {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		return ids[r.Intn(len(ids))]
	}
	switch n := r.Intn(100); {
	case n < 5:
		id := api.LeaseID(r.Intn(1000) + 1)
		if _, ok := m.leases[id]; !ok {
			return command{kind: "grant", lease: id, n: int64(r.Intn(100))}
		}
	case n < 8:
		if id := someLease(); id != 0 {
			return command{kind: "revoke", lease: id}
		}
	case n < 10:
		return command{kind: "checkpoint", lease: api.LeaseID(r.Intn(1000) + 1), n: int64(r.Intn(50))}
	case n < 15:
		return command{kind: "compact", compact: m.rev - api.Revision(r.Intn(40)) + 2}
	}
	c := command{kind: "txn"}
	for range 1 + r.Intn(4) {
		op := commandOp{key: key(), value: string(bytes.Repeat([]byte{byte(r.Intn(256))}, r.Intn(60))), lease: someLease()}
		if r.Intn(3) == 0 {
			op.delete = true
			if r.Intn(4) == 0 {
				op.end = []string{"\x00", op.key + "\xff", "/b", "/c"}[r.Intn(4)]
			}
		}
		c.ops = append(c.ops, op)
	}
	return c
}

// compareAt compares a whole revision, in every way of reading it.
func compareAt(t *testing.T, s *Store, m *model, at api.Revision, r *rand.Rand) {
	t.Helper()
	x, err := s.Read(at)
	want := at
	if at == 0 {
		want = m.rev
	}
	switch {
	case at > m.rev:
		if !errors.Is(err, ErrFutureRevision) {
			t.Fatalf("read at %d of %d: %v", at, m.rev, err)
		}
		return
	case at != 0 && at < m.compact:
		if !errors.Is(err, ErrCompacted) {
			t.Fatalf("read at %d, compacted %d: %v", at, m.compact, err)
		}
		return
	case err != nil:
		t.Fatal(err)
	}
	defer x.Release()
	if r.Intn(8) == 0 {
		x.Pin()
	}
	if x.Revision() != m.rev || x.At() != want {
		t.Fatalf("reads %d of %d, want %d of %d", x.At(), x.Revision(), want, m.rev)
	}
	state := m.states[want]
	var got []string
	x.Scan([]byte{0}, []byte{0}, func(it Item) bool {
		got = append(got, string(it.Key))
		compareItem(t, x, it, state[string(it.Key)])
		return true
	})
	if keys := sortedKeys(state); !slices.Equal(got, keys) {
		t.Fatalf("at %d: keys %q, want %q", want, got, keys)
	}
	for range 3 {
		compareRange(t, x, state, r)
	}
	for k := range m.states[m.rev] {
		it, ok := x.Get([]byte(k))
		if ok != (state[k] != nil) {
			t.Fatalf("at %d: get %q: %v", want, k, ok)
		}
		if ok {
			compareItem(t, x, it, state[k])
		}
		if c := x.Count([]byte(k), nil); (c == 1) != ok {
			t.Fatalf("at %d: count %q: %d", want, k, c)
		}
	}
}

// compareRange compares a part of a revision, counted, and read up to a limit.
func compareRange(t *testing.T, x *ReadTxn, state map[string]*mvccpb.KeyValue, r *rand.Rand) {
	t.Helper()
	from, to := fmt.Sprintf("/%c", 'a'+rune(r.Intn(4))), fmt.Sprintf("/%c/%d", 'a'+rune(r.Intn(4)), r.Intn(20))
	n := 0
	for k := range state {
		if inRange(k, from, to) {
			n++
		}
	}
	if c := x.Count([]byte(from), []byte(to)); c != n {
		t.Fatalf("at %d: count [%q, %q) = %d, want %d", x.At(), from, to, c, n)
	}
	limit, i, last := r.Intn(2*n+2), 0, ""
	x.Scan([]byte(from), []byte(to), func(it Item) bool {
		if !inRange(string(it.Key), from, to) || string(it.Key) <= last {
			t.Fatalf("at %d: scan [%q, %q) finds %q after %q", x.At(), from, to, it.Key, last)
		}
		last = string(it.Key)
		compareItem(t, x, it, state[last])
		i++
		return i != limit
	})
	if i != n && i != limit {
		t.Fatalf("at %d: scan [%q, %q) finds %d of %d, limit %d", x.At(), from, to, i, n, limit)
	}
}

func compareItem(t *testing.T, x *ReadTxn, it Item, want *mvccpb.KeyValue) {
	t.Helper()
	if want == nil {
		t.Fatalf("at %d: %q should not be there", x.At(), it.Key)
	}
	rec, err := x.Record(it)
	if err != nil {
		t.Fatal(err)
	}
	got := &mvccpb.KeyValue{}
	if err := proto.Unmarshal(rec, got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) || it.Create != api.Revision(want.CreateRevision) || it.Mod != api.Revision(want.ModRevision) ||
		it.Version != want.Version || it.Lease != api.LeaseID(want.Lease) {
		t.Fatalf("at %d: item %+v with record %v, want %v", x.At(), it, got, want)
	}
}

// compareHistory compares the events from a revision on.
func compareHistory(t *testing.T, s *Store, m *model, from api.Revision) {
	t.Helper()
	i := 0
	for i < len(m.events) && m.events[i].rev < from {
		i++
	}
	err := s.History(from, m.rev, func(e *Event) bool {
		if i >= len(m.events) {
			t.Fatalf("an event too many: %+v", e)
		}
		w := m.events[i]
		i++
		kv, prev := &mvccpb.KeyValue{}, &mvccpb.KeyValue{}
		if err := proto.Unmarshal(e.KV, kv); err != nil {
			t.Fatal(err)
		}
		if e.Rev != w.rev || e.Delete != w.delete || !proto.Equal(kv, w.kv) || string(e.Key) != string(w.kv.Key) {
			t.Fatalf("event %d %q delete %v %v, want %+v", e.Rev, e.Key, e.Delete, kv, w)
		}
		if e.Create != (!w.delete && w.kv.CreateRevision == w.kv.ModRevision) {
			t.Fatalf("event %d %q create %v, want %+v", e.Rev, e.Key, e.Create, w)
		}
		err := e.FixPrev()
		if errors.Is(err, ErrCompacted) && w.rev == m.compact {
			return true // what it replaced is gone
		}
		if err != nil {
			t.Fatalf("event %d %q: %v", e.Rev, e.Key, err)
		}
		if (e.Prev != nil) != (w.prev != nil) {
			t.Fatalf("event %d %q: prev %x, want %v", e.Rev, e.Key, e.Prev, w.prev)
		}
		if err := proto.Unmarshal(e.Prev, prev); err != nil {
			t.Fatal(err)
		}
		if w.prev != nil && !proto.Equal(prev, w.prev) {
			t.Fatalf("event %d %q: prev %v, want %v", e.Rev, e.Key, prev, w.prev)
		}
		return true
	})
	if from < m.compact {
		if !errors.Is(err, ErrCompacted) {
			t.Fatalf("history from %d, compacted %d: %v", from, m.compact, err)
		}
		return
	}
	if err != nil || i != len(m.events) {
		t.Fatalf("history from %d: %d of %d events, %v", from, i, len(m.events), err)
	}
}

func compareLeases(t *testing.T, s *Store, m *model) {
	t.Helper()
	if got := s.Leases(); len(got) != len(m.leases) {
		t.Fatalf("leases %v, want %v", got, m.leases)
	}
	for id, ttl := range m.leases {
		l, ok := s.Lease(id)
		if !ok || l.TTL != ttl {
			t.Fatalf("lease %d: %+v, %v; want ttl %d", id, l, ok, ttl)
		}
		var want []string
		for _, k := range sortedKeys(m.states[m.rev]) {
			if m.states[m.rev][k].Lease == int64(id) {
				want = append(want, k)
			}
		}
		var got []string
		for _, k := range l.Keys() {
			got = append(got, string(k))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("lease %d: keys %q, want %q", id, got, want)
		}
	}
}

func mustCheck(t testing.TB, s *Store) {
	t.Helper()
	for _, err := range s.Check() {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// unread makes the store believe that nobody has read for long.
func unread(s *Store) {
	s.asked.Store(false)
	s.mu.Lock()
	s.mu.kept = 0
	s.mu.Unlock()
}

func openOn(t testing.TB, e engine.Engine, batch int) *Store {
	t.Helper()
	s, err := Open(Config{Clock: clock.System(), Engine: e, CompactionBatch: batch})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestModel drives the store and the model with the same random commands,
// flushes, compacts and crashes the store at random moments, and compares.
func TestModel(t *testing.T) {
	for seed := range int64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewSource(seed))
			m := newModel()
			mem := engine.NewMemory()
			s := openOn(t, mem, 1+r.Intn(20))
			var log []command
			for i := 0; i < 400; i++ {
				c := randomCommand(r, m)
				log = append(log, c)
				// A reader may come at any moment, while states have their index
				// ready for it or not.
				peek := func() {
					if r.Intn(12) == 0 {
						compareAt(t, s, m, max(0, m.rev-api.Revision(r.Intn(6))), r)
					}
					if r.Intn(3) == 0 {
						unread(s)
					}
				}
				c.change(t, s)
				peek()
				s.Seal(api.Index(len(log)), 1)
				peek()
				m.apply(c)
				s.Publish()
				switch r.Intn(12) {
				case 0:
					if err := s.Flush(); err != nil {
						t.Fatal(err)
					}
				case 1, 2:
					if _, err := s.CompactStep(); err != nil {
						t.Fatal(err)
					}
				case 3:
					compareAt(t, s, m, max(0, m.rev-api.Revision(r.Intn(30))), r)
				case 4:
					compareHistory(t, s, m, max(2, m.rev-api.Revision(r.Intn(40))))
				case 5:
					mustCheck(t, s)
				}
				if r.Intn(60) == 0 { // crash
					mem = mem.Crash()
					s = openOn(t, mem, 1+r.Intn(20))
					mustCheck(t, s)
					if at, _ := s.Applied(); at != s.Durable() {
						t.Fatalf("opened at %d, durable %d", at, s.Durable())
					}
					for j := s.Durable(); int(j) < len(log); j++ {
						log[j].applyTo(t, s, j+1)
					}
				}
			}
			for at := m.rev + 1; at >= max(m.compact-1, 0); at-- {
				compareAt(t, s, m, at, r)
			}
			compareHistory(t, s, m, max(m.compact, 2))
			compareLeases(t, s, m)
			mustCheck(t, s)
		})
	}
}
