package differential

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/compat/wire"
)

// syncTimeout bounds how long a store may take to bring all watches of a stream
// up to the current revision. progressEvery is how often it is asked meanwhile:
// a store stays silent while a watch lags.
const (
	syncTimeout   = 30 * time.Second
	progressEvery = 20 * time.Millisecond
)

// watchEntry is one thing a watcher was told.
type watchEntry struct {
	event    *mvccpb.Event
	canceled *pb.WatchResponse // by compaction
}

// watchLog is what the watcher of one id was told since the last comparison, and
// what is needed to check the rules while it comes in.
type watchLog struct {
	entries []watchEntry
	lastRev int64 // mod revision of the last event
	partial bool  // the last response was a fragment with more to come
}

// watchStream is one Watch call. A goroutine receives; everything else is for the
// side's goroutine.
type watchStream struct {
	client pb.Watch_WatchClient
	wake   chan struct{} // has room for one; set after every response

	mu struct {
		sync.Mutex
		control   []*pb.WatchResponse // created and canceled, in order
		logs      map[int64]*watchLog
		compacted []int64 // ids canceled by compaction and not yet canceled by us
		live      int     // watchers created and not canceled
		progress  int64
		broken    []string
		err       error
	}
}

func openWatchStream(ctx context.Context, conn *grpc.ClientConn) (*watchStream, error) {
	client, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return nil, err
	}
	w := &watchStream{client: client, wake: make(chan struct{}, 1)}
	w.mu.logs = map[int64]*watchLog{}
	go w.receive()
	return w, nil
}

// receive ends when the stream does.
func (w *watchStream) receive() {
	for {
		resp, err := w.client.Recv()
		w.mu.Lock()
		if err != nil {
			w.mu.err = err
		} else {
			w.sortLocked(resp)
		}
		w.mu.Unlock()
		select {
		case w.wake <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (w *watchStream) sortLocked(resp *pb.WatchResponse) {
	revision := resp.Header.GetRevision()
	wire.Mask(resp)
	switch {
	case resp.Created:
		w.mu.control = append(w.mu.control, resp)
		if !resp.Canceled {
			w.mu.live++
			w.logLocked(resp.WatchId).lastRev = 0
		}
	case resp.Canceled && resp.CompactRevision == 0:
		w.mu.control = append(w.mu.control, resp)
		w.mu.live--
	case resp.Canceled:
		log := w.logLocked(resp.WatchId)
		log.entries = append(log.entries, watchEntry{canceled: resp})
		w.mu.compacted = append(w.mu.compacted, resp.WatchId)
	case len(resp.Events) > 0:
		w.eventsLocked(resp, revision)
	case resp.WatchId == -1:
		w.mu.progress = max(w.mu.progress, revision)
	}
}

// eventsLocked checks the rules of delivery: Ordered, Unique, Atomic and the
// promise of the header.
func (w *watchStream) eventsLocked(resp *pb.WatchResponse, revision int64) {
	log := w.logLocked(resp.WatchId)
	for i, ev := range resp.Events {
		rev := ev.GetKv().GetModRevision()
		repeats := rev == log.lastRev && (i > 0 || log.partial)
		if rev <= log.lastRev && !repeats {
			w.brokenLocked("watch %d: revision %d in a new response after %d", resp.WatchId, rev, log.lastRev)
		}
		log.lastRev = rev
		log.entries = append(log.entries, watchEntry{event: ev})
	}
	if revision < log.lastRev {
		w.brokenLocked("watch %d: header says revision %d, events reach %d", resp.WatchId, revision, log.lastRev)
	}
	log.partial = resp.Fragment
}

func (w *watchStream) brokenLocked(format string, args ...any) {
	w.mu.broken = append(w.mu.broken, fmt.Sprintf(format, args...))
}

func (w *watchStream) logLocked(id int64) *watchLog {
	if w.mu.logs[id] == nil {
		w.mu.logs[id] = &watchLog{}
	}
	return w.mu.logs[id]
}

// create sends a create request and gives the one response to it.
func (w *watchStream) create(req *pb.WatchCreateRequest) ([]*pb.WatchResponse, error) {
	w.mu.Lock()
	before := len(w.mu.control)
	w.mu.Unlock()
	if err := w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}); err != nil {
		return nil, err
	}
	err := w.wait("the answer to a create request", func() bool { return len(w.mu.control) > before })
	return w.takeControl(), err
}

// cancel sends cancel requests and gives all responses to them. A store answers
// nothing when the id is unknown, so a create request that must be refused at
// once is sent behind as a fence, whose answer is not given.
func (w *watchStream) cancel(ids ...int64) ([]*pb.WatchResponse, error) {
	for _, id := range ids {
		req := &pb.WatchCancelRequest{WatchId: id}
		if err := w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: req}}); err != nil {
			return nil, err
		}
	}
	fence := &pb.WatchCreateRequest{Key: []byte("fence"), StartRevision: -1}
	if err := w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: fence}}); err != nil {
		return nil, err
	}
	err := w.wait("the refusal of a watch from revision -1", func() bool {
		n := len(w.mu.control)
		return n > 0 && w.mu.control[n-1].Created
	})
	control := w.takeControl()
	return control[:max(0, len(control)-1)], err
}

