//go:build linux

package real

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
)

// This file is the readers of Kubernetes: they list once and then follow, and what
// they hold in the end must be what a list says.

// mirror is a copy of the keys in a range: a list, and what a watch told after it.
type mirror struct {
	from, to string
	list     func() *pb.RangeResponse // nil: there is no answer

	mu   sync.Mutex
	held map[string]int64 // revisions by key
}

// begin makes the copy anew, and returns the revision to go on from; 0: not yet.
func (c *mirror) begin() int64 {
	now := c.list()
	if now == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = revisions(now)
	return now.Header.Revision + 1
}

func revisions(list *pb.RangeResponse) map[string]int64 {
	out := map[string]int64{}
	for _, kv := range list.Kvs {
		out[string(kv.Key)] = kv.ModRevision
	}
	return out
}

// follow takes events; who has no mirror has nothing to do.
func (c *mirror) follow(events ...*mvccpb.Event) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ev := range events {
		if ev.Type == mvccpb.Event_DELETE {
			delete(c.held, string(ev.Kv.Key))
		} else {
			c.held[string(ev.Kv.Key)] = ev.Kv.ModRevision
		}
	}
}

// equals compares the copy with what is there.
func (c *mirror) equals(list *pb.RangeResponse) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := revisions(list)
	for key, rev := range now {
		if c.held[key] != rev {
			return fmt.Errorf("O3: a copy has %s at revision %d, a list at %d", key, c.held[key], rev)
		}
	}
	for key, rev := range c.held {
		if now[key] == 0 {
			return fmt.Errorf("O3: a copy has %s at revision %d, a list does not have it", key, rev)
		}
	}
	return nil
}

// ranged lists plainly.
func (w *caller) ranged(from, to string) *pb.RangeResponse {
	op := w.do("etcdserverpb.KV/Range", &pb.RangeRequest{Key: []byte(from), RangeEnd: []byte(to)})
	if resp, ok := op.Response.(*pb.RangeResponse); ok && op.Outcome == history.OK {
		return resp
	}
	return nil
}

// readers are those of a run: one reads keys as an API server does, and where
// members serve objects, one informer stays with a member and one goes around.
func (r *Run) readers() (*watcher, []*informer) {
	const first = 500
	from, to := "/registry/pods/", "/registry/pods0"
	if r.Cluster.objects {
		from, to = "/registry/configmaps/", "/registry/configmaps0"
	}
	w := r.load.caller(first, r.Seed)
	w.cl = nil
	pods := &mirror{from: from, to: to, list: func() *pb.RangeResponse { return w.ranged(from, to) }}
	var informers []*informer
	for n := 1; n <= 2 && r.Cluster.objects; n++ {
		w := r.load.caller(first+n, r.Seed)
		w.at = int(r.Seed)
		informers = append(informers, newInformer(w, n == 1))
	}
	return &watcher{n: first, c: r.Cluster, rec: r.rec, mirror: pods}, informers
}

// copied demands that every copy becomes what a list says.
func (r *Run) copied() error {
	var errs []error
	for _, c := range r.mirrors {
		errs = append(errs, within(libraryDelay, func() error {
			if now := r.mine.ranged(c.from, c.to); now != nil {
				return c.equals(now)
			}
			return errors.New("O9: no answer to a list")
		}))
	}
	return errors.Join(errs...)
}

// informer follows the objects of the Kubernetes API as controllers do: a list, and
// a watch from its revision on, which goes on after the last revision that it told
// when it ends. What it is told is written down in short, like the calls of
// objects.go, and completed by attribute.
type informer struct {
	*mirror
	lists  *objects
	stays  bool // with one member; or it goes to the next one
	client *http.Client
	next   int64 // revision to go on from; 0: a list comes first
	events int64 // that it was told of
	tooOld int64 // the newest revision of which a member said that it is too old to go on after
}

func newInformer(w *caller, stays bool) *informer {
	dialer := net.Dialer{Timeout: time.Second}
	f := &informer{lists: newObjects(w), stays: stays, client: &http.Client{Transport: &http.Transport{
		DialContext: dialer.DialContext, ResponseHeaderTimeout: callTimeout, DisableKeepAlives: true, // or a watch waits in a connection that is dead
	}}}
	f.mirror = &mirror{from: objectsPrefix, to: objectsEnd, list: func() *pb.RangeResponse {
		return f.lists.list([]string{"", "0"}[w.rand.IntN(2)])
	}}
	return f
}

