package server

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/api"
)

// model is the store as one would write it on a napkin: every revision is a map
// of its own, answers are built from the generated messages. The member must
// answer every request like it.
type model struct {
	revs    []map[string]*mvccpb.KeyValue // revs[r] is the state at revision r
	compact int64
	leases  map[int64]bool
}

func newModel() *model {
	return &model{revs: []map[string]*mvccpb.KeyValue{nil, {}}, compact: -1, leases: map[int64]bool{}}
}

func (m *model) rev() int64 { return int64(len(m.revs) - 1) }

// modelTxn is a transaction in progress: a state that may differ from the last.
type modelTxn struct {
	m       *model
	kvs     map[string]*mvccpb.KeyValue
	changed bool
}

func (m *model) begin() *modelTxn {
	kvs := map[string]*mvccpb.KeyValue{}
	for k, v := range m.revs[m.rev()] {
		kvs[k] = v
	}
	return &modelTxn{m: m, kvs: kvs}
}

func (x *modelTxn) rev() int64 {
	if x.changed {
		return x.m.rev() + 1
	}
	return x.m.rev()
}

func (x *modelTxn) end() {
	if x.changed {
		x.m.revs = append(x.m.revs, x.kvs)
	}
}

func selectKeys(kvs map[string]*mvccpb.KeyValue, key, end []byte) []*mvccpb.KeyValue {
	var out []*mvccpb.KeyValue
	for _, kv := range kvs {
		if inRange(kv.Key, key, end) {
			out = append(out, kv)
		}
	}
	sort.Slice(out, func(i, j int) bool { return bytes.Compare(out[i].Key, out[j].Key) < 0 })
	return out
}

// rangeOf evaluates a range against kvs or the older revision it asks for.
func (x *modelTxn) rangeOf(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	kvs := x.kvs
	switch {
	case r.Revision > x.rev():
		return nil, api.ErrFutureRevision
	case r.Revision > 0 && r.Revision < x.m.compact:
		return nil, api.ErrCompacted
	case r.Revision > 0 && r.Revision <= x.m.rev():
		kvs = x.m.revs[r.Revision]
	}
	all := selectKeys(kvs, r.Key, r.RangeEnd)
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: x.rev()}, Count: int64(len(all))}
	if r.CountOnly {
		return resp, nil
	}
	natural := r.SortOrder == pb.RangeRequest_NONE || r.SortTarget == pb.RangeRequest_KEY && r.SortOrder == pb.RangeRequest_ASCEND
	filtered := r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
	if natural && !filtered && r.Limit > 0 && int64(len(all)) > r.Limit+1 {
		all = all[:r.Limit+1]
	}
	all = slices.DeleteFunc(all, func(kv *mvccpb.KeyValue) bool {
		return r.MaxModRevision != 0 && kv.ModRevision > r.MaxModRevision || r.MinModRevision != 0 && kv.ModRevision < r.MinModRevision ||
			r.MaxCreateRevision != 0 && kv.CreateRevision > r.MaxCreateRevision || r.MinCreateRevision != 0 && kv.CreateRevision < r.MinCreateRevision
	})
	less := map[pb.RangeRequest_SortTarget]func(a, b *mvccpb.KeyValue) bool{
		pb.RangeRequest_KEY:     func(a, b *mvccpb.KeyValue) bool { return bytes.Compare(a.Key, b.Key) < 0 },
		pb.RangeRequest_VERSION: func(a, b *mvccpb.KeyValue) bool { return a.Version < b.Version },
		pb.RangeRequest_CREATE:  func(a, b *mvccpb.KeyValue) bool { return a.CreateRevision < b.CreateRevision },
		pb.RangeRequest_MOD:     func(a, b *mvccpb.KeyValue) bool { return a.ModRevision < b.ModRevision },
		pb.RangeRequest_VALUE:   func(a, b *mvccpb.KeyValue) bool { return bytes.Compare(a.Value, b.Value) < 0 },
	}[r.SortTarget]
	by := &kvSort{all, less}
	if r.SortOrder == pb.RangeRequest_DESCEND {
		sort.Sort(sort.Reverse(by))
	} else {
		sort.Sort(by)
	}
	if r.Limit > 0 && int64(len(all)) > r.Limit {
		all, resp.More = all[:r.Limit], true
	}
	for _, kv := range all {
		kv = proto.Clone(kv).(*mvccpb.KeyValue)
		if r.KeysOnly {
			kv.Value = nil
			if r.SortTarget != pb.RangeRequest_VALUE {
				kv.Lease = 0 // etcd answers from its index, which knows no leases
			}
		}
		resp.Kvs = append(resp.Kvs, kv)
	}
	return resp, nil
}

