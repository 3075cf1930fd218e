package client

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
)

// Errors that a program acts on. Test for them with errors.Is. A refusal of the
// cluster is, besides, the error of package api with the same text: for
// instance errors.Is(err, api.ErrPermissionDenied).
var (
	// ErrNotFound: there is no such key.
	ErrNotFound = errors.New("key not found")
	// ErrConflict: somebody else changed what the write depended on; nothing was
	// written. The error is a *ConflictError.
	ErrConflict = errors.New("changed by somebody else")
	// ErrCompacted: the revision is older than what the cluster keeps.
	ErrCompacted error = api.ErrCompacted
	// ErrUnknownOutcome: the request was sent, no answer came, and it may have
	// taken effect, or may yet. An error without it is a promise that the request
	// had no effect.
	ErrUnknownOutcome = errors.New("the request may have taken effect")
	// ErrLeaseLost: a lease was not kept alive. What depended on it, locks and
	// leadership above all, may belong to somebody else now.
	ErrLeaseLost = errors.New("lease lost")
	// ErrLocked: somebody else holds the lock.
	ErrLocked = errors.New("locked by somebody else")
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("client closed")
)

// Error is how a call failed.
type Error struct {
	Op       string // the gRPC method, as in "/etcdserverpb.KV/Put"
	Endpoint string // where that came from; empty when no endpoint was asked
	Err      error  // an *api.Error, the context's error, or a gRPC status
	// Unknown: a server may have acted on it. errors.Is(err, ErrUnknownOutcome)
	// tells the same. It is never set for reads.
	Unknown bool
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op[strings.LastIndexByte(e.Op, '/')+1:])
	if e.Endpoint != "" {
		fmt.Fprintf(&b, " at %s", e.Endpoint)
	}
	b.WriteString(": " + said(e.Err))
	if e.Unknown {
		fmt.Fprintf(&b, " (%v)", ErrUnknownOutcome)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is ErrUnknownOutcome and the outcome is unknown.
func (e *Error) Is(target error) bool { return target == ErrUnknownOutcome && e.Unknown }

// CompactedError ends a watch whose next event is no longer kept. Changes before
// Revision can only be learned by reading the keys anew.
type CompactedError struct {
	// Revision is the first that a watch can be After: what was read at it or
	// later says all that the watch does not tell.
	Revision Revision
}

func (e *CompactedError) Error() string {
	return fmt.Sprintf("history before revision %d has been compacted", e.Revision)
}

// Unwrap makes the error an ErrCompacted.
func (e *CompactedError) Unwrap() error { return ErrCompacted }

// ConflictError says who was faster.
type ConflictError struct {
	Key string
	// Current is the key's present state; nil when it does not exist.
	Current *KV
}

func (e *ConflictError) Error() string {
	if e.Current == nil {
		return fmt.Sprintf("key %q: deleted by somebody else", e.Key)
	}
	return fmt.Sprintf("key %q: %v at revision %d", e.Key, ErrConflict, e.Current.Modified)
}

// Unwrap makes the error an ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// fromWire turns what gRPC returned into the error of package api with the same
// text, if there is one.
func fromWire(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	if known := api.FindError(s.Message()); known != nil {
		return known
	}
	return err
}

// isRefusal reports that a member has said err: that tells more than that another one
// cannot be reached.
func isRefusal(err error) bool {
	_, is := err.(*api.Error)
	return is
}

// canRetry reports whether the same request may be sent again after err. sent:
// the failed attempt may have reached a server.
//
// For writes the rule is strict: they are repeated only when no server can have
// acted on them, which is so when the request never left, or when the refusal is
// one that a server decides before it proposes anything.
func (k effect) canRetry(err error, sent bool) bool {
	code := status.Code(err)
	if !sent {
		return code == codes.Unavailable || k == reads && code == codes.DeadlineExceeded
	}
	refusal, known := err.(*api.Error)
	switch {
	case planted.ClientRetries && code == codes.Unavailable:
		return true
	case k == changes:
		return false
	case known && (refusal == api.ErrNoLeader || refusal == api.ErrTooManyRequests || refusal == api.ErrNotSupportedForLearner):
		return true
	case k == writes:
		return false
	case known:
		return refusal.Code == codes.Unavailable || refusal == api.ErrTimeoutLeaderTransfer
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// mayHaveActed reports whether a server may have acted on a request that was
// sent and failed with err.
func mayHaveActed(err error) bool {
	if refusal, known := err.(*api.Error); known {
		switch refusal {
		case api.ErrNoLeader, api.ErrUnhealthy:
			return false
		case api.ErrCanceled, api.ErrDeadlineExceeded, api.ErrTimeoutLeaderTransfer:
			return true
		}
		return refusal.Code == codes.Unavailable
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented, codes.Unauthenticated:
		return false
	}
	return true
}

// ended adds to the reason why nothing more was tried, a context's end, what
// went wrong until then.
func ended(reason, last error) error {
	if last == nil {
		return reason
	}
	return fmt.Errorf("%w; the last attempts failed with: %s", reason, said(last))
}

// said is an error's text, without gRPC's frame around that of a status.
func said(err error) string {
	if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return s.GRPCStatus().Message()
	}
	return err.Error()
}
