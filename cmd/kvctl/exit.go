package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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

// text is an error without gRPC's own frame.
func text(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

func usage(format string, args ...any) error {
	return &failure{code: exitUsage, err: fmt.Errorf(format, args...), next: "see --help of the command"}
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

// didConnect is what was tried until classify knows better.
const didConnect = "connect"

// classify makes a failure of what an RPC returned.
func classify(did, endpoint string, err error) error {
	var f *failure
	if err == nil {
		return nil
	}
	if errors.As(err, &f) {
		if f.did == "" || f.did == didConnect {
			f.did = did
		}
		return f
	}
	f = &failure{code: exitRefused, did: did, endpoint: endpoint, err: err}
	var path *fs.PathError
	switch code := status.Code(err); {
	case errors.As(err, &path):
		return fileFailed(did, err)
	case code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded):
		f.code, f.next = exitTimeout, "a change may have been made all the same: look before you repeat it; "+
			"`kvctl endpoint health --cluster` shows who answers; --command-timeout gives more time"
	case code == codes.Unavailable:
		f.code, f.next = exitUnreachable, "`kvctl endpoint status --cluster` shows who leads; try again when there is a leader"
	case code == codes.Unauthenticated || code == codes.PermissionDenied:
		f.code, f.next = exitDenied, "log in with --user NAME[:PASSWORD]; `kvctl user get NAME` and `kvctl role get ROLE` show what a user may do"
	default:
		f.next = advice(text(err))
	}
	return f
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
