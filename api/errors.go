package api

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Error is a request's refusal: the gRPC code and the text that etcd's clients
// compare by. Values are package variables and compared by identity, so
// errors.Is works through any wrapping; the RPC edge turns them into statuses.
type Error struct {
	Code codes.Code
	Text string

	status *status.Status
}

// Error returns the text alone.
func (e *Error) Error() string { return e.Text }

// GRPCStatus makes grpc answer with the error's own code and text.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// table holds every refusal by its text.
var table = map[string]*Error{}

func refusal(code codes.Code, text string) *Error {
	e := &Error{Code: code, Text: text, status: status.New(code, text)}
	table[text] = e
	return e
}

// FindError returns the refusal with this text, or nil: the way back from the
// wire, where texts are all that arrives.
func FindError(text string) *Error { return table[text] }

// The one table of errors that leave a member. Texts are etcd's to the letter:
// clients recognise errors by them.
var (
	// Fields of KV requests.
	ErrEmptyKey          = refusal(codes.InvalidArgument, "etcdserver: key is not provided")
	ErrKeyNotFound       = refusal(codes.InvalidArgument, "etcdserver: key not found")
	ErrValueProvided     = refusal(codes.InvalidArgument, "etcdserver: value is provided")
	ErrLeaseProvided     = refusal(codes.InvalidArgument, "etcdserver: lease is provided")
	ErrTooManyOps        = refusal(codes.InvalidArgument, "etcdserver: too many operations in txn request")
	ErrDuplicateKey      = refusal(codes.InvalidArgument, "etcdserver: duplicate key given in txn request")
	ErrInvalidSortOption = refusal(codes.InvalidArgument, "etcdserver: invalid sort option")
	ErrRequestTooLarge   = refusal(codes.InvalidArgument, "etcdserver: request is too large")

	// Revisions and space.
	ErrCompacted      = refusal(codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
	ErrFutureRevision = refusal(codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision")
	ErrNoSpace        = refusal(codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded")
	ErrCorrupt        = refusal(codes.DataLoss, "etcdserver: corrupt cluster")

	// Leases.
	ErrLeaseNotFound    = refusal(codes.NotFound, "etcdserver: requested lease not found")
	ErrLeaseExists      = refusal(codes.FailedPrecondition, "etcdserver: lease already exists")
	ErrLeaseTTLTooLarge = refusal(codes.OutOfRange, "etcdserver: too large lease TTL")

	// Watches.
	ErrWatchCanceled = refusal(codes.Canceled, "etcdserver: watch canceled")

	// Members.
	ErrMemberExists  = refusal(codes.FailedPrecondition, "etcdserver: member ID already exist")
	ErrPeerURLExists = refusal(codes.FailedPrecondition, "etcdserver: Peer URLs already exists")
	// The code is a slip of etcd's, which its clients see.
	ErrMemberNotEnoughStarted = refusal(codes.Unknown, "etcdserver: re-configuration failed due to not enough started members")
	ErrMemberBadURLs          = refusal(codes.InvalidArgument, "etcdserver: given member URLs are invalid")
	ErrMemberNotFound         = refusal(codes.NotFound, "etcdserver: member not found")
	ErrMemberNotLearner       = refusal(codes.FailedPrecondition, "etcdserver: can only promote a learner member")
	ErrLearnerNotReady        = refusal(codes.FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader")
	ErrTooManyLearners        = refusal(codes.FailedPrecondition, "etcdserver: too many learner members in cluster")
	ErrNotSupportedForLearner = refusal(codes.FailedPrecondition, "etcdserver: rpc not supported for learner")
	ErrClusterIDMismatch      = refusal(codes.FailedPrecondition, "etcdserver: cluster ID mismatch")

	// Downgrades.
	ErrWrongDowngradeVersionFormat = refusal(codes.InvalidArgument, "etcdserver: wrong downgrade target version format")
	ErrInvalidDowngradeTarget      = refusal(codes.InvalidArgument, "etcdserver: invalid downgrade target version")
	ErrDowngradeInProcess          = refusal(codes.FailedPrecondition, "etcdserver: cluster has a downgrade job in progress")
	ErrNoInflightDowngrade         = refusal(codes.FailedPrecondition, "etcdserver: no inflight downgrade job")

	// Users, roles and permissions.
	ErrRootUserNotExist     = refusal(codes.FailedPrecondition, "etcdserver: root user does not exist")
	ErrRootRoleNotExist     = refusal(codes.FailedPrecondition, "etcdserver: root user does not have root role")
	ErrUserExists           = refusal(codes.FailedPrecondition, "etcdserver: user name already exists")
	ErrUserEmpty            = refusal(codes.InvalidArgument, "etcdserver: user name is empty")
	ErrUserNotFound         = refusal(codes.FailedPrecondition, "etcdserver: user name not found")
	ErrRoleExists           = refusal(codes.FailedPrecondition, "etcdserver: role name already exists")
	ErrRoleNotFound         = refusal(codes.FailedPrecondition, "etcdserver: role name not found")
	ErrRoleEmpty            = refusal(codes.InvalidArgument, "etcdserver: role name is empty")
	ErrRoleNotGranted       = refusal(codes.FailedPrecondition, "etcdserver: role is not granted to the user")
	ErrPermissionNotGiven   = refusal(codes.InvalidArgument, "etcdserver: permission not given")
	ErrPermissionNotGranted = refusal(codes.FailedPrecondition, "etcdserver: permission is not granted to the role")
	ErrPermissionDenied     = refusal(codes.PermissionDenied, "etcdserver: permission denied")
	ErrAuthFailed           = refusal(codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password")
	ErrAuthNotEnabled       = refusal(codes.FailedPrecondition, "etcdserver: authentication is not enabled")
	ErrAuthOldRevision      = refusal(codes.InvalidArgument, "etcdserver: revision of auth store is old")
	ErrInvalidAuthToken     = refusal(codes.Unauthenticated, "etcdserver: invalid auth token")
	ErrInvalidAuthMgmt      = refusal(codes.InvalidArgument, "etcdserver: invalid auth management")
	// etcd has no code for these; its clients see its inner text.
	ErrNoPasswordUser = refusal(codes.Unknown, "auth: authentication failed, password was given for no password user")
	ErrVerifyOnly     = refusal(codes.Unknown, "auth: token signing attempted with verify-only key")
	// ErrPasswordTooShort is ours: etcd has no policy.
	ErrPasswordTooShort = refusal(codes.InvalidArgument, "keelson: the password is shorter than this cluster's policy allows")

	// Availability.
	ErrTooManyRequests         = refusal(codes.ResourceExhausted, "etcdserver: too many requests")
	ErrNoLeader                = refusal(codes.Unavailable, "etcdserver: no leader")
	ErrNotLeader               = refusal(codes.FailedPrecondition, "etcdserver: not leader")
	ErrLeaderChanged           = refusal(codes.Unavailable, "etcdserver: leader changed")
	ErrBadTransferee           = refusal(codes.FailedPrecondition, "etcdserver: bad leader transferee")
	ErrUnknownMethod           = refusal(codes.Unknown, "etcdserver: unknown method")
	ErrInvalidClientAPIVersion = refusal(codes.InvalidArgument, "etcdserver: invalid client api version")
	ErrNotCapable              = refusal(codes.FailedPrecondition, "etcdserver: not capable")
	ErrStopped                 = refusal(codes.Unavailable, "etcdserver: server stopped")
	ErrTimeout                 = refusal(codes.Unavailable, "etcdserver: request timed out")
	ErrTimeoutLeaderFail       = refusal(codes.Unavailable, "etcdserver: request timed out, possibly due to previous leader failure")
	ErrTimeoutConnLost         = refusal(codes.Unavailable, "etcdserver: request timed out, possibly due to connection lost")
	// etcd has no code of its own for it.
	ErrTimeoutLeaderTransfer = refusal(codes.Unknown, "etcdserver: request timed out, leader transfer took too long")
	ErrTimeoutWaitApplied    = refusal(codes.Unavailable, "etcdserver: request timed out, waiting for the applied index took too long")
	ErrUnhealthy             = refusal(codes.Unavailable, "etcdserver: unhealthy cluster")
	ErrCanceled              = refusal(codes.Canceled, "etcdserver: request canceled")
	ErrDeadlineExceeded      = refusal(codes.DeadlineExceeded, "etcdserver: context deadline exceeded")
)
