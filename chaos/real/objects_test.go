//go:build linux

package real

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// objectsRun is a history of clients of the Kubernetes API: one object is made,
// listed, and deleted once though two clients ask for it.
func objectsRun() *history.History {
	const key = objectsPrefix + "1"
	call := func(id int, verb string, outcome history.Outcome, req, resp proto.Message) *history.Op {
		at := time.Duration(id) * time.Millisecond
		return &history.Op{ID: id, Client: 1, Member: 7, Method: resourceMethod + verb, Call: at, Return: at + 500*time.Microsecond, Request: req, Response: resp, Outcome: outcome}
	}
	guarded := func(mod int64, then *pb.RequestOp) history.Entry {
		return history.Entry{Term: 1, Commands: []history.Command{{Request: &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte(key), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: mod}}},
			Success: []*pb.RequestOp{then},
		}}}}
	}
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(`{"kind":"ConfigMap","data":{"tag":"1:1"}}`)}}}
	del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
	remove := &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte("2")}
	h := &history.History{
		Ops: []*history.Op{
			call(1, "POST", history.OK, &pb.PutRequest{Key: []byte(key), Value: []byte("1:1")}, &pb.PutResponse{Header: versionOf("2")}),
			call(2, "GET", history.OK, &pb.RangeRequest{Key: []byte(objectsPrefix), RangeEnd: []byte("/registry/configmaps/default/chaos.")},
				&pb.RangeResponse{Header: versionOf("2"), Count: 1, Kvs: []*mvccpb.KeyValue{{Key: []byte(key), Value: []byte("1:1"), ModRevision: 2}}}),
			call(3, "DELETE", history.OK, remove, &pb.DeleteRangeResponse{Header: &pb.ResponseHeader{}}),
			call(4, "DELETE", history.Refused, remove, nil),
		},
		// The second attempt to make it came too late for its comparison.
		Log: []history.Entry{guarded(0, put), guarded(0, put), guarded(2, del)},
	}
	for i := range h.Log {
		h.Log[i].Index = uint64(i + 1)
	}
	// An informer was told of both changes, and of nothing more.
	told := func(rev int64, events ...*mvccpb.Event) watchcheck.Response {
		return watchcheck.Response{Revision: rev, Events: events, Progress: len(events) == 0}
	}
	w := &history.Watch{Watch: watchcheck.Watch{Request: watchcheck.Request{Key: []byte(objectsPrefix), End: []byte(objectsEnd), Start: 1}}}
	w.Responses = []watchcheck.Response{
		{Created: true},
		told(2, &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte("1:1"), ModRevision: 2, CreateRevision: 2}}),
		told(3, &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte("1:1"), ModRevision: 3}}),
		told(3),
	}
	h.Watches = []*history.Watch{w}
	return h
}

func TestAttribute(t *testing.T) {
	for want, spoil := range map[string]func(h *history.History){
		"":           func(*history.History) {},
		"O4 op 1":    func(h *history.History) { h.Log = h.Log[2:] },
		"O4 op 3":    func(h *history.History) { h.Log = h.Log[:2] },
		"O1 op 2":    func(h *history.History) { r := h.Ops[1].Response.(*pb.RangeResponse); r.Kvs, r.Count = nil, 0 },
		"O8 entry 1": func(h *history.History) { h.Ops[0].Outcome, h.Ops[0].Response = history.Refused, nil },
		"O3 of a watch without an event": func(h *history.History) {
			w := h.Watches[0]
			w.Responses = slices.Delete(w.Responses, 1, 2)
		},
		"O3 of an event twice":   func(h *history.History) { w := h.Watches[0]; w.Responses = append(w.Responses, w.Responses[2]) },
		"O3 of another value":    func(h *history.History) { h.Watches[0].Responses[1].Events[0].Kv.Value = []byte("1:9") },
		"O3 of a change":         func(h *history.History) { h.Watches[0].Responses[1].Events[0].Kv.CreateRevision = 0 },
		"O3 of what was deleted": func(h *history.History) { h.Watches[0].Responses[2].Events[0].Kv.Value = []byte("1:9") },
		"O1 op 2 of other":       func(h *history.History) { h.Ops[1].Response.(*pb.RangeResponse).Kvs[0].Value = []byte("1:9") },
	} {
		h := objectsRun()
		spoil(h)
		attribute(h)
		stamp(h)
		c := oracle.NewCase(h)
		var found []string
		for _, o := range oracle.All() {
			for _, err := range o.Check(c) {
				found = append(found, fmt.Sprint(o.Name, " ", err))
			}
		}
		want, _, _ = strings.Cut(want, " of ")
		if got := strings.Join(found, "\n"); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("want %q, got\n%s", want, got)
		}
	}
}

