package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/client"
)

// The exit codes; doc.go explains them. Scripts depend on them.
const (
	exitOK          = 0
	exitRefused     = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitTimeout     = 4
	exitDenied      = 5
	exitCheck       = 6
	exitFile        = 7
	exitInterrupted = 130
)

// failure is an error as the person at the terminal gets it.
type failure struct {
	code     int
	did      string // what was tried: "put key \"a\""
	endpoint string // where; empty if that does not matter
	err      error
	next     string // what to do about it
}

func (f *failure) Error() string {
	var parts []string
	if f.did != "" {
		parts = append(parts, f.did)
	}
	if f.endpoint != "" {
		parts = append(parts, f.endpoint)
	}
	if f.err != nil {
		parts = append(parts, text(f.err))
	}
	return strings.Join(parts, ": ")
}

func (f *failure) Unwrap() error { return f.err }

// text is an error without the frames that gRPC and the client put around it.
func text(err error) string {
	var e *client.Error
	for errors.As(err, &e) {
		err = e.Err
	}
	said := err.Error()
	if s, ok := status.FromError(err); ok {
		said = s.Message()
	}
	return connecting.ReplaceAllString(said, "$1")
}

// connecting is how gRPC says why a connection was not made.
var connecting = regexp.MustCompile(`connection error: desc = "(?:transport: )?(?:Error while dialing: )?(.*)"$`)

func usage(format string, args ...any) error {
	return &failure{code: exitUsage, err: fmt.Errorf(format, args...)} // app.report adds the command's --help
}

// checkFailed says that something was looked at and is not as it should be.
func checkFailed(did string, err error, next string) error {
	return &failure{code: exitCheck, did: did, err: err, next: next}
}

// fileFailed is a failure of the local file system.
func fileFailed(did string, err error) error {
	next := "check the path and its permissions"
	if errors.Is(err, fs.ErrExist) {
		next = "choose another name, or remove what is there"
	}
	return &failure{code: exitFile, did: did, err: err, next: next}
}

// classify makes a failure of what a call to endpoints returned.
func classify(did string, err error, endpoints ...string) error {
	if err == nil {
		return nil
	}
	var f *failure
	if errors.As(err, &f) {
		f.did = cmp.Or(f.did, did)
		return f
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return fileFailed(did, err)
	}
	f = &failure{code: exitRefused, did: did, endpoint: strings.Join(endpoints, ","), err: err}
	login := false
	var e *client.Error
	for cause := err; errors.As(cause, &e); cause = e.Err { // a login is a call within a call
		f.endpoint = cmp.Or(e.Endpoint, f.endpoint)
		login = e.Op == pb.Auth_Authenticate_FullMethodName
	}
	if login {
		f.did += ": log in"
	}
	f.outcome(login, len(endpoints))
	return f
}

// outcome finds the exit code and what to do next.
func (f *failure) outcome(login bool, endpoints int) {
	said := text(f.err)
	code := status.Code(f.err)
	const look = "`kvctl endpoint health --cluster` shows who answers; --command-timeout gives more time"
	switch {
	case errors.Is(f.err, client.ErrUnknownOutcome):
		f.code, f.next = exitTimeout, "the change may have been made all the same: look before you repeat it; "+look
	case code == codes.DeadlineExceeded || errors.Is(f.err, context.DeadlineExceeded):
		f.code, f.next = exitTimeout, "nothing was changed; "+look
	case code == codes.Unavailable && (strings.Contains(said, "tls:") || strings.Contains(said, "x509:")):
		f.code, f.next = exitDenied, "check --cacert, --cert and --key, and the name in the server's certificate (--tls-server-name)"
	case code == codes.Unavailable && api.FindError(said) == nil && endpoints > 1:
		f.err = fmt.Errorf("none of %d endpoints answers; the last said: %s", endpoints, said)
		f.code, f.next = exitUnreachable, "`kvctl endpoint health` says what is wrong with each"
	case code == codes.Unavailable && api.FindError(said) == nil:
		f.code, f.next = exitUnreachable, "is the member running, and is this its client address? For TLS give https:// or --cacert"
	case code == codes.Unavailable && advice(said) != "":
		f.next = advice(said)
	case code == codes.Unavailable:
		f.code, f.next = exitUnreachable, "`kvctl endpoint status --cluster` shows who leads; try again when there is a leader"
	case code == codes.Unimplemented:
		f.next = "the member does not have this: `kvctl endpoint status` shows its version; some of it only Keelson's members have"
	case code == codes.Unauthenticated || code == codes.PermissionDenied:
		f.code, f.next = exitDenied, "log in with --user NAME[:PASSWORD]; `kvctl user get NAME` and `kvctl role get ROLE` show what a user may do"
	default:
		if login {
			f.code = exitDenied
		}
		f.next = cmp.Or(advice(said), "the member's log says more; `kvctl endpoint status --cluster` shows the members")
	}
}

// advice is what to do about a refusal, by etcd's text.
func advice(text string) string {
	for part, next := range map[string]string{
		"user name is empty":              "authentication is on: log in with --user NAME[:PASSWORD]",
		"authentication failed":           "check --user and --password",
		"required revision has been comp": "read at a newer revision; `kvctl get KEY -o json` shows the present one",
		"required revision is a future":   "this revision does not exist yet",
		"database space exceeded":         "free space (kvctl compact, kvctl defrag --cluster), then `kvctl alarm disarm`; see docs/operators/maintenance.md",
		"requested lease not found":       "`kvctl lease list` shows the leases",
		"unhealthy cluster":               "all members must have been connected for some seconds: `kvctl endpoint status --cluster`",
		"not enough started members":      "start the members that were added before, or remove them",
		"can only promote a learner":      "`kvctl endpoint status --cluster` shows how far it is; try again when it has caught up",
		"member not found":                "`kvctl member list` shows the members",
		"not leader":                      "ask the leader: `kvctl endpoint status --cluster` shows which endpoint that is",
		"too many requests":               "the member is busy: try again later",
	} {
		if strings.Contains(text, part) {
			return next
		}
	}
	return ""
}
