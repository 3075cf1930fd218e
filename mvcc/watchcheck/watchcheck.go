// Package watchcheck says what a watch promises, one named function a promise.
// Tests, simulation and chaos runs share them: each takes what one watch was
// asked for, what it answered, and what really happened.
//
// A check holds a watch to what it has said: a watch that is still open may be
// behind, but not past an event or a progress notice that it sent. That it does
// not stay behind is for the caller to wait for (see Behind).
package watchcheck

import (
	"bytes"
	"fmt"
	"slices"
	"sort"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// Request is what the client asked for. End and Start follow etcd.
type Request struct {
	Key, End                          []byte
	Start                             int64
	PrevKV, NoPut, NoDelete, Fragment bool
}

// Response is one answer to the watch. Progress marks an answer that promises
// progress: a notice of the watch's own, or one for its whole stream.
type Response struct {
	Revision int64
	Created  bool
	Canceled bool
	Compact  int64
	Fragment bool // more of this answer follows
	Progress bool
	Events   []*mvccpb.Event
}

// Watch is one watch with its answers in the order in which they came.
type Watch struct {
	Request   Request
	Responses []Response
}

// History is what really happened: every event from revision 2 on, in order,
// with previous values.
type History struct {
	events  []*mvccpb.Event
	created map[*mvccpb.Event]bool // puts of keys that were not there
}

// NewHistory takes the events of a store in order. Previous values are found by
// replaying them; what the events themselves say of that is ignored. As etcd has
// it, the value before an event is the one before its transaction, and the
// creation of a key has none.
func NewHistory(events []*mvccpb.Event) *History {
	h := &History{events: make([]*mvccpb.Event, len(events)), created: make(map[*mvccpb.Event]bool)}
	live := make(map[string]*mvccpb.KeyValue)   // now
	before := make(map[string]*mvccpb.KeyValue) // of keys that this transaction wrote
	for i, e := range events {
		if i > 0 && e.Kv.ModRevision != events[i-1].Kv.ModRevision {
			clear(before)
		}
		key := string(e.Kv.Key)
		if _, again := before[key]; !again {
			before[key] = live[key]
		}
		x := &mvccpb.Event{Type: e.Type, Kv: e.Kv, PrevKv: before[key]}
		if e.Type == mvccpb.Event_DELETE {
			delete(live, key)
		} else {
			if live[key] == nil {
				h.created[x], x.PrevKv = true, nil
			}
			live[key] = e.Kv
		}
		h.events[i] = x
	}
	return h
}

// Checks are all promises by name.
var Checks = []struct {
	Name  string
	Check func(Watch, *History) error
}{
	{"Ordered", Ordered},
	{"Unique", Unique},
	{"Reliable", Reliable},
	{"Atomic", Atomic},
	{"Resumable", Resumable},
	{"Bookmarkable", Bookmarkable},
	{"Filtered", Filtered},
	{"PrevValue", PrevValue},
	{"IsCreate", IsCreate},
	{"Closed", Closed},
}

// All runs every check and returns what failed.
func All(w Watch, h *History) []error {
	var errs []error
	for _, c := range Checks {
		if err := c.Check(w, h); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
		}
	}
	return errs
}

// Ordered: revisions of events never go back.
func Ordered(w Watch, _ *History) error {
	last := int64(0)
	for _, e := range w.events() {
		if e.Kv.ModRevision < last {
			return fmt.Errorf("event of revision %d after one of %d", e.Kv.ModRevision, last)
		}
		last = e.Kv.ModRevision
	}
	return nil
}

// Unique: no event comes twice.
func Unique(w Watch, _ *History) error {
	type name struct {
		rev int64
		key string
		typ mvccpb.Event_EventType // a transaction may put a key and delete it
	}
	seen := make(map[name]bool)
	for _, e := range w.events() {
		n := name{e.Kv.ModRevision, string(e.Kv.Key), e.Type}
		if seen[n] {
			return fmt.Errorf("key %q at revision %d came twice", n.key, n.rev)
		}
		seen[n] = true
	}
	return nil
}

// Reliable: of what the watch wants, nothing is missing up to the last revision
// that it told of, nothing is changed, and the order inside a revision is kept.
func Reliable(w Watch, h *History) error {
	start, ok := w.start()
	if !ok {
		return nil
	}
	want, got := h.wanted(w.Request, start, w.told()), w.events()
	if w.open() && len(got) < len(want) {
		want = want[:len(got)] // the rest of the last answer was still to come
	}
	return same(want, got)
}

