package oracle

import (
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// writes calls f with each key that a request would change now, in order, and the
// put, or nil for a deletion, until f says no. It reports whether f never did.
func (m *Model) writes(r proto.Message, f func(key string, put *pb.PutRequest) bool) bool {
	switch r := r.(type) {
	case *pb.PutRequest:
		return f(string(r.Key), r)
	case *pb.DeleteRangeRequest:
		for _, key := range m.live(r.Key, r.RangeEnd) {
			if !f(key, nil) {
				return false
			}
		}
	case *pb.LeaseRevokeRequest:
		if l := m.leases[r.ID]; l != nil {
			for _, key := range sorted(l.keys) {
				if !f(key, nil) {
					return false
				}
			}
		}
	case *pb.TxnRequest:
		path := map[*pb.TxnRequest]bool{}
		m.choose(r, path)
		return m.writesOf(r, path, f)
	}
	return true
}

func (m *Model) writesOf(r *pb.TxnRequest, path map[*pb.TxnRequest]bool, f func(string, *pb.PutRequest) bool) bool {
	for _, op := range branch(r, path) {
		ok := true
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			ok = m.writes(o.RequestPut, f)
		case *pb.RequestOp_RequestDeleteRange:
			ok = m.writes(o.RequestDeleteRange, f)
		case *pb.RequestOp_RequestTxn:
			ok = m.writesOf(o.RequestTxn, path, f)
		}
		if !ok {
			return false
		}
	}
	return true
}

// force makes the model believe a revision that it cannot explain.
func (m *Model) force(events []*mvccpb.Event) {
	w := &writer{m: m, rev: events[0].Kv.ModRevision}
	for _, e := range events {
		kv := e.Kv
		if e.Type == mvccpb.Event_DELETE {
			w.kill(string(kv.Key))
			continue
		}
		if kv.Lease != 0 && m.leases[kv.Lease] == nil {
			m.leases[kv.Lease] = &modelLease{keys: map[string]bool{}}
		}
		w.set(string(kv.Key), version{mod: kv.ModRevision, create: kv.CreateRevision, version: kv.Version, lease: kv.Lease, value: kv.Value})
	}
	m.Rev = w.rev
}