type kvSort struct {
	kvs  []*mvccpb.KeyValue
	less func(a, b *mvccpb.KeyValue) bool
}

func (s *kvSort) Len() int           { return len(s.kvs) }
func (s *kvSort) Less(i, j int) bool { return s.less(s.kvs[i], s.kvs[j]) }
func (s *kvSort) Swap(i, j int)      { s.kvs[i], s.kvs[j] = s.kvs[j], s.kvs[i] }

// refusal says whether a put may be made in the state before the transaction.
func (x *modelTxn) refusal(p *pb.PutRequest) error {
	if p.Lease != 0 && !x.m.leases[p.Lease] {
		return api.ErrLeaseNotFound
	}
	if (p.IgnoreValue || p.IgnoreLease) && x.m.revs[x.m.rev()][string(p.Key)] == nil {
		return api.ErrKeyNotFound
	}
	return nil
}

func (x *modelTxn) put(p *pb.PutRequest) *pb.PutResponse {
	old := x.kvs[string(p.Key)]
	next := &mvccpb.KeyValue{Key: p.Key, Value: p.Value, Lease: p.Lease, CreateRevision: x.m.rev() + 1, ModRevision: x.m.rev() + 1, Version: 1}
	if old != nil {
		next.CreateRevision, next.Version = old.CreateRevision, old.Version+1
		if p.IgnoreValue {
			next.Value = old.Value
		}
		if p.IgnoreLease {
			next.Lease = old.Lease
		}
	}
	x.kvs[string(p.Key)], x.changed = next, true
	resp := &pb.PutResponse{Header: &pb.ResponseHeader{Revision: x.rev()}}
	if p.PrevKv {
		resp.PrevKv = old
	}
	return resp
}

func (x *modelTxn) delete(d *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	doomed := selectKeys(x.kvs, d.Key, d.RangeEnd)
	for _, kv := range doomed {
		delete(x.kvs, string(kv.Key))
		x.changed = true
	}
	resp := &pb.DeleteRangeResponse{Header: &pb.ResponseHeader{Revision: x.rev()}, Deleted: int64(len(doomed))}
	if d.PrevKv {
		resp.PrevKvs = doomed
	}
	return resp
}

func (x *modelTxn) holds(c *pb.Compare) bool {
	kvs := selectKeys(x.m.revs[x.m.rev()], c.Key, c.RangeEnd)
	if len(kvs) == 0 {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		kvs = []*mvccpb.KeyValue{{}}
	}
	for _, kv := range kvs {
		order := 0
		switch c.Target {
		case pb.Compare_VALUE:
			order = bytes.Compare(kv.Value, c.GetValue())
		case pb.Compare_VERSION:
			order = sign(kv.Version, c.GetVersion())
		case pb.Compare_CREATE:
			order = sign(kv.CreateRevision, c.GetCreateRevision())
		case pb.Compare_MOD:
			order = sign(kv.ModRevision, c.GetModRevision())
		case pb.Compare_LEASE:
			order = sign(kv.Lease, c.GetLease())
		}
		ok := map[pb.Compare_CompareResult]bool{
			pb.Compare_EQUAL: order == 0, pb.Compare_NOT_EQUAL: order != 0,
			pb.Compare_GREATER: order > 0, pb.Compare_LESS: order < 0,
		}[c.Result]
		if !ok {
			return false
		}
	}
	return true
}

