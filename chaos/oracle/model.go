package oracle

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"sort"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/chaos/history"
)

// Model is what the store must be: etcd's API as one would explain it, with no
// care for speed. It keeps every version of every key.
type Model struct {
	Rev, Compact int64 // Compact is -1 before the first
	keys         map[string][]version
	names        names // of keys
	leases       map[int64]*modelLease
	full         map[uint64]alarm // members with the alarm NOSPACE

	Events []*mvccpb.Event // in order, for watches
}

type version struct {
	mod, create, version, lease int64
	value                       []byte
	dead                        bool
}

type modelLease struct {
	ttl  int64
	keys map[string]bool
}

// NewModel is the empty store.
func NewModel() *Model {
	return &Model{Rev: 1, Compact: -1, keys: map[string][]version{}, leases: map[int64]*modelLease{}, full: map[uint64]alarm{}}
}

// Result is what the model answers to a command.
type Result struct {
	Rev      int64
	Response proto.Message
	Err      error
	Changed  bool
	Removed  []int64 // leases that a leader saw expire
}

// Apply carries out one command of an entry of a term.
func (m *Model) Apply(term uint64, c history.Command) Result {
	if err := m.refuses(c.Request); err != nil {
		return Result{Rev: m.Rev, Err: err}
	}
	switch r := c.Request.(type) {
	case nil:
		return m.expire(term, c)
	case *pb.AlarmRequest:
		return m.alarm(r, c.Own)
	case *pb.PutRequest:
		return m.write(func(w *writer) (proto.Message, error) { return w.put(r) })
	case *pb.DeleteRangeRequest:
		return m.write(func(w *writer) (proto.Message, error) { return w.remove(r), nil })
	case *pb.TxnRequest:
		return m.write(func(w *writer) (proto.Message, error) { return w.txn(r) })
	case *pb.CompactionRequest:
		return m.compact(r.Revision)
	case *pb.LeaseGrantRequest:
		if m.leases[r.ID] != nil {
			return Result{Rev: m.Rev, Err: api.ErrLeaseExists}
		}
		m.leases[r.ID] = &modelLease{ttl: r.TTL, keys: map[string]bool{}}
		return Result{Rev: m.Rev, Response: &pb.LeaseGrantResponse{ID: r.ID, TTL: r.TTL}}
	case *pb.LeaseRevokeRequest:
		if m.leases[r.ID] == nil {
			return Result{Rev: m.Rev, Err: api.ErrLeaseNotFound}
		}
		return m.revoke(r.ID)
	}
	return Result{Rev: m.Rev}
}

func (m *Model) compact(rev int64) Result {
	switch {
	case rev <= m.Compact:
		return Result{Rev: m.Rev, Err: api.ErrCompacted}
	case rev > m.Rev:
		return Result{Rev: m.Rev, Err: api.ErrFutureRevision}
	}
	m.Compact = rev
	return Result{Rev: m.Rev, Response: &pb.CompactionResponse{}}
}

// expire revokes what the leader of the entry's own term saw expire, each lease
// in a revision of its own.
func (m *Model) expire(term uint64, c history.Command) Result {
	out := Result{Rev: m.Rev}
	if c.Leader != term {
		return out
	}
	for _, l := range c.Expired {
		if m.leases[l.ID] != nil {
			out.Removed = append(out.Removed, l.ID)
			out.Changed = m.revoke(l.ID).Changed || out.Changed
		}
	}
	out.Rev = m.Rev
	return out
}

func (m *Model) revoke(id int64) Result {
	keys := sorted(m.leases[id].keys)
	r := m.write(func(w *writer) (proto.Message, error) {
		for _, k := range keys {
			w.kill(k)
		}
		return &pb.LeaseRevokeResponse{}, nil
	})
	delete(m.leases, id)
	return r
}

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }

// writer is one transaction in the making; its changes are visible to itself.
type writer struct {
	m       *Model
	rev     int64 // that its changes get
	changed bool
}

func (m *Model) write(run func(*writer) (proto.Message, error)) Result {
	w := &writer{m: m, rev: m.Rev + 1}
	resp, err := run(w)
	if w.changed {
		m.Rev = w.rev
	}
	return Result{Rev: m.Rev, Response: resp, Err: err, Changed: w.changed}
}

func (w *writer) set(key string, v version) {
	m := w.m
	old, live := m.latest(key)
	if live && old.lease != 0 && m.leases[old.lease] != nil {
		delete(m.leases[old.lease].keys, key)
	}
	if m.keys[key] == nil {
		m.names.add(key)
	}
	m.keys[key] = append(m.keys[key], v)
	e := &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: w.rev}}
	if v.dead {
		e.Type = mvccpb.Event_DELETE
	} else {
		e.Kv = v.kv(key)
		if v.lease != 0 {
			m.leases[v.lease].keys[key] = true
		}
	}
	m.Events = append(m.Events, e)
	w.changed = true
}