// Atomic: the events of one revision come in one answer, or in its fragments.
func Atomic(w Watch, _ *History) error {
	last := int64(0)
	for _, r := range assemble(w.Responses) {
		if len(r.Events) == 0 {
			continue
		}
		if first := r.Events[0].Kv.ModRevision; first == last {
			return fmt.Errorf("revision %d is split over two answers", first)
		}
		last = r.Events[len(r.Events)-1].Kv.ModRevision
	}
	return nil
}

// Resumable: a watch from revision r on begins with the first event that it
// wants at r or later, and with none from before.
func Resumable(w Watch, h *History) error {
	got := w.events()
	start, ok := w.start()
	if !ok || len(got) == 0 {
		return nil
	}
	if rev := got[0].Kv.ModRevision; rev < start {
		return fmt.Errorf("event of revision %d, before the start at %d", rev, start)
	}
	if want := h.wanted(w.Request, start, got[0].Kv.ModRevision); len(want) == 0 || !matches(want[0], got[0]) {
		return fmt.Errorf("first event is %v, not the first one from %d on", got[0], start)
	}
	return nil
}

// Bookmarkable: a progress notice of revision R comes after every event <= R
// and before every later one, and never says less than one before it.
func Bookmarkable(w Watch, h *History) error {
	start, ok := w.start()
	if !ok {
		return nil
	}
	want := h.wanted(w.Request, start, w.told())
	got, due, promised := 0, 0, int64(0)
	for _, r := range w.Responses {
		if len(r.Events) > 0 && r.Events[0].Kv.ModRevision <= promised {
			return fmt.Errorf("event of revision %d after progress %d", r.Events[0].Kv.ModRevision, promised)
		}
		got += len(r.Events)
		if !r.Progress {
			continue
		}
		if r.Revision < promised {
			return fmt.Errorf("progress %d after progress %d", r.Revision, promised)
		}
		promised = r.Revision
		for due < len(want) && want[due].Kv.ModRevision <= promised {
			due++
		}
		if got != due {
			return fmt.Errorf("progress %d after %d events of %d", promised, got, due)
		}
	}
	return nil
}

// Filtered: only what was asked for is delivered.
func Filtered(w Watch, _ *History) error {
	for _, e := range w.events() {
		if !w.Request.wants(e) {
			return fmt.Errorf("%v %q at revision %d was not asked for", e.Type, e.Kv.Key, e.Kv.ModRevision)
		}
	}
	return nil
}

// PrevValue: with prev_kv every event but a create carries the value before it;
// otherwise none does.
func PrevValue(w Watch, h *History) error {
	for _, e := range w.events() {
		want := h.find(e)
		if want == nil {
			continue // Reliable says so
		}
		prev := want.PrevKv
		if !w.Request.PrevKV {
			prev = nil
		}
		if !proto.Equal(e.PrevKv, prev) {
			return fmt.Errorf("key %q at revision %d came with the previous value %v, want %v", e.Kv.Key, e.Kv.ModRevision, e.PrevKv, prev)
		}
	}
	return nil
}

// IsCreate: a put looks like a creation exactly when the key was not there.
func IsCreate(w Watch, h *History) error {
	for _, e := range w.events() {
		want := h.find(e)
		if want == nil || e.Type == mvccpb.Event_DELETE {
			continue
		}
		created := e.Kv.CreateRevision == e.Kv.ModRevision
		if created != h.created[want] || created != (e.Kv.Version == 1) {
			return fmt.Errorf("key %q at revision %d: create revision %d, version %d, was created: %v",
				e.Kv.Key, e.Kv.ModRevision, e.Kv.CreateRevision, e.Kv.Version, h.created[want])
		}
	}
	return nil
}

// Closed: the first answer creates the watch, nothing follows a cancellation
// but the answer to the client's own, and one for compaction is told to a watch
// only that needed what is gone.
func Closed(w Watch, _ *History) error {
	canceled := false
	last := int64(0)
	for i, r := range w.Responses {
		if (i == 0) != r.Created {
			return fmt.Errorf("answer %d: created is %v", i, r.Created)
		}
		if canceled && !r.Canceled {
			return fmt.Errorf("answer %d comes after the cancellation", i)
		}
		canceled = canceled || r.Canceled
		if len(r.Events) > 0 {
			last = r.Events[len(r.Events)-1].Kv.ModRevision
		}
		if start, ok := w.start(); r.Compact != 0 && ok && r.Compact <= max(start-1, last) {
			return fmt.Errorf("cancelled for compaction at %d, with everything up to %d known", r.Compact, max(start-1, last))
		}
	}
	return nil
}

