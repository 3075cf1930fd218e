package mvcc

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// world is a hub over a store that is nothing but a list of events.
type world struct {
	hub *hub

	mu struct {
		sync.Mutex
		events  []*mvccpb.Event // all of them, as a truth to compare with
		rev     api.Revision
		compact api.Revision
		live    map[string]*mvccpb.KeyValue
		subs    map[*mvccpb.KeyValue]int64 // of the records, as a store knows them
		damaged bool                       // previous values cannot be read
	}
}

func newWorld() *world {
	w := &world{}
	w.mu.rev = 1
	w.mu.live = make(map[string]*mvccpb.KeyValue)
	w.mu.subs = make(map[*mvccpb.KeyValue]int64)
	w.hub = newHub(w, 1)
	return w
}

// op is one write; an empty value deletes.
type op struct{ key, value string }

// apply makes one revision of the writes and returns its events.
func (w *world) apply(ops ...op) []*Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.rev++
	var out []*Event
	before := make(map[string]*mvccpb.KeyValue) // of the keys that this transaction writes
	for _, o := range ops {
		before[o.key] = w.mu.live[o.key]
	}
	for i, o := range ops {
		kv := &mvccpb.KeyValue{Key: []byte(o.key), ModRevision: int64(w.mu.rev)}
		e := &mvccpb.Event{Kv: kv}
		prev := w.mu.live[o.key]
		if o.value == "" {
			if prev == nil {
				panic("the test deletes what is not there: " + o.key)
			}
			e.Type = mvccpb.Event_DELETE
			delete(w.mu.live, o.key)
		} else {
			kv.Value = []byte(o.value)
			kv.CreateRevision, kv.Version = int64(w.mu.rev), 1
			if prev != nil {
				kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
			}
			w.mu.live[o.key], w.mu.subs[kv] = kv, int64(i)
		}
		if o.value == "" || prev != nil {
			e.PrevKv = before[o.key]
		}
		w.mu.events = append(w.mu.events, e)
		out = append(out, w.eventLocked(e, int64(i)))
	}
	return out
}

func (w *world) eventLocked(e *mvccpb.Event, sub int64) *Event {
	kv, err := proto.Marshal(e.Kv)
	if err != nil {
		panic(err)
	}
	out := &Event{
		Rev: api.Revision(e.Kv.ModRevision), Sub: sub, Key: e.Kv.Key, KV: kv,
		Delete: e.Type == mvccpb.Event_DELETE,
		Create: e.Type == mvccpb.Event_PUT && e.Kv.CreateRevision == e.Kv.ModRevision,
		Source: w,
	}
	if e.PrevKv != nil {
		out.PrevRev, out.PrevSub = api.Revision(e.PrevKv.ModRevision), w.mu.subs[e.PrevKv]
	}
	return out
}

// write makes one revision and publishes it.
func (w *world) write(ops ...op) api.Revision {
	events := w.apply(ops...)
	w.hub.publish(events[0].Rev, events, func() {})
	return events[0].Rev
}

func (w *world) compactAt(rev api.Revision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.compact = rev
}

// CompactRevision is part of the watchSource.
func (w *world) CompactRevision() api.Revision {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.compact
}

// History is part of the watchSource. As a real store does, it forgets what
// was superseded at the compact revision.
func (w *world) History(from, to api.Revision, fn func(*Event) bool) error {
	w.mu.Lock()
	events := w.mu.events
	compact := w.mu.compact
	w.mu.Unlock()
	if from < compact {
		return ErrCompacted
	}
	i := sort.Search(len(events), func(i int) bool { return api.Revision(events[i].Kv.ModRevision) >= from })
	sub := int64(0)
	for ; i < len(events) && api.Revision(events[i].Kv.ModRevision) <= to; i++ {
		if i > 0 && events[i].Kv.ModRevision != events[i-1].Kv.ModRevision {
			sub = 0
		}
		if api.Revision(events[i].Kv.ModRevision) < w.CompactRevision() {
			return ErrCompacted
		}
		w.mu.Lock()
		e := w.eventLocked(events[i], sub)
		w.mu.Unlock()
		if !fn(e) {
			return nil
		}
		sub++
	}
	return nil
}

// PrevRecord is what a PrevSource does.
func (w *world) PrevRecord(rev api.Revision, sub int64) (Record, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.damaged {
		return nil, ErrCorrupt
	}
	for i := len(w.mu.events) - 1; i >= 0; i-- {
		if e := w.mu.events[i]; e.PrevKv != nil && api.Revision(e.PrevKv.ModRevision) == rev && w.mu.subs[e.PrevKv] == sub {
			if api.Revision(e.Kv.ModRevision) <= w.mu.compact {
				return nil, ErrCompacted
			}
			return proto.Marshal(e.PrevKv)
		}
	}
	return nil, ErrCorrupt
}

