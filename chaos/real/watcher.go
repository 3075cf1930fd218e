//go:build linux

package real

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/client"
)

// watcher follows all keys of the load through one member at a time, on a plain
// stream, and goes on where it ended when the stream breaks. A watcher with a
// member of its own stays with it, one with a mirror follows the mirror's keys.
type watcher struct {
	n      int
	c      *Cluster
	rec    *history.Recorder
	at     *Member // nil: one after the other
	turn   int
	mirror *mirror      // nil: there is none
	next   int64        // revision to go on from; 0: a list comes first
	seen   atomic.Int64 // revision up to which everything was told
}

// Watchers ask for everything but the keys of large values.
const watchedFrom, watchedTo = "!", "~"

// run ends with ctx.
func (w *watcher) run(ctx context.Context) {
	if w.mirror == nil {
		w.next = 1
	}
	for ctx.Err() == nil {
		m := w.at
		if m == nil {
			all := w.c.members()
			m = all[w.turn%len(all)]
			w.turn++
		}
		if w.next == 0 {
			w.next = w.mirror.begin()
		} else {
			w.stream(ctx, m)
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// streamTime is how long a wandering watcher stays with a member.
const streamTime = 3 * time.Second

// stream is one watch on one member.
func (w *watcher) stream(ctx context.Context, m *Member) {
	conn, err := w.c.dial(m.endpoint())
	if err != nil {
		return
	}
	var cancel context.CancelFunc
	if w.at == nil {
		ctx, cancel = context.WithTimeout(ctx, streamTime)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	s, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return
	}
	req := &pb.WatchCreateRequest{Key: []byte(watchedFrom), RangeEnd: []byte(watchedTo), StartRevision: w.next, PrevKv: w.n%2 == 0, ProgressNotify: true}
	if w.mirror != nil {
		req.Key, req.RangeEnd = []byte(w.mirror.from), []byte(w.mirror.to)
	}
	if err := s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}); err != nil {
		return
	}
	rec := w.rec.Watch(w.n, m.ID, req)
	for {
		resp, err := s.Recv()
		if err != nil {
			rec.Ended(endOf(err))
			return
		}
		rec.Told(resp)
		switch {
		case resp.Canceled && resp.CompactRevision > 0:
			w.next = resp.CompactRevision
			if w.mirror != nil {
				w.next = 0
			}
			rec.Ended(nil)
			return
		case resp.Canceled:
			rec.Ended(errors.New(resp.CancelReason))
			return
		case len(resp.Events) > 0:
			rev := resp.Events[len(resp.Events)-1].Kv.ModRevision
			w.next = rev + 1
			w.mirror.follow(resp.Events...)
			w.seen.Store(rev)
		case !resp.Created:
			w.seen.Store(resp.Header.Revision)
		}
	}
}

// endOf is nil when the client ended the stream itself.
func endOf(err error) error {
	if c := status.Code(err); c == codes.Canceled || c == codes.DeadlineExceeded || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// library is a watch of package client, across all members.
type library struct {
	n    int
	cl   *client.Client
	rec  *history.Recorder
	seen atomic.Int64
	errs chan error
}

// run ends with ctx. What it was told is written down as one watch, in answers of
// one revision each.
func (f *library) run(ctx context.Context) {
	req := &pb.WatchCreateRequest{Key: []byte(watchedFrom), RangeEnd: []byte(watchedTo), StartRevision: 1}
	rec := f.rec.Watch(f.n, 0, req)
	rec.Told(&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 1}, Created: true})
	var now *pb.WatchResponse
	for ev, err := range f.cl.Watch(ctx, client.Span(watchedFrom, watchedTo), client.After(0)) {
		if err != nil {
			if ctx.Err() == nil {
				f.errs <- fmt.Errorf("O3: the watch of the client ended: %w", err)
			}
			break
		}
		if now != nil && now.Header.Revision != int64(ev.KV.Modified) {
			rec.Told(now)
			now = nil
		}
		if now == nil {
			now = &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: int64(ev.KV.Modified)}}
		}
		now.Events = append(now.Events, eventOf(ev))
		f.seen.Store(int64(ev.KV.Modified))
	}
	if now != nil {
		rec.Told(now)
	}
	rec.Ended(nil)
}

func eventOf(ev client.Event) *mvccpb.Event {
	kv := &mvccpb.KeyValue{
		Key: []byte(ev.KV.Key), Value: ev.KV.Value, CreateRevision: int64(ev.KV.Created), ModRevision: int64(ev.KV.Modified), Version: ev.KV.Version, Lease: int64(ev.KV.Lease),
	}
	if ev.Type == client.EventDelete {
		return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: kv}
	}
	return &mvccpb.Event{Kv: kv}
}
