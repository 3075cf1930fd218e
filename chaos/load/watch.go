package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// collect follows all keys on one member, from the first revision on.
func (l *Load) collect(ctx context.Context, client int, conn Conn, mark *atomic.Int64) {
	req := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 1}
	for ctx.Err() == nil {
		l.stream(ctx, client, conn, req, func(r *pb.WatchResponse, _ pb.Watch_WatchClient) {
			if n := len(r.Events); n > 0 {
				mark.Store(r.Events[n-1].Kv.ModRevision)
				req.StartRevision = mark.Load() + 1
			}
		})
		pause(ctx, idle)
	}
}

// watch follows some keys, with some options, on one stream after the other. Most
// go on where the last one ended; some begin anew, in the past or in the future.
func (l *Load) watch(ctx context.Context, client int, conn Conn, r *rand.Rand) {
	req := &pb.WatchCreateRequest{Key: []byte("key/"), RangeEnd: []byte("key0"), PrevKv: r.IntN(2) == 0, Fragment: r.IntN(2) == 0, ProgressNotify: true}
	switch r.IntN(4) {
	case 0:
		req.Key, req.RangeEnd = []byte("key/001"), nil
	case 1:
		req.Key, req.RangeEnd = []byte("/registry/"), []byte("/registry0")
	}
	if r.IntN(4) == 0 {
		req.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_FilterType(r.IntN(2))}
	}
	for ctx.Err() == nil {
		if newest := l.marks[0].Load(); l.stopped.Err() == nil && r.IntN(4) == 0 {
			req.StartRevision = []int64{0, 1, max(1, newest-r.Int64N(200)), newest + r.Int64N(50)}[r.IntN(4)]
		}
		l.follow(ctx, client, conn, req, r)
		pause(ctx, idle)
	}
}

// watchLife is the mean life of a watch's stream.
const watchLife = 3 * time.Second

// follow is one stream, which ends after some time, unless the load has stopped.
func (l *Load) follow(ctx context.Context, client int, conn Conn, req *pb.WatchCreateRequest, r *rand.Rand) {
	life, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := time.Now().Add(time.Duration(r.ExpFloat64() * float64(watchLife)))
	l.stream(life, client, conn, req, func(a *pb.WatchResponse, s pb.Watch_WatchClient) {
		switch {
		case a.Created && req.StartRevision == 0:
			req.StartRevision = a.Header.Revision + 1
		case a.Canceled && a.CompactRevision > 0:
			req.StartRevision = a.CompactRevision
		case len(a.Events) > 0 && !a.Fragment:
			req.StartRevision = a.Events[len(a.Events)-1].Kv.ModRevision + 1
		}
		switch {
		case l.stopped.Err() != nil:
		case time.Now().After(ends):
			cancel()
		case r.IntN(50) == 0:
			// An error ends the stream, which Recv tells.
			_ = s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
		}
	})
}

// stream opens one watch and writes down what it is told, until it ends.
func (l *Load) stream(ctx context.Context, client int, conn Conn, req *pb.WatchCreateRequest, told func(*pb.WatchResponse, pb.Watch_WatchClient)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return
	}
	w := l.rec.Watch(client, conn.Member, req)
	err = s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}})
	for err == nil {
		var r *pb.WatchResponse
		if r, err = s.Recv(); err != nil {
			break
		}
		w.Told(r)
		told(r, s)
		if r.Canceled {
			err = fmt.Errorf("canceled: %s", r.CancelReason)
		}
	}
	if ctx.Err() != nil {
		err = nil // we did
	}
	w.Ended(err)
}
