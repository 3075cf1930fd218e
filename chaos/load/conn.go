package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/workload"
	"github.com/keelson-io/keelson/client"
)

// Conn is how a client talks to the cluster.
type Conn struct {
	grpc.ClientConnInterface
	Name    string                      // of what is behind it: a member, or a library
	Member  uint64                      // 0: it chooses
	Outcome func(error) history.Outcome // what an error says of the effect
	Close   func() error
}

// redial bounds the pause before a member that was down is tried again.
const redial = 500 * time.Millisecond

// maxAnswer is the largest answer that a client takes.
const maxAnswer = 1 << 30

// Direct talks to one member, without retries.
func Direct(m history.Member, opts ...grpc.DialOption) (Conn, error) {
	all := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: redial / 10, Multiplier: 1.6, MaxDelay: redial}, MinConnectTimeout: 2 * time.Second}),
	}, opts...)
	cc, err := grpc.NewClient("passthrough:///"+m.Endpoint, all...)
	if err != nil {
		return Conn{}, err
	}
	return Conn{cc, m.Name, m.ID, history.OutcomeOf, cc.Close}, nil
}

// Client talks through our client library.
func Client(cfg client.Config) (Conn, error) {
	c, err := client.New(cfg)
	if err != nil {
		return Conn{}, err
	}
	return Conn{c.Conn(), "client", 0, OutcomeOfClient, c.Close}, nil
}

// OutcomeOfClient takes our client library at its word: an error that is not
// client.ErrUnknownOutcome promises that nothing happened.
func OutcomeOfClient(err error) history.Outcome {
	switch {
	case err == nil:
		return history.OK
	case errors.Is(err, client.ErrUnknownOutcome):
		return history.Unknown
	}
	return history.Refused
}

// Do asks and waits for the answer.
func (c Conn) Do(ctx context.Context, method string, req proto.Message) (proto.Message, error) {
	if k, ok := req.(*pb.LeaseKeepAliveRequest); ok {
		return c.keepAlive(ctx, k)
	}
	resp := workload.Answer(req)
	return resp, c.Invoke(ctx, "/"+method, req, resp)
}

// keepAlive is one renewal on a stream of its own.
func (c Conn) keepAlive(ctx context.Context, req *pb.LeaseKeepAliveRequest) (*pb.LeaseKeepAliveResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := pb.NewLeaseClient(c).LeaseKeepAlive(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Send(req); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	resp, err := s.Recv()
	if err == nil && resp.ID != req.ID {
		err = fmt.Errorf("a renewal of lease %d was answered for %d", req.ID, resp.ID)
	}
	return resp, err
}
