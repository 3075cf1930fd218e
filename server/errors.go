package server

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/raft"
)

// rpcError is the one conversion at the RPC edge: what an error from inside
// becomes for a client. Refusals pass as they are; a caller that left gets its
// own context's code; anything unknown says what it is.
func rpcError(err error) error {
	if err == nil {
		return nil
	}
	if refusal, ok := err.(*api.Error); ok { // the usual case, without unwrapping
		return refusal
	}
	var refusal *api.Error
	switch {
	case errors.As(err, &refusal):
		return refusal
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	case errors.Is(err, mvcc.ErrCorrupt):
		return api.ErrCorrupt
	case errors.Is(err, mvcc.ErrClosed):
		return api.ErrStopped
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Unknown, err.Error())
}

// proposalError says how a proposal ended whose caller stopped waiting. As in
// etcd, a deadline of the caller's looks like our own: the outcome is unknown.
func proposalError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotProposed):
		return context.DeadlineExceeded // as in etcd, which waits for a leader on the request's own clock
	case errors.Is(err, context.Canceled):
		return api.ErrCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return api.ErrTimeout
	}
	return err
}