// run ends with ctx.
func (f *informer) run(ctx context.Context) {
	for ctx.Err() == nil {
		if f.next == 0 {
			f.next = f.begin()
		} else {
			f.watch(ctx)
		}
		if !f.stays {
			f.lists.at++
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// watch is one watch of some seconds. Who loses a member without being told notices
// that when they are over.
func (f *informer) watch(ctx context.Context) {
	seconds := 3 + f.lists.rand.IntN(8)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds+2)*time.Second)
	defer cancel()
	m := f.lists.member()
	url := fmt.Sprintf("%s%s?watch=true&allowWatchBookmarks=true&timeoutSeconds=%d&resourceVersion=%d", m.resourceURL(), objectsPath, seconds, f.next-1)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		f.refused(resp.StatusCode)
		return
	}
	rec := f.lists.rec.Watch(f.lists.n, m.ID, &pb.WatchCreateRequest{Key: []byte(f.from), RangeEnd: []byte(f.to), StartRevision: f.next})
	rec.Told(&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: f.next - 1}, Created: true})
	for in := json.NewDecoder(resp.Body); ; {
		var ev objectEvent
		if err = in.Decode(&ev); err != nil {
			break
		}
		if ev.Type == "ERROR" {
			f.refused(ev.Object.Code)
			err = fmt.Errorf("an error of code %d", ev.Object.Code)
			break
		}
		f.told(ev, rec)
	}
	if ctx.Err() != nil || errors.Is(err, io.EOF) {
		err = nil // it ended in order
	}
	rec.Ended(err)
}

// objectEvent is one event of a watch. An error is told in the object's place, with
// its code.
type objectEvent struct {
	Type   string `json:"type"`
	Object struct {
		object
		Code int `json:"code"`
	} `json:"object"`
}

// told takes an event, or a bookmark.
func (f *informer) told(ev objectEvent, rec *history.Watching) {
	kv := ev.Object.short()
	resp := &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: kv.ModRevision}}
	f.next = kv.ModRevision + 1
	switch {
	case ev.Type == "BOOKMARK":
	case !ev.Object.ofLoad():
		return
	default:
		told := &mvccpb.Event{Kv: kv}
		switch ev.Type {
		case "ADDED":
			kv.CreateRevision = kv.ModRevision
		case "DELETED":
			told.Type = mvccpb.Event_DELETE
		}
		f.follow(told)
		f.events++
		resp.Events = []*mvccpb.Event{told}
	}
	rec.Told(resp)
}

// refused begins anew with a list when the member says that what comes next is gone.
func (f *informer) refused(code int) {
	if code == http.StatusGone {
		f.tooOld = max(f.tooOld, f.next-1)
		f.next = 0
	}
}

// inTime demands that it was told of something, and of no revision that it is too
// old, if what follows it was never compacted.
func (f *informer) inTime(compacted int64) error {
	if f.events == 0 {
		return errors.New("O3: an informer was told of no event")
	}
	if f.tooOld >= compacted && f.tooOld > 0 {
		return fmt.Errorf("O3: revision %d was called too old, and %d is the last that was compacted", f.tooOld, compacted)
	}
	return nil
}

// completeWatches gives events what informers were not told of each object, if what
// they were told is so: what happened to the object, at which revision, and its tag.
func completeWatches(m *oracle.Model, watches []*history.Watch) {
	type fact struct {
		*mvccpb.Event
		tag string // of a deleted object, the last
	}
	name := func(kv *mvccpb.KeyValue) string { return fmt.Sprintf("%s@%d", kv.Key, kv.ModRevision) }
	facts, tags := map[string]fact{}, map[string]string{}
	for _, ev := range m.Events {
		key := string(ev.Kv.Key)
		if found := tagIn.FindSubmatch(ev.Kv.Value); found != nil {
			tags[key] = string(found[1])
		}
		facts[name(ev.Kv)] = fact{ev, tags[key]}
	}
	for _, w := range watches {
		if string(w.Request.Key) != objectsPrefix {
			continue
		}
		for _, r := range w.Responses {
			for _, ev := range r.Events {
				f, ok := facts[name(ev.Kv)]
				added := ok && f.Kv.CreateRevision == f.Kv.ModRevision
				if ok && f.Type == ev.Type && f.tag == string(ev.Kv.Value) && (ev.Type == mvccpb.Event_DELETE || added == (ev.Kv.CreateRevision > 0)) {
					ev.Kv = f.Kv
				}
			}
		}
	}
}