func (w *writer) kill(key string) { w.set(key, version{mod: w.rev, dead: true}) }

func (w *writer) put(r *pb.PutRequest) (proto.Message, error) {
	if r.Lease != 0 && w.m.leases[r.Lease] == nil {
		return nil, api.ErrLeaseNotFound
	}
	key := string(r.Key)
	old, live := w.m.latest(key)
	if (r.IgnoreValue || r.IgnoreLease) && !live {
		return nil, api.ErrKeyNotFound
	}
	v := version{mod: w.rev, create: w.rev, version: 1, lease: r.Lease, value: r.Value}
	resp := &pb.PutResponse{}
	if live {
		v.create, v.version = old.create, old.version+1
		if r.IgnoreValue {
			v.value = old.value
		}
		if r.IgnoreLease {
			v.lease = old.lease
		}
		if r.PrevKv {
			resp.PrevKv = old.kv(key)
		}
	}
	w.set(key, v)
	return resp, nil
}

func (w *writer) remove(r *pb.DeleteRangeRequest) proto.Message {
	resp := &pb.DeleteRangeResponse{}
	for _, key := range w.m.live(r.Key, r.RangeEnd) {
		v, _ := w.m.latest(key)
		resp.Deleted++
		if r.PrevKv {
			resp.PrevKvs = append(resp.PrevKvs, v.kv(key))
		}
		w.kill(key)
	}
	return resp
}

// txn decides by the state before it. A put that names no lease refuses the whole.
func (w *writer) txn(r *pb.TxnRequest) (proto.Message, error) {
	path := map[*pb.TxnRequest]bool{}
	w.m.choose(r, path)
	if err := w.m.verify(r, path); err != nil {
		return nil, err
	}
	return w.run(r, path), nil
}

func (m *Model) choose(r *pb.TxnRequest, path map[*pb.TxnRequest]bool) {
	path[r] = true
	for _, c := range r.Compare {
		path[r] = path[r] && m.holds(c)
	}
	for _, op := range branch(r, path) {
		if t := op.GetRequestTxn(); t != nil {
			m.choose(t, path)
		}
	}
}

func branch(r *pb.TxnRequest, path map[*pb.TxnRequest]bool) []*pb.RequestOp {
	if path[r] {
		return r.Success
	}
	return r.Failure
}

func (m *Model) verify(r *pb.TxnRequest, path map[*pb.TxnRequest]bool) error {
	for _, op := range branch(r, path) {
		if p := op.GetRequestPut(); p != nil && p.Lease != 0 && m.leases[p.Lease] == nil {
			return api.ErrLeaseNotFound
		}
		if t := op.GetRequestTxn(); t != nil {
			if err := m.verify(t, path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *writer) run(r *pb.TxnRequest, path map[*pb.TxnRequest]bool) *pb.TxnResponse {
	resp := &pb.TxnResponse{Succeeded: path[r]}
	for _, op := range branch(r, path) {
		out := &pb.ResponseOp{}
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			out.Response = &pb.ResponseOp_ResponseRange{ResponseRange: w.m.Range(o.RequestRange, w.rev)}
		case *pb.RequestOp_RequestPut:
			put, _ := w.put(o.RequestPut) // verified
			out.Response = &pb.ResponseOp_ResponsePut{ResponsePut: put.(*pb.PutResponse)}
		case *pb.RequestOp_RequestDeleteRange:
			out.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: w.remove(o.RequestDeleteRange).(*pb.DeleteRangeResponse)}
		case *pb.RequestOp_RequestTxn:
			out.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: w.run(o.RequestTxn, path)}
		}
		resp.Responses = append(resp.Responses, out)
	}
	return resp
}

// holds evaluates one compare; of a range every key must hold, and an empty one
// is compared like an absent key.
func (m *Model) holds(c *pb.Compare) bool {
	if len(c.RangeEnd) == 0 {
		v, _ := m.latest(string(c.Key))
		return v.holds(c)
	}
	keys := m.live(c.Key, c.RangeEnd)
	if len(keys) == 0 {
		return version{}.holds(c)
	}
	for _, key := range keys {
		if v, _ := m.latest(key); !v.holds(c) {
			return false
		}
	}
	return true
}

