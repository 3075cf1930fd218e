package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"path/filepath"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Member is one process of a cluster; its directory holds data/ and log.
type Member struct {
	Process
	Endpoint string // host:port of the client listener
	PeerURL  string
	TLS      *tls.Config // of a client that the member accepts; nil: no TLS
	scheme   string
}

// ClientURL is the member's endpoint as a URL.
func (m *Member) ClientURL() string { return m.scheme + "://" + m.Endpoint }

// DataDir is the member's data directory.
func (m *Member) DataDir() string { return filepath.Join(m.Dir, "data") }

// Dial connects to the member, without waiting for the connection.
func (m *Member) Dial(opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	if m.TLS != nil {
		opts = append([]grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(m.TLS))}, opts...)
	}
	return Dial(m.Endpoint, opts...)
}

// useCerts makes Dial show a certificate of a client whose name is no user's.
func (m *Member) useCerts(c *Certs) (err error) {
	if c != nil {
		_, _, m.TLS, err = c.Client("compat-client")
	}
	return err
}

// Dial connects to an endpoint with the limits every suite uses.
func Dial(endpoint string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	all := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)),
	}, opts...)
	return grpc.NewClient("passthrough:///"+endpoint, all...)
}

// impatient has gRPC look for a member again and again: by its own rules it would wait
// for a second after the first refusal, for 1.6 after the next, and so on, which is
// longer than some members take to start.
var impatient = grpc.WithConnectParams(grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond},
	MinConnectTimeout: 20 * time.Second,
})

// Ready waits until the member answers a linearizable read.
func (m *Member) Ready(ctx context.Context) error {
	conn, err := m.Dial(impatient)
	if err != nil {
		return err
	}
	defer conn.Close()
	kv := pb.NewKVClient(conn)
	for {
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := kv.Range(call, &pb.RangeRequest{Key: []byte("ready")}, grpc.WaitForReady(true))
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-m.Exited():
			return fmt.Errorf("%s ended before it was ready, see %s", m.Name, m.LogPath())
		case <-ctx.Done():
			return fmt.Errorf("%s not ready: %w, see %s", m.Name, err, m.LogPath())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Status asks the member for its status.
func (m *Member) Status(ctx context.Context) (*pb.StatusResponse, error) {
	conn, err := m.Dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
}