func (w *world) history() *watchcheck.History {
	w.mu.Lock()
	defer w.mu.Unlock()
	return watchcheck.NewHistory(slices.Clone(w.mu.events))
}

// decode reads a batch back from its bytes on the wire.
func decode(b *Batch) []*mvccpb.Event {
	var r etcdserverpb.WatchResponse
	if err := proto.Unmarshal(slices.Concat(b.Wire()...), &r); err != nil {
		panic(err)
	}
	return r.Events
}

// recorder reads a stream and sorts what it says by watch.
type recorder struct {
	stream  *WatchStream
	mu      sync.Mutex
	asked   map[int64]watchcheck.Request
	watches map[int64]*watchcheck.Watch
	lines   []string
	all     int // progress notices of the whole stream
	err     error
}

func record(s *WatchStream) *recorder {
	return &recorder{stream: s, asked: make(map[int64]watchcheck.Request), watches: make(map[int64]*watchcheck.Watch)}
}

func (r *recorder) watch(q WatchRequest) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, err := r.stream.Watch(q)
	if err == nil {
		r.asked[id] = watchcheck.Request{
			Key: q.Key, End: q.End, Start: int64(q.Start),
			PrevKV: q.PrevKV, NoPut: q.NoPut, NoDelete: q.NoDelete, Fragment: q.Fragment,
		}
	}
	return id, err
}

// run reads until the stream ends.
func (r *recorder) run(ctx context.Context) {
	for {
		d, err := r.stream.Next(ctx)
		r.mu.Lock()
		if err != nil {
			r.err = err
			r.mu.Unlock()
			return
		}
		r.note(d)
		r.mu.Unlock()
	}
}

// step reads what there is now.
func (r *recorder) step() {
	for {
		if d, ok := r.stream.Taken(); ok {
			r.note(d)
			continue
		}
		wait, err := r.stream.refill()
		if err != nil {
			r.err = err
			return
		}
		if wait {
			return
		}
	}
}

func (r *recorder) note(d Delivery) {
	r.lines = append(r.lines, describe(d))
	resp := watchcheck.Response{Revision: int64(d.Revision), Compact: int64(d.Compact)}
	switch d.Kind {
	case DeliverRefused:
		return
	case DeliverProgress:
		resp.Progress = true
		if d.ID == NoWatch {
			r.all++
			for _, w := range r.watches {
				if n := len(w.Responses); !w.Responses[n-1].Canceled {
					w.Responses = append(w.Responses, resp)
				}
			}
			return
		}
	case DeliverCreated:
		resp.Created = true
		r.watches[d.ID] = &watchcheck.Watch{Request: r.asked[d.ID]}
	case DeliverCanceled, DeliverCompacted:
		resp.Canceled = true
	case DeliverEvents:
		resp.Events = decode(d.Batch)
	}
	w := r.watches[d.ID]
	if w == nil {
		panic(fmt.Sprintf("watch %d speaks before it was created: %+v", d.ID, d))
	}
	w.Responses = append(w.Responses, resp)
}

// check holds every watch to every promise.
func (r *recorder) check(t *testing.T, h *watchcheck.History) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, w := range r.watches {
		for _, err := range watchcheck.All(*w, h) {
			t.Errorf("watch %d (%+v): %v", id, w.Request, err)
		}
	}
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func describe(d Delivery) string {
	switch d.Kind {
	case DeliverCreated:
		return fmt.Sprintf("watch %d: created at %d", d.ID, d.Revision)
	case DeliverRefused:
		return fmt.Sprintf("refused at %d: %s", d.Revision, d.Reason)
	case DeliverCanceled:
		return fmt.Sprintf("watch %d: canceled at %d", d.ID, d.Revision)
	case DeliverCompacted:
		return fmt.Sprintf("watch %d: canceled, compacted at %d", d.ID, d.Compact)
	case DeliverProgress:
		return fmt.Sprintf("watch %d: progress %d", d.ID, d.Revision)
	}
	line := fmt.Sprintf("watch %d: header %d:", d.ID, d.Revision)
	for _, e := range decode(d.Batch) {
		line += fmt.Sprintf(" %d %s %s", e.Kv.ModRevision, e.Type, e.Kv.Key)
		if e.Type == mvccpb.Event_PUT {
			line += "=" + string(e.Kv.Value)
		}
		if e.PrevKv != nil {
			line += fmt.Sprintf(" (was %s)", e.PrevKv.Value)
		}
	}
	return line
}