func (v version) holds(c *pb.Compare) bool {
	if v.dead {
		v = version{}
	}
	var d int
	num := func(a, b int64) int { return int(min(1, max(-1, a-b))) }
	switch t := c.TargetUnion.(type) {
	case *pb.Compare_Value:
		if v.mod == 0 {
			return false // a key that is absent has no value to compare
		}
		d = bytes.Compare(v.value, t.Value)
	case *pb.Compare_ModRevision:
		d = num(v.mod, t.ModRevision)
	case *pb.Compare_CreateRevision:
		d = num(v.create, t.CreateRevision)
	case *pb.Compare_Version:
		d = num(v.version, t.Version)
	case *pb.Compare_Lease:
		d = num(v.lease, t.Lease)
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return d == 0
	case pb.Compare_NOT_EQUAL:
		return d != 0
	case pb.Compare_GREATER:
		return d > 0
	}
	return d < 0
}

func (m *Model) latest(key string) (version, bool) {
	all := m.keys[key]
	if len(all) == 0 {
		return version{}, false
	}
	v := all[len(all)-1]
	return v, !v.dead
}

// at is a key as it was when rev was the newest revision.
func (m *Model) at(key string, rev int64) (version, bool) {
	all := m.keys[key]
	i := sort.Search(len(all), func(i int) bool { return all[i].mod > rev })
	if i == 0 || all[i-1].dead {
		return version{}, false
	}
	return all[i-1], true
}

// within calls f with the keys of a range that ever were, in order.
func (m *Model) within(key, end []byte, f func(key string)) {
	if len(end) == 0 {
		if m.keys[string(key)] != nil {
			f(string(key))
		}
		return
	}
	last, all := string(end), len(end) == 1 && end[0] == 0
	m.names.from(string(key), func(name string) bool {
		if !all && name >= last {
			return false
		}
		f(name)
		return true
	})
}

// live is within, of the keys that there are now.
func (m *Model) live(key, end []byte) (keys []string) {
	m.within(key, end, func(k string) {
		if _, live := m.latest(k); live {
			keys = append(keys, k)
		}
	})
	return keys
}

func (v version) kv(key string) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: []byte(key), Value: v.value, CreateRevision: v.create, ModRevision: v.mod, Version: v.version, Lease: v.lease,
	}
}

// Range answers a read when rev is the newest revision. Count is of the whole
// range, whatever the limit and the bounds on revisions leave of it.
func (m *Model) Range(r *pb.RangeRequest, rev int64) *pb.RangeResponse {
	if r.Revision > 0 {
		rev = r.Revision
	}
	resp := &pb.RangeResponse{}
	type found struct {
		key string
		version
	}
	var all []found
	m.within(r.Key, r.RangeEnd, func(key string) {
		v, live := m.at(key, rev)
		if !live {
			return
		}
		resp.Count++
		if !r.CountOnly && bounded(v.mod, r.MinModRevision, r.MaxModRevision) && bounded(v.create, r.MinCreateRevision, r.MaxCreateRevision) {
			all = append(all, found{key, v})
		}
	})
	if order := sortOrder(r); order != pb.RangeRequest_NONE {
		slices.SortStableFunc(all, func(a, b found) int {
			c := 0
			switch r.SortTarget {
			case pb.RangeRequest_KEY:
				c = cmp.Compare(a.key, b.key)
			case pb.RangeRequest_VERSION:
				c = cmp.Compare(a.version.version, b.version.version)
			case pb.RangeRequest_CREATE:
				c = cmp.Compare(a.create, b.create)
			case pb.RangeRequest_MOD:
				c = cmp.Compare(a.mod, b.mod)
			case pb.RangeRequest_VALUE:
				c = bytes.Compare(a.value, b.value)
			}
			if order == pb.RangeRequest_DESCEND {
				return -c
			}
			return c
		})
	}
	if r.Limit > 0 && int64(len(all)) > r.Limit {
		all, resp.More = all[:r.Limit], true
	}
	for _, f := range all {
		kv := f.kv(f.key)
		if r.KeysOnly {
			kv.Value, kv.Lease = nil, 0
		}
		resp.Kvs = append(resp.Kvs, kv)
	}
	return resp
}

func bounded(rev, low, high int64) bool { return rev >= low && (high == 0 || rev <= high) }

// sortOrder: to name something else than the key is to ask for an order.
func sortOrder(r *pb.RangeRequest) pb.RangeRequest_SortOrder {
	if r.SortOrder == pb.RangeRequest_NONE && r.SortTarget != pb.RangeRequest_KEY {
		return pb.RangeRequest_ASCEND
	}
	return r.SortOrder
}

// Keys is the present state.
func (m *Model) Keys() (out []history.KV) {
	for _, key := range m.live([]byte{0}, []byte{0}) {
		v, _ := m.latest(key)
		out = append(out, history.KV{Key: key, Value: string(v.value), Create: v.create, Mod: v.mod, Version: v.version, Lease: v.lease})
	}
	return out
}

// Leases is the present leases with the TTLs that they were granted.
func (m *Model) Leases() map[int64]int64 {
	out := map[int64]int64{}
	for id, l := range m.leases {
		out[id] = l.ttl
	}
	return out
}
