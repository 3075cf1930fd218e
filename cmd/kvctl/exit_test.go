package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/client"
)

// TestEveryErrorSaysWhatToDo: whatever a call returns becomes what was tried,
// where, what came of it, what to do next, and the exit code that doc.go has.
func TestEveryErrorSaysWhatToDo(t *testing.T) {
	refused := status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:9: connect: connection refused"`)
	for _, tc := range []struct {
		err  error
		code int
		want string
	}{
		{api.ErrFutureRevision, exitRefused, "required revision is a future revision"},
		{api.ErrPermissionDenied, exitDenied, "permission denied"},
		{api.ErrNoLeader, exitUnreachable, "no leader"},
		{api.ErrUnhealthy, exitRefused, "unhealthy cluster"},
		{api.ErrNoSpace, exitRefused, "space exceeded"},
		{refused, exitUnreachable, ": dial tcp 127.0.0.1:9: connect: connection refused"},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: tls: bad"`), exitDenied, ": authentication handshake failed: tls: bad"},
		{fmt.Errorf("%w; the last attempts failed with: no", context.DeadlineExceeded), exitTimeout, "deadline exceeded"},
		{status.Error(codes.Internal, "odd"), exitRefused, "odd"},
	} {
		err := classify("try", &client.Error{Op: pb.KV_Put_FullMethodName, Endpoint: "10.0.0.1:2379", Err: tc.err}, "10.0.0.1:2379")
		var f *failure
		if !errors.As(err, &f) || f.code != tc.code || f.next == "" || !strings.HasPrefix(err.Error(), "try: 10.0.0.1:2379: ") || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v becomes %+v", tc.err, err)
		}
	}
	login := fmt.Errorf("cannot log in: %w", &client.Error{Op: pb.Auth_Authenticate_FullMethodName, Endpoint: "b", Err: api.ErrAuthFailed})
	var f *failure
	if err := classify("try", &client.Error{Op: pb.KV_Put_FullMethodName, Endpoint: "a", Err: login}); !errors.As(err, &f) || f.code != exitDenied || !strings.HasPrefix(err.Error(), "try: log in: b: etcdserver: authentication failed") {
		t.Errorf("a failed login becomes %v", err)
	}
	if err := classify("try", &client.Error{Op: pb.KV_Put_FullMethodName, Err: refused}, "a", "b"); !errors.As(err, &f) || f.code != exitUnreachable || !strings.Contains(err.Error(), "none of 2 endpoints answers; the last said: dial tcp") {
		t.Errorf("nobody there becomes %v", err)
	}
	if err := classify("try", &client.Error{Op: pb.KV_Put_FullMethodName, Err: refused, Unknown: true}, "a"); !errors.As(err, &f) || f.code != exitTimeout || !strings.Contains(f.next, "may have been made") {
		t.Errorf("an unknown outcome becomes %v", err)
	}
}

// TestVerdict: what a check measured passes by etcdctl's measure, and no other.
func TestVerdict(t *testing.T) {
	even := make([]time.Duration, 150)
	for i := range even {
		even[i] = time.Millisecond
	}
	one := append([]time.Duration{600 * time.Millisecond}, even[1:]...)
	two := append([]time.Duration{200 * time.Millisecond, 200 * time.Millisecond}, even[2:]...)
	for name, tc := range map[string]struct {
		took []time.Duration
		pass bool
	}{"as wanted": {even, true}, "too few": {even[:130], false}, "one that hangs": {one, false}, "uneven": {two, false}, "none": {nil, false}} {
		var out strings.Builder
		k := &checking{a: newApp(world{out: &out, in: strings.NewReader("")}), load: loads["s"], time: time.Second}
		k.mu.took = tc.took
		err := k.verdict()
		var f *failure
		if tc.pass != (err == nil) || err != nil && (!errors.As(err, &f) || f.code != exitCheck || f.next == "") {
			t.Errorf("%s: %v\n%s", name, err, &out)
		}
	}
}
