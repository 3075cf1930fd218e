package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/api"
)

// losing is a leader that loses leadership to another member so many times, and has it back
// when it is asked again.
type losing struct {
	pb.UnimplementedMaintenanceServer
	times, asked int
}

func (l *losing) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Header: &pb.ResponseHeader{MemberId: 1}, Leader: 1}, nil
}

func (l *losing) MoveLeader(context.Context, *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	if l.asked++; l.asked <= l.times {
		return nil, api.ErrTimeoutLeaderTransfer
	}
	return &pb.MoveLeaderResponse{}, nil
}

// TestMoveLeaderAgain: who leads now is asked when another member was elected than the one
// that should be, but not for ever.
func TestMoveLeaderAgain(t *testing.T) {
	for times, want := range map[int]int{0: exitOK, moveLeaderTries - 1: exitOK, moveLeaderTries: exitTimeout} {
		t.Run(fmt.Sprint(times), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			leader, g := &losing{times: times}, grpc.NewServer()
			pb.RegisterMaintenanceServer(g, leader)
			go g.Serve(l)
			defer g.Stop()
			var said strings.Builder
			got := run([]string{"--endpoints", l.Addr().String(), "move-leader", "7"}, world{in: strings.NewReader(""), out: io.Discard, errs: &said})
			if got != want || leader.asked != min(times+1, moveLeaderTries) {
				t.Errorf("exit code %d, want %d; asked %d times: %s", got, want, leader.asked, said.String())
			}
		})
	}
}

// TestWithoutQuorum: while most members are away, each that is there shows what it
// knows, and changes are refused with its words, not with those of a dead endpoint.
func TestWithoutQuorum(t *testing.T) {
	members, all := endpoints(t, plan(t, 3, t.TempDir()))
	members[0].stop(t)
	members[1].stop(t)
	left := members[2].endpoint()
	var o outcome
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if o = kvctl(t, "", "--endpoints", all, "endpoint", "status", "--cluster"); strings.Contains(o.out, "etcdserver: no leader") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the last member never says that it has no leader: exit %d\n%s%s", o.code, o.out, o.errs)
		}
	}
	if o.code != exitCheck || !strings.Contains(o.out, left) || !strings.Contains(o.errs, "members that one of them knows of") || !strings.Contains(o.errs, "1 of 3 endpoints answer") {
		t.Errorf("exit %d\n%s%s", o.code, o.out, o.errs)
	}
	o = kvctl(t, "", "--endpoints", all, "put", "a", "1")
	if o.code != exitUnreachable || !strings.Contains(o.errs, left+": etcdserver: no leader") {
		t.Errorf("a put: exit %d\n%s", o.code, o.errs)
	}
}