// sync waits until the store says that every watch of the stream has been sent
// all it is owed up to the revision, which must be newer than any revision
// progress was asked at before: so no late answer is mistaken for the new one.
// Watches that compaction canceled are canceled by request first, as clients do;
// until then they would silence the stream. The responses to that are returned, by
// id: how many are canceled at a time is a matter of timing.
func (w *watchStream) sync(revision int64) ([]*pb.WatchResponse, error) {
	var control []*pb.WatchResponse
	deadline := time.Now().Add(syncTimeout)
	for {
		w.mu.Lock()
		ids, done := w.mu.compacted, w.mu.live == 0 || w.mu.progress >= revision
		w.mu.compacted = nil
		if w.mu.progress > revision {
			w.brokenLocked("progress says revision %d, the store is at %d", w.mu.progress, revision)
		}
		err := w.mu.err
		w.mu.Unlock()
		switch {
		case err != nil:
			return control, err
		case len(ids) > 0:
			c, err := w.cancel(ids...)
			control = append(control, c...)
			if err != nil {
				return control, err
			}
			continue
		case done:
			slices.SortStableFunc(control, func(a, b *pb.WatchResponse) int { return cmp.Compare(a.WatchId, b.WatchId) })
			return control, nil
		case time.Now().After(deadline):
			return control, fmt.Errorf("no progress to revision %d within %v", revision, syncTimeout)
		}
		if err := w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}); err != nil {
			return control, err
		}
		w.await(progressEvery, func() bool { return w.mu.progress >= revision || len(w.mu.compacted) > 0 })
	}
}

// takeLogs gives what all watchers were told since the last time.
func (w *watchStream) takeLogs() (logs map[int64][]watchEntry, broken []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	logs = map[int64][]watchEntry{}
	for id, log := range w.mu.logs {
		if len(log.entries) > 0 {
			logs[id] = log.entries
			log.entries = nil
		}
	}
	broken, w.mu.broken = w.mu.broken, nil
	return logs, broken
}

func (w *watchStream) takeControl() []*pb.WatchResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	control := w.mu.control
	w.mu.control = nil
	return control
}

func (w *watchStream) send(req *pb.WatchRequest) error {
	if err := w.client.Send(req); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.mu.err != nil { // says more than Send's EOF
			return w.mu.err
		}
		return err
	}
	return nil
}

// wait waits for a condition on what was received.
func (w *watchStream) wait(what string, cond func() bool) error {
	if w.await(syncTimeout, cond) {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.err != nil {
		return fmt.Errorf("watch stream ended: %s", status.Convert(w.mu.err).Message())
	}
	return fmt.Errorf("%s did not come within %v", what, syncTimeout)
}

func (w *watchStream) await(timeout time.Duration, cond func() bool) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		w.mu.Lock()
		ok, ended := cond(), w.mu.err != nil
		w.mu.Unlock()
		if ok || ended {
			return ok
		}
		select {
		case <-w.wake:
		case <-timer.C:
			return false
		}
	}
}
