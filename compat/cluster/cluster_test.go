package cluster

import (
	"context"
	"os"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestThreeMembers proves the harness itself on etcd: start, write, kill the
// leader, write again, restart, all members agree.
func TestThreeMembers(t *testing.T) {
	name := "etcd"
	if v := os.Getenv("STORE"); v != "" {
		name = v
	}
	sys, err := Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	c, err := Start(ctx, sys, Options{Members: 3, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	leader, err := c.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	put(ctx, t, leader, "a")
	leader.Kill()
	if leader.PID() != 0 {
		t.Fatal("the leader survived SIGKILL")
	}
	second, err := c.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if second == leader {
		t.Fatal("a dead member leads")
	}
	put(ctx, t, second, "b")
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Members {
		conn, err := m.Dial()
		if err != nil {
			t.Fatal(err)
		}
		r, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte{0}})
		conn.Close()
		if err != nil || r.Count != 2 || r.Header.Revision < 3 {
			t.Fatalf("%s: %v, %v", m.Name, r, err)
		}
		if u, err := m.Usage(); err != nil || u.RSS == 0 || u.Anon == 0 {
			t.Fatalf("%s: usage %+v, %v", m.Name, u, err)
		}
	}
}

func put(ctx context.Context, t *testing.T, m *Member, key string) {
	t.Helper()
	conn, err := m.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for {
		call, cancel := context.WithTimeout(ctx, 3*time.Second)
		_, err = pb.NewKVClient(conn).Put(call, &pb.PutRequest{Key: []byte(key), Value: []byte(key)})
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
