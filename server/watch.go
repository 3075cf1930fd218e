package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
)

// watchService is etcdserverpb.Watch: one RPC, a stream of requests and a
// stream of answers, over which a client runs as many watches as it likes.
var watchService = grpc.ServiceDesc{
	ServiceName: "etcdserverpb.Watch",
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{
		StreamName:    "Watch",
		ServerStreams: true,
		ClientStreams: true,
		Handler: func(srv any, stream grpc.ServerStream) error {
			return srv.(*watchServer).serve(stream)
		},
	}},
	Metadata: "rpc.proto",
}

// watchBackend is what the Watch RPC needs of the rest of the member.
type watchBackend interface {
	// NewWatchStream opens a stream of the store that is served now.
	NewWatchStream() *mvcc.WatchStream
	// Term is Raft's, for headers.
	Term() api.Term
	// WatchPermitted says whether the caller may watch the range; the error's
	// text becomes the cancel_reason.
	WatchPermitted(ctx context.Context, key, end []byte) error
}

// watchConfig is fixed when the server starts.
type watchConfig struct {
	Backend watchBackend
	Cluster api.ClusterID
	Member  api.MemberID
	Clock   clock.Clock
	Logger  *slog.Logger
	// Sent counts events that are sent; nil: nobody does.
	Sent func(events int)
	// FragmentBytes is the size from which an answer is sent in fragments to
	// those who asked for it: the largest request, with gRPC's overhead.
	FragmentBytes int
	// ProgressInterval is how often a quiet watch is told how far it is.
	ProgressInterval time.Duration
	// Jitter returns a number in [0, n): streams that began together do not
	// speak together.
	Jitter func(n int64) int64
}

// minProgressInterval is etcd's: shorter intervals are raised to it.
const minProgressInterval = 100 * time.Millisecond

// watchServer serves Watch. Each stream has two goroutines: the RPC's own sends
// what the hub has for it; one more takes the client's requests. They meet in
// the mvcc.WatchStream, which puts their answers and the events in one order.
type watchServer struct {
	cfg watchConfig
}

func newWatchServer(cfg watchConfig) *watchServer {
	if cfg.ProgressInterval < minProgressInterval {
		cfg.Logger.Warn("raising the watch progress interval to its minimum",
			"interval", cfg.ProgressInterval, "minimum", minProgressInterval)
		cfg.ProgressInterval = minProgressInterval
	}
	if cfg.Sent == nil {
		cfg.Sent = func(int) {}
	}
	return &watchServer{cfg: cfg}
}

// serve runs one stream until the client leaves, its leader is gone for long
// (see admitStream), or history cannot be read.
func (s *watchServer) serve(stream grpc.ServerStream) error {
	watches := s.cfg.Backend.NewWatchStream()
	defer watches.Close()
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	// Recv returns when serve has, because the stream is over then.
	go func() {
		r := watchReceiver{server: s, stream: stream, watches: watches}
		if err := r.run(ctx); err != nil {
			cancel(err)
		}
	}()
	interval := s.cfg.ProgressInterval
	interval += time.Duration(s.cfg.Jitter(int64(interval / 10)))
	defer s.tickEvery(interval, watches)()
	sender := newWatchSender(s, stream)
	for {
		d, err := watches.Next(ctx)
		if err != nil {
			return watchEnd(ctx, err)
		}
		if err := sender.send(d, watches); err != nil {
			return watchEnd(ctx, err)
		}
	}
}

// tickEvery asks for signs of life until stopped. It needs no goroutine: there
// are hundreds of idle streams.
func (s *watchServer) tickEvery(interval time.Duration, watches *mvcc.WatchStream) (stop func()) {
	var timer clock.Timer
	ready := make(chan struct{})
	timer = s.cfg.Clock.AfterFunc(interval, func() {
		<-ready
		if watches.Tick() {
			timer.Reset(interval)
		}
	})
	close(ready)
	// A tick that is under way may start the timer once more; the next one
	// finds the stream closed.
	return func() { timer.Stop() }
}

// watchEnd says how a stream ends. A client that left is told what etcd tells.
func watchEnd(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	switch {
	case errors.Is(err, context.Canceled):
		return api.ErrWatchCanceled
	case errors.Is(err, mvcc.ErrStreamClosed):
		return api.ErrStopped
	}
	return rpcError(err)
}

// watchReceiver takes the requests of one stream, in order.
type watchReceiver struct {
	server  *watchServer
	stream  grpc.ServerStream
	watches *mvcc.WatchStream
}

// run returns nil when the client has no more requests; its watches go on.
func (r *watchReceiver) run(ctx context.Context) error {
	for {
		if err := r.watches.Room(ctx); err != nil {
			return err
		}
		var req pb.WatchRequest
		if err := r.stream.RecvMsg(&req); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		switch u := req.RequestUnion.(type) {
		case *pb.WatchRequest_CreateRequest:
			if u.CreateRequest != nil {
				r.create(ctx, u.CreateRequest)
			}
		case *pb.WatchRequest_CancelRequest:
			if u.CancelRequest != nil {
				r.watches.Cancel(u.CancelRequest.WatchId)
			}
		case *pb.WatchRequest_ProgressRequest:
			if u.ProgressRequest != nil {
				r.watches.RequestProgress()
			}
		default: // of a newer client; an empty one
			r.server.cfg.Logger.Info("unknown kind of watch request", "type", fmt.Sprintf("%T", req.RequestUnion))
		}
	}
}

// create starts a watch, or refuses it on the stream, which goes on.
func (r *watchReceiver) create(ctx context.Context, c *pb.WatchCreateRequest) {
	key := c.Key
	if len(key) == 0 {
		key = []byte{0} // the smallest key
	}
	if c.StartRevision < 0 {
		r.watches.Refuse(api.ErrCompacted.Text)
		return
	}
	if err := r.server.cfg.Backend.WatchPermitted(ctx, key, c.RangeEnd); err != nil {
		r.watches.Refuse(refusalReason(err))
		return
	}
	q := mvcc.WatchRequest{
		ID: c.WatchId, Key: key, End: c.RangeEnd, Start: api.Revision(c.StartRevision),
		PrevKV: c.PrevKv, Progress: c.ProgressNotify, Fragment: c.Fragment,
	}
	for _, f := range c.Filters {
		switch f {
		case pb.WatchCreateRequest_NOPUT:
			q.NoPut = true
		case pb.WatchCreateRequest_NODELETE:
			q.NoDelete = true
		}
	}
	if _, err := r.watches.Watch(q); err != nil {
		r.watches.Refuse(err.Error())
	}
}

// refusalReason is the text that etcd puts into cancel_reason for a refused
// permission: a gRPC status, printed.
func refusalReason(err error) string {
	var refusal *api.Error
	if errors.As(err, &refusal) {
		return refusal.GRPCStatus().Err().Error()
	}
	return err.Error()
}
