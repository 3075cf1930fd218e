package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/client"
	"github.com/keelson-io/keelson/server"
)

// TestConn: etcd's generated clients work over the client's connections, log in,
// fail over, and get its errors.
func TestConn(t *testing.T) {
	m := startMember(t, func(c *server.Config) { c.BcryptCost = 4 })
	ctx := testContext(t)
	if err := secure(ctx, open(t, client.Config{Endpoints: []string{m.addr}}).Auth()); err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, m.addr)
	c := open(t, client.Config{Endpoints: []string{p.addr(), freeAddr(), freeAddr()}, Username: "root", Password: "secret"})
	kv := pb.NewKVClient(c.Namespace("ignored").Conn())
	value := bytes.Repeat([]byte{'v'}, 1000)
	for range 5 {
		p.cut()
		put, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: value})
		if err != nil && !errors.Is(err, client.ErrUnknownOutcome) {
			t.Fatal(put, err)
		}
	}
	stream, err := kv.RangeStream(ctx, &pb.RangeRequest{Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	got := &pb.RangeStreamResponse{}
	for err == nil {
		var piece *pb.RangeStreamResponse
		if piece, err = stream.Recv(); err == nil && len(piece.RangeResponse.GetKvs()) > 0 {
			got = piece
		}
	}
	if err != io.EOF || !bytes.Equal(got.RangeResponse.Kvs[0].Value, value) {
		t.Fatal(got, err)
	}
	var e *client.Error
	if _, err := kv.Put(ctx, &pb.PutRequest{}); !errors.As(err, &e) || !errors.Is(err, api.ErrEmptyKey) || e.Unknown {
		t.Error(err)
	}
	if err := c.Conn().Invoke(ctx, pb.KV_Put_FullMethodName, "no message", nil); err == nil {
		t.Error("sent a string")
	}
}

// TestRounds: a client that may ask each endpoint so often gives up long before
// its deadline, and says what the last one said.
func TestRounds(t *testing.T) {
	c := open(t, client.Config{Endpoints: []string{freeAddr(), freeAddr()}, Rounds: 2, Timeout: time.Hour})
	seen := &recorder{}
	single := open(t, client.Config{Endpoints: []string{freeAddr()}, Rounds: 3, Timeout: time.Hour, Observer: seen})
	for _, do := range []func() error{
		func() error { _, err := c.Put(context.Background(), "k", nil); return err },
		func() error { _, err := single.Get(context.Background(), "k"); return err },
		func() error { _, err := c.Maintenance().Status(context.Background(), c.Endpoints()[0]); return err },
	} {
		err := do()
		if status.Code(errors.Unwrap(err)) != codes.Unavailable || errors.Is(err, client.ErrUnknownOutcome) {
			t.Error(err)
		}
	}
	if n := seen.attempts(); n != 3 {
		t.Errorf("%d attempts in three rounds", n)
	}
}

// leaderless is a member that refuses all puts for want of a leader.
type leaderless struct{ pb.UnimplementedKVServer }

func (leaderless) Put(context.Context, *pb.PutRequest) (*pb.PutResponse, error) {
	return nil, status.Error(api.ErrNoLeader.Code, api.ErrNoLeader.Error())
}

// TestRefusalIsTold: what a member says tells more than that the others cannot be reached,
// whichever was asked last.
func TestRefusalIsTold(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterKVServer(s, leaderless{})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	addr := l.Addr().String()
	for _, list := range [][]string{{addr, freeAddr(), freeAddr()}, {freeAddr(), addr, freeAddr()}, {freeAddr(), freeAddr(), addr}} {
		c := open(t, client.Config{Endpoints: list, Rounds: 2, Timeout: time.Hour})
		for range 5 {
			_, err := c.Put(context.Background(), "k", nil)
			var e *client.Error
			if !errors.Is(err, api.ErrNoLeader) || !errors.As(err, &e) || e.Endpoint != addr {
				t.Errorf("%v of %v: %v", addr, list, err)
			}
		}
	}
}