// TestAcknowledged: without the log the stored object must have the writer's tag.
func TestAcknowledged(t *testing.T) {
	h := objectsRun()
	st := history.State{Member: 7, Revision: 2, Keys: []history.KV{{Key: objectsPrefix + "1", Value: `{"kind":"ConfigMap","data":{"tag":"1:1"}}`, Create: 2, Mod: 2, Version: 1}}}
	h.States = []history.State{st}
	if err := acknowledged(h); err != nil {
		t.Error(err)
	}
	st.Keys[0].Value = `{"kind":"ConfigMap","data":{"tag":"1:9"}}`
	if acknowledged(h) == nil {
		t.Error("another value passes for what was written")
	}
}

// TestStamp: of two that deleted a key at once, who came too late was answered first.
func TestStamp(t *testing.T) {
	key, ms := []byte("k"), time.Millisecond
	del := &pb.DeleteRangeRequest{Key: key}
	call := func(id int, from, to time.Duration, req, resp proto.Message) *history.Op {
		return &history.Op{ID: id, Client: id, Member: 7, Call: from, Return: to, Request: req, Response: resp, Outcome: history.OK}
	}
	at := func(rev int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: rev} }
	put := &pb.PutRequest{Key: key, Value: []byte("1:1")}
	h := &history.History{Ops: []*history.Op{
		call(1, 1*ms, 2*ms, put, &pb.PutResponse{Header: at(2)}),
		call(2, 3*ms, 9*ms, del, &pb.DeleteRangeResponse{Header: at(3), Deleted: 1}),
		call(3, 3*ms, 8*ms, del, &pb.DeleteRangeResponse{Header: at(3)}),
	}}
	for i, req := range []proto.Message{put, del, del} {
		h.Log = append(h.Log, history.Entry{Index: uint64(i + 1), Term: 1, Commands: []history.Command{{Request: req}}})
	}
	stamp(h)
	c := oracle.NewCase(h)
	for _, o := range oracle.All() {
		for _, err := range o.Check(c) {
			t.Errorf("%s %v", o.Name, err)
		}
	}
}

// TestMirror: a copy is a list and what came after it.
func TestMirror(t *testing.T) {
	at := func(revs ...int64) *pb.RangeResponse {
		r := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: 9}}
		for i, rev := range revs {
			if rev > 0 {
				r.Kvs = append(r.Kvs, &mvccpb.KeyValue{Key: []byte{byte('a' + i)}, ModRevision: rev})
			}
		}
		return r
	}
	list := (*pb.RangeResponse)(nil)
	c := &mirror{list: func() *pb.RangeResponse { return list }}
	if next := c.begin(); next != 0 {
		t.Errorf("goes on from %d without a list", next)
	}
	list = at(3, 4)
	if next := c.begin(); next != 10 {
		t.Errorf("goes on from %d, want 10", next)
	}
	c.follow(&mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte("c"), ModRevision: 10}}, &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte("a"), ModRevision: 11}})
	if err := c.equals(at(0, 4, 10)); err != nil {
		t.Error(err)
	}
	for _, not := range []*pb.RangeResponse{at(0, 4), at(3, 4, 10), at(0, 5, 10)} {
		if c.equals(not) == nil {
			t.Errorf("a copy with b at 4 and c at 10 equals %v", not.Kvs)
		}
	}
}

// TestTooOld: what was never compacted is not too old.
func TestTooOld(t *testing.T) {
	f := &informer{next: 8, events: 1}
	f.refused(http.StatusGatewayTimeout)
	if f.next != 8 {
		t.Error("begins anew without a reason")
	}
	f.refused(http.StatusGone)
	if f.next != 0 || f.inTime(8) != nil || f.inTime(7) == nil || (&informer{events: 1}).inTime(0) != nil || (&informer{}).inTime(0) == nil {
		t.Errorf("next %d; compacted at 8: %v, at 7: %v", f.next, f.inTime(8), f.inTime(7))
	}
}
