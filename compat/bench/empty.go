package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/server/porttest"
)

// emptyServer answers every put with an empty reply: the ceiling of any gRPC
// server on this machine.
type emptyServer struct{ pb.UnimplementedKVServer }

func (emptyServer) Put(context.Context, *pb.PutRequest) (*pb.PutResponse, error) {
	return &pb.PutResponse{Header: &pb.ResponseHeader{}}, nil
}

// ServeEmpty serves until the process is killed.
func ServeEmpty(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	pb.RegisterKVServer(s, emptyServer{})
	return s.Serve(l)
}

// Ceiling measures the empty server with so many clients, in a process of its own: this program, called
// with the given arguments and the address.
func Ceiling(ctx context.Context, d time.Duration, clients int, args ...string) (map[string]float64, error) {
	port, err := porttest.Claim()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	cmd := exec.Command(self, append(args, addr)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	t := &target{}
	defer t.close()
	for range connections {
		conn, err := cluster.Dial(addr, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
		if err != nil {
			return nil, err
		}
		t.conns = append(t.conns, conn)
	}
	cpu := func() time.Duration {
		u, _ := cluster.ProcessUsage(cmd.Process.Pid)
		return u.CPU
	}
	return latencies(drive(ctx, clients, d, cpu, t.put("empty")))
}
