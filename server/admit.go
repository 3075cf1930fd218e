package server

import (
	"context"

	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/api"
)

// envelopeBytes is what etcd's log adds to a request and counts as part of it:
// a header with a request id of ten bytes, and the field that tells its kind.
const envelopeBytes = 18

// admit decides whether a command may be proposed. Every command of a client
// passes here, after its fields were checked and before it costs anything: the
// place of permissions. The space quota (admitCost) comes even before the fields. The backlog is bounded by raft,
// which alone knows it; the interceptors have refused clients that demand a
// leader.
func (s *Server) admit(_ uint8, body []byte) error {
	if len(body)+envelopeBytes > int(s.cfg.MaxRequestBytes) {
		return api.ErrRequestTooLarge
	}
	return nil
}

// admitLearner refuses what a member without a vote does not answer.
func (s *Server) admitLearner(req request) error {
	if !s.node.Status().Learner {
		return nil
	}
	if r, ok := req.(*rangeRequest); ok && r.serializable {
		return nil
	}
	return api.ErrNotSupportedForLearner
}

const snapshotMethod = "/etcdserverpb.Maintenance/Snapshot"

// admitStream stands before every streaming RPC. The stream's context ends when
// the member stops and, if its client asked for a leader, when there has been
// none for a while. Handlers must heed it even while a message is being
// received; RecvMsg knows the client's context only.
func (s *Server) admitStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if info.FullMethod != snapshotMethod && s.node.Status().Learner {
		return api.ErrNotSupportedForLearner
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer s.led.add(&openStream{cut: cancel, led: needsLeader(stream.Context())})()
	err := next(srv, cutStream{stream, ctx})
	if refusal, ok := context.Cause(ctx).(*api.Error); ok {
		return refusal
	}
	return err
}

// cutStream is a stream whose context the member can end.
type cutStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s cutStream) Context() context.Context { return s.ctx }
