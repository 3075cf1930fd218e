package watchcheck

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

func put(key string, create, mod, version int64) *mvccpb.Event {
	return &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), CreateRevision: create, ModRevision: mod, Version: version}}
}

func del(key string, mod int64) *mvccpb.Event {
	return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: mod}}
}

// truth is what happened in all cases below.
var truth = NewHistory([]*mvccpb.Event{
	put("a", 2, 2, 1), put("b", 2, 2, 1), put("a", 2, 3, 2), put("z", 4, 4, 1), del("a", 5), put("a", 6, 6, 1),
})

// good is a faultless watch of a and b from revision 2 on.
func good() Watch {
	with := func(e, prev *mvccpb.Event) *mvccpb.Event { e.PrevKv = prev.Kv; return e }
	return Watch{
		Request: Request{Key: []byte("a"), End: []byte("c"), Start: 2, PrevKV: true},
		Responses: []Response{
			{Created: true, Revision: 4},
			{Revision: 2, Events: []*mvccpb.Event{put("a", 2, 2, 1)}, Fragment: true},
			{Revision: 2, Events: []*mvccpb.Event{put("b", 2, 2, 1)}},
			{Revision: 3, Events: []*mvccpb.Event{with(put("a", 2, 3, 2), put("a", 2, 2, 1))}},
			{Revision: 4, Progress: true},
			{Revision: 6, Events: []*mvccpb.Event{with(del("a", 5), put("a", 2, 3, 2)), put("a", 6, 6, 1)}},
			{Revision: 6, Progress: true},
		},
	}
}

// TestChecksSee plants a fault for each promise and expects it to be seen by
// the check of that name, whatever the others say.
func TestChecksSee(t *testing.T) {
	w := good()
	if errs := All(w, truth); len(errs) > 0 {
		t.Fatalf("a faultless watch: %v", errs)
	}
	for _, tc := range []struct {
		check string
		plant func(w *Watch)
	}{
		{"Ordered", func(w *Watch) { r := w.Responses; r[3], r[5] = r[5], r[3] }},
		{"Unique", func(w *Watch) { w.Responses = slices.Insert(w.Responses, 4, w.Responses[3]) }},
		{"Reliable", func(w *Watch) { w.Responses = slices.Delete(w.Responses, 3, 4) }},
		{"Reliable", func(w *Watch) { w.Responses[3].Events[0].Kv.Value = []byte("other") }},
		{"Reliable", func(w *Watch) {
			r := w.Responses[:3]
			w.Responses = append(slices.Clone(r), Response{Revision: 4, Progress: true})
		}},
		{"Atomic", func(w *Watch) { w.Responses[1].Fragment = false }},
		{"Resumable", func(w *Watch) { w.Request.Start = 3 }},
		{"Resumable", func(w *Watch) { w.Responses = slices.Delete(w.Responses, 1, 2) }},
		{"Bookmarkable", func(w *Watch) { r := w.Responses; r[3], r[4] = r[4], r[3] }},
		{"Bookmarkable", func(w *Watch) { w.Responses[6].Revision = 3 }},
		{"Filtered", func(w *Watch) { w.Request.End = nil }},
		{"Filtered", func(w *Watch) { w.Request.NoDelete = true }},
		{"PrevValue", func(w *Watch) { w.Responses[3].Events[0].PrevKv = nil }},
		{"PrevValue", func(w *Watch) { w.Responses[5].Events[0].PrevKv = put("a", 2, 2, 1).Kv }},
		{"PrevValue", func(w *Watch) { w.Request.PrevKV = false }},
		{"IsCreate", func(w *Watch) { w.Responses[3].Events[0].Kv.CreateRevision = 3 }},
		{"Closed", func(w *Watch) { w.Responses = w.Responses[1:] }},
		{"Closed", func(w *Watch) { w.Responses = slices.Insert(w.Responses, 3, Response{Canceled: true}) }},
		{"Closed", func(w *Watch) { w.Responses = append(w.Responses, Response{Canceled: true, Compact: 6}) }},
	} {
		w := good()
		tc.plant(&w)
		if !slices.ContainsFunc(All(w, truth), func(err error) bool { return strings.HasPrefix(err.Error(), tc.check+":") }) {
			t.Errorf("%s did not see its fault: %v", tc.check, errors.Join(All(w, truth)...))
		}
	}
}

// TestStartsNow: a watch without a start says itself where it begins.
func TestStartsNow(t *testing.T) {
	w := Watch{Request: Request{Key: []byte("a")}, Responses: []Response{{Created: true, Revision: 5}}}
	if n := Behind(w, truth, 6); n != 1 {
		t.Errorf("behind by %d", n)
	}
	w.Responses = append(w.Responses, Response{Revision: 6, Events: []*mvccpb.Event{proto.Clone(put("a", 6, 6, 1)).(*mvccpb.Event)}})
	if errs := All(w, truth); len(errs) > 0 || Behind(w, truth, 6) != 0 {
		t.Errorf("%v, behind by %d", errs, Behind(w, truth, 6))
	}
}
