package maintenance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/compat/cluster"
)

// side is one store under test, with a connection to its first member.
type side struct {
	*cluster.Cluster
	conn  *grpc.ClientConn
	kv    pb.KVClient
	admin pb.MaintenanceClient
}

func start(ctx context.Context, t *testing.T, name string, opt cluster.Options) *side {
	t.Helper()
	if v := os.Getenv("STORE"); name == "kvd" && v != "" {
		name = v
	}
	sys, err := cluster.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	opt.Dir = t.TempDir()
	c, err := cluster.Start(ctx, sys, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return dial(t, c)
}

func dial(t *testing.T, c *cluster.Cluster) *side {
	t.Helper()
	conn, err := c.Members[0].Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &side{c, conn, pb.NewKVClient(conn), pb.NewMaintenanceClient(conn)}
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// verdict is an error as clients compare it.
func verdict(err error) string {
	if err == nil {
		return "ok"
	}
	s := status.Convert(err)
	return fmt.Sprintf("%v: %s", s.Code(), s.Message())
}

func put(ctx context.Context, t *testing.T, s *side, key, value string) int64 {
	t.Helper()
	resp, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		t.Fatalf("%s: %v", s.System.Name, err)
	}
	return resp.Header.Revision
}

// tool runs one of etcd's programs and returns what it printed.
func tool(ctx context.Context, t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := cluster.BinaryPath(name)
	if err != nil {
		t.Fatal(err)
	}
	var out, complaint strings.Builder
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, complaint.String())
		}
		t.Fatal(err)
	}
	return out.String()
}

// eventually waits until cond holds.
func eventually(ctx context.Context, t *testing.T, what string, cond func() bool) {
	t.Helper()
	for !cond() {
		select {
		case <-ctx.Done():
			t.Fatalf("gave up waiting for %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
