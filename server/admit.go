package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
)

// envelopeBytes is what etcd's log adds to a request and counts as part of it:
// a header with a request id of ten bytes, and the field that tells its kind.
const envelopeBytes = 18

// admit decides whether a command may be proposed, and says in whose name. Every
// command of a client passes here, after its fields were checked and before it
// costs anything: the place of permissions. The space quota (admitCost) comes
// even before the fields. The backlog is bounded by raft, which alone knows it; the
// interceptors have refused clients that demand a leader, and callers that lack
// what the table of RPCs demands.
//
// Rights are asked again when the command is applied: that answer counts. Here
// the question only spares the log what would be refused.
func (s *Server) admit(ctx context.Context, kind uint8, body []byte, does accessor) (who auth.Principal, err error) {
	if !s.auth.now.Load().Enabled {
		return auth.Principal{}, s.fits(body, auth.Principal{})
	}
	leaseKeys := leaseKeysOf(s.Store())
	return s.permit(ctx, func(state *auth.State, who auth.Principal) error {
		if err := s.fits(body, who); err != nil {
			return err
		}
		g := guard{state: state, who: who, leaseKeys: leaseKeys}
		if err := g.admitCommand(kind); err != nil || does == nil {
			return err
		}
		return g.check(does)
	})
}

// fits bounds a command by what etcd's log would make of it; with a caller, the
// name and the revision are part of that.
func (s *Server) fits(body []byte, who auth.Principal) error {
	size := len(body) + envelopeBytes
	if who.Known() {
		size += 1 + protowire.SizeBytes(len(who.Name)) + 1 + protowire.SizeVarint(who.Revision)
	}
	if size > int(s.cfg.MaxRequestBytes) {
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
// none for a while; where none is known yet, the stream waits for one as long.
// Handlers must heed the context even while a message is being received; RecvMsg
// knows the client's context only.
func (s *Server) admitStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if info.FullMethod != snapshotMethod && s.node.Status().Learner {
		return api.ErrNotSupportedForLearner
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	o := &openStream{cut: cancel, led: needsLeader(stream.Context())}
	defer s.led.add(o)()
	if o.led {
		s.awaitLeader(ctx, o)
	}
	err := ctx.Err()
	if err == nil {
		err = next(srv, cutStream{stream, ctx})
	}
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

func (s cutStream) unwrap() grpc.ServerStream { return s.ServerStream }