func sign(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (x *modelTxn) branch(r *pb.TxnRequest) (bool, []*pb.RequestOp) {
	for _, c := range r.Compare {
		if !x.holds(c) {
			return false, r.Failure
		}
	}
	return true, r.Success
}

// check finds what refuses the transaction, before anything is changed. alive
// are the keys that are left when an operation comes to its turn: to keep the
// value of a key that the transaction has deleted is refused (etcd crashes).
func (x *modelTxn) check(r *pb.TxnRequest, alive map[string]bool) error {
	_, ops := x.branch(r)
	for _, o := range ops {
		var err error
		switch {
		case o.GetRequestRange() != nil:
			at := o.GetRequestRange().Revision
			switch {
			case at > x.m.rev():
				err = api.ErrFutureRevision
			case at != 0 && at < x.m.compact:
				err = api.ErrCompacted
			}
		case o.GetRequestPut() != nil:
			p := o.GetRequestPut()
			if err = x.refusal(p); err == nil && (p.IgnoreValue || p.IgnoreLease) && !alive[string(p.Key)] {
				err = api.ErrKeyNotFound
			}
		case o.GetRequestDeleteRange() != nil:
			for _, kv := range selectKeys(x.kvs, o.GetRequestDeleteRange().Key, o.GetRequestDeleteRange().RangeEnd) {
				alive[string(kv.Key)] = false
			}
		case o.GetRequestTxn() != nil:
			err = x.check(o.GetRequestTxn(), alive)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// plan fixes the branches of all nested transactions before the first write.
func (x *modelTxn) plan(r *pb.TxnRequest, into map[*pb.TxnRequest]bool) {
	ok, ops := x.branch(r)
	into[r] = ok
	for _, o := range ops {
		if t := o.GetRequestTxn(); t != nil {
			x.plan(t, into)
		}
	}
}

func (x *modelTxn) run(r *pb.TxnRequest, plan map[*pb.TxnRequest]bool) *pb.TxnResponse {
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: plan[r]}
	ops := r.Failure
	if plan[r] {
		ops = r.Success
	}
	for _, o := range ops {
		out := &pb.ResponseOp{}
		switch {
		case o.GetRequestRange() != nil:
			got, err := x.rangeOf(o.GetRequestRange())
			if err != nil {
				panic(err)
			}
			out.Response = &pb.ResponseOp_ResponseRange{ResponseRange: got}
		case o.GetRequestPut() != nil:
			out.Response = &pb.ResponseOp_ResponsePut{ResponsePut: x.put(o.GetRequestPut())}
		case o.GetRequestDeleteRange() != nil:
			out.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: x.delete(o.GetRequestDeleteRange())}
		case o.GetRequestTxn() != nil:
			out.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: x.run(o.GetRequestTxn(), plan)}
		}
		resp.Responses = append(resp.Responses, out)
	}
	return resp
}

func (m *model) txn(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	x := m.begin()
	alive := map[string]bool{}
	for key := range x.kvs {
		alive[key] = true
	}
	if err := x.check(r, alive); err != nil {
		return nil, err
	}
	plan := map[*pb.TxnRequest]bool{}
	x.plan(r, plan)
	resp := x.run(r, plan)
	resp.Header.Revision = x.rev()
	x.end()
	return resp, nil
}

// generator makes requests over few keys, so that they meet.
type generator struct{ *rand.Rand }

func (g generator) key() []byte { return []byte{'a' + byte(g.IntN(8))} }

func (g generator) end(key []byte) []byte {
	switch g.IntN(6) {
	case 0, 1, 2:
		return nil
	case 3:
		return []byte{0}
	case 4:
		return g.key() // may lie before the key
	}
	return []byte{'a' + byte(g.IntN(8)) + 1}
}

func (g generator) rangeRequest(rev int64) *pb.RangeRequest {
	r := &pb.RangeRequest{Key: g.key(), Serializable: g.IntN(2) == 0}
	r.RangeEnd = g.end(r.Key)
	if g.IntN(3) == 0 {
		r.Limit = int64(g.IntN(5)) - 1
	}
	if g.IntN(4) == 0 {
		r.Revision = rev - int64(g.IntN(8)) + 1
	}
	if g.IntN(3) == 0 {
		r.SortOrder, r.SortTarget = pb.RangeRequest_SortOrder(g.IntN(3)), pb.RangeRequest_SortTarget(g.IntN(5))
	}
	r.KeysOnly, r.CountOnly = g.IntN(5) == 0, g.IntN(8) == 0
	for _, f := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
		if g.IntN(12) == 0 {
			*f = rev - int64(g.IntN(10))
		}
	}
	return r
}

func (g generator) putRequest() *pb.PutRequest {
	p := &pb.PutRequest{Key: g.key(), PrevKv: g.IntN(2) == 0}
	if p.IgnoreValue = g.IntN(10) == 0; !p.IgnoreValue {
		p.Value = []byte(fmt.Sprint(g.IntN(5)))
	}
	if p.IgnoreLease = g.IntN(10) == 0; !p.IgnoreLease && g.IntN(4) == 0 {
		p.Lease = int64(g.IntN(4))
	}
	return p
}

func (g generator) deleteRequest() *pb.DeleteRangeRequest {
	d := &pb.DeleteRangeRequest{Key: g.key(), PrevKv: g.IntN(2) == 0}
	if g.IntN(3) == 0 {
		d.RangeEnd = g.end(d.Key)
	}
	return d
}

