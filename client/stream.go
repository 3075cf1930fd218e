package client

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// steady is how long a stream must have lasted for its end to count as a new
// failure and not as the last one going on.
const steady = time.Second

// keep keeps a stream open until ctx ends, or what stops it would stop it
// everywhere. serve runs the stream and calls alive when it has had an answer.
func (t *trial) keep(ctx context.Context, serve func(ctx context.Context, conn *grpc.ClientConn, alive func()) error) error {
	t.stream, t.endless = true, true
	return t.run(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		began := time.Now()
		err := serve(ctx, conn, func() {
			if t.pool.answered(t.last, t.tried) {
				t.notice(NoticeFailover, t.last.name, nil)
			}
			t.tried = t.tried[:0]
		})
		if time.Since(began) > steady {
			t.rounds, t.refreshed = 0, 0
		}
		return again(err)
	}, nil)
}

// again turns whatever ended a stream into something that is tried again, unless
// it would end the next one as well.
func again(err error) error {
	switch code := status.Code(fromWire(err)); code {
	case codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.InvalidArgument, codes.FailedPrecondition:
		return err
	case codes.Unavailable:
		return err
	}
	return status.Error(codes.Unavailable, err.Error())
}