// Behind returns how many events up to revision rev the watch lacks: zero once
// it has caught up.
func Behind(w Watch, h *History, rev int64) int {
	start, ok := w.start()
	if !ok {
		return 1
	}
	if start > rev {
		return 0
	}
	return len(h.wanted(w.Request, start, rev)) - len(w.events())
}

// wants reports whether the request covers the event.
func (r Request) wants(e *mvccpb.Event) bool {
	if e.Type == mvccpb.Event_DELETE && r.NoDelete || e.Type == mvccpb.Event_PUT && r.NoPut {
		return false
	}
	switch {
	case len(r.End) == 0:
		return bytes.Equal(e.Kv.Key, r.Key)
	case bytes.Equal(r.End, []byte{0}):
		return bytes.Compare(e.Kv.Key, r.Key) >= 0
	}
	return bytes.Compare(e.Kv.Key, r.Key) >= 0 && bytes.Compare(e.Kv.Key, r.End) < 0
}

// start is the first revision that the watch must tell of. A watch from now on
// says in its first answer when that is.
func (w Watch) start() (int64, bool) {
	switch {
	case w.Request.Start > 0:
		return w.Request.Start, true
	case len(w.Responses) == 0 || !w.Responses[0].Created:
		return 0, false
	}
	return w.Responses[0].Revision + 1, true
}

// told is the last revision up to which the watch says that it told all.
func (w Watch) told() int64 {
	told := int64(0)
	for _, r := range w.Responses {
		if r.Progress || len(r.Events) > 0 && !r.Fragment {
			told = max(told, r.Revision)
		}
	}
	if events := w.events(); len(events) > 0 {
		told = max(told, events[len(events)-1].Kv.ModRevision)
	}
	return told
}

// open reports whether the last events are a fragment of an answer that did not
// come to its end.
func (w Watch) open() bool {
	for _, r := range slices.Backward(w.Responses) {
		if len(r.Events) > 0 {
			return r.Fragment
		}
	}
	return false
}

func (w Watch) events() []*mvccpb.Event {
	var all []*mvccpb.Event
	for _, r := range w.Responses {
		all = append(all, r.Events...)
	}
	return all
}

// wanted returns the events of [from, to] that the request covers.
func (h *History) wanted(r Request, from, to int64) []*mvccpb.Event {
	var out []*mvccpb.Event
	if from > to {
		return nil
	}
	for _, e := range h.events[h.search(from):h.search(to+1)] {
		if r.wants(e) {
			out = append(out, e)
		}
	}
	return out
}

// search returns the position of the first event of revision rev or later.
func (h *History) search(rev int64) int {
	return sort.Search(len(h.events), func(i int) bool { return h.events[i].Kv.ModRevision >= rev })
}

// find returns the event of the same type, key and revision, with its true
// previous value.
func (h *History) find(e *mvccpb.Event) *mvccpb.Event {
	for i := h.search(e.Kv.ModRevision); i < len(h.events) && h.events[i].Kv.ModRevision == e.Kv.ModRevision; i++ {
		if x := h.events[i]; x.Type == e.Type && bytes.Equal(x.Kv.Key, e.Kv.Key) {
			return x
		}
	}
	return nil
}

// same compares what came with what should have, previous values aside.
func same(want, got []*mvccpb.Event) error {
	for i, e := range want {
		if i >= len(got) {
			return fmt.Errorf("%v %q at revision %d is missing, %d events in all", e.Type, e.Kv.Key, e.Kv.ModRevision, len(want)-len(got))
		}
		if !matches(e, got[i]) {
			return fmt.Errorf("event %d is %v, want %v", i, got[i], e)
		}
	}
	if len(got) > len(want) {
		return fmt.Errorf("%v came, and never happened", got[len(want)])
	}
	return nil
}

func matches(want, got *mvccpb.Event) bool {
	return want.Type == got.Type && proto.Equal(want.Kv, got.Kv)
}

// assemble puts the fragments of an answer together.
func assemble(rs []Response) []Response {
	var out []Response
	open := false
	for _, r := range rs {
		if open && len(r.Events) > 0 {
			last := &out[len(out)-1]
			last.Events = append(slices.Clip(last.Events), r.Events...)
		} else {
			out = append(out, r)
		}
		if len(r.Events) > 0 {
			open = r.Fragment
		}
	}
	return out
}