func (g generator) compare(rev int64) *pb.Compare {
	c := &pb.Compare{Result: pb.Compare_CompareResult(g.IntN(4)), Target: pb.Compare_CompareTarget(g.IntN(5)), Key: g.key()}
	if g.IntN(3) == 0 {
		c.RangeEnd = g.end(c.Key)
	}
	n := int64(g.IntN(4))
	target := c.Target
	if g.IntN(20) == 0 {
		target = pb.Compare_CompareTarget(g.IntN(5)) // a union that is not the target's
	}
	switch target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: n}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: max(rev-n*3, 0)}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: max(rev-n, 0)}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: []byte(fmt.Sprint(n))}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: n}
	}
	return c
}

func (g generator) ops(rev int64, depth int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for range g.IntN(4) {
		switch n := g.IntN(10); {
		case n < 3:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.rangeRequest(rev)}})
		case n < 7:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.putRequest()}})
		case n < 9:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.deleteRequest()}})
		case depth < 3:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txnRequest(rev, depth+1)}})
		}
	}
	return ops
}

func (g generator) txnRequest(rev int64, depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{Success: g.ops(rev, depth), Failure: g.ops(rev, depth)}
	for range g.IntN(3) {
		r.Compare = append(r.Compare, g.compare(rev))
	}
	return r
}

// TestAgainstModel sends random requests to the member and to the model.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runAgainstModel(t, seed, 1500) })
	}
}

func runAgainstModel(t *testing.T, seed uint64, steps int) {
	s, m, g := newSolo(t), newModel(), generator{rand.New(rand.NewPCG(seed, 1))}
	ctx := callContext(t)
	for id := int64(1); id <= 2; id++ {
		if _, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: 1000}); err != nil {
			t.Fatal(err)
		}
		m.leases[id] = true
	}
	for step := range steps {
		var req, got, want proto.Message
		var gotErr, wantErr error
		switch n := g.IntN(100); {
		case n < 25:
			r := g.rangeRequest(m.rev())
			req = r
			got, gotErr = s.kv.Range(ctx, r)
			x := m.begin()
			want, wantErr = x.rangeOf(r)
		case n < 50:
			r := g.putRequest()
			req = r
			got, gotErr = s.kv.Put(ctx, r)
			x := m.begin()
			if wantErr = checkPut(ours(r)); wantErr == nil {
				wantErr = x.refusal(r)
			}
			if wantErr == nil {
				want = x.put(r)
				x.end()
			}
		case n < 60:
			r := g.deleteRequest()
			req = r
			got, gotErr = s.kv.DeleteRange(ctx, r)
			x := m.begin()
			want = x.delete(r)
			x.end()
		case n < 61:
			r := &pb.CompactionRequest{Revision: m.rev() - int64(g.IntN(20))}
			req = r
			got, gotErr = s.kv.Compact(ctx, r)
			if r.Revision <= m.compact {
				wantErr = api.ErrCompacted
			} else {
				m.compact = r.Revision
				want = &pb.CompactionResponse{Header: &pb.ResponseHeader{Revision: m.rev()}}
			}
		default:
			r := g.txnRequest(m.rev(), 1)
			req = r
			got, gotErr = s.kv.Txn(ctx, r)
			if status.Convert(gotErr).Message() == api.ErrDuplicateKey.Text {
				continue // checkOverlaps has tests of its own
			}
			want, wantErr = m.txn(r)
		}
		compareAnswers(t, fmt.Sprintf("seed %d step %d: %v", seed, step, req), got, gotErr, want, wantErr)
		if t.Failed() {
			return
		}
	}
}

func ours(p *pb.PutRequest) *putRequest {
	return &putRequest{key: p.Key, value: p.Value, lease: api.LeaseID(p.Lease), ignoreValue: p.IgnoreValue, ignoreLease: p.IgnoreLease}
}

// compareAnswers compares two answers; who answered is left out of the header.
func compareAnswers(t *testing.T, what string, got proto.Message, gotErr error, want proto.Message, wantErr error) {
	t.Helper()
	if wantErr != nil || gotErr != nil {
		if status.Convert(gotErr).Message() != status.Convert(wantErr).Message() || status.Code(gotErr) != status.Code(wantErr) {
			t.Errorf("%s:\ngot error  %v\nwant error %v", what, gotErr, wantErr)
		}
		return
	}
	if h, ok := got.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		header := h.GetHeader()
		if header.GetMemberId() != uint64(soloMember) || header.GetClusterId() != uint64(soloCluster) || header.GetRaftTerm() == 0 {
			t.Errorf("%s: header is %v", what, header)
		}
		header.MemberId, header.ClusterId, header.RaftTerm = 0, 0, 0
	}
	if !proto.Equal(got, want) {
		t.Errorf("%s:\ngot  %v\nwant %v", what, got, want)
	}
}
