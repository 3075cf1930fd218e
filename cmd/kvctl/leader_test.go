package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

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
