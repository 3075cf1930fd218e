package transport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	"github.com/keelson-io/keelson/clock"
)

const (
	// dialTimeout bounds a connection attempt including its handshake.
	dialTimeout = 2 * time.Second
	// keepaliveIdle is the least that gRPC allows.
	keepaliveIdle = 10 * time.Second
	// keepaliveTimeout is also the socket's TCP_USER_TIMEOUT: a connection with
	// unacknowledged bytes, so any between a leader and its followers, is given
	// up after that long.
	keepaliveTimeout = 5 * time.Second
	// Windows are fixed, which also spares gRPC's bandwidth probes. They bound
	// what a peer that stopped reading holds in memory.
	windowBytes = 8 << 20
	// bufferBytes is the size of one read or write on a socket.
	bufferBytes = 64 << 10
	// headerBytes bounds the metadata of an RPC.
	headerBytes = 16 << 10
)

// DialURL opens a connection to an http, https or unix URL.
func DialURL(ctx context.Context, rawURL string) (net.Conn, error) {
	network, address, err := dialAddress(rawURL)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{KeepAlive: -1} // gRPC has its own
	return d.DialContext(ctx, network, address)
}

func dialAddress(rawURL string) (network, address string, err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", "", err
	}
	switch u.Scheme {
	case "http", "https":
		return "tcp", u.Host, nil
	case "unix", "unixs":
		// As with etcd, unix://name:port has the socket name:port in the
		// working directory, and unix:///path an absolute one.
		return "unix", u.Host + u.Path, nil
	}
	return "", "", fmt.Errorf("transport: a peer URL of scheme %q", u.Scheme)
}

// isRefused reports that nobody listens at an address of a machine that lives.
func isRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) // the latter: a unix socket
}

// withTimeout is context.WithTimeout on a clock.
func withTimeout(ctx context.Context, clk clock.Clock, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := clk.AfterFunc(d, func() { cancel(context.DeadlineExceeded) })
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}

// connect dials the peer's URLs in turn and makes a client of the first
// connection. refused is true when all of them were refused.
func (l *link) connect(ctx context.Context) (cc *grpc.ClientConn, refused bool, err error) {
	refused = len(l.urls) > 0
	var failed []error
	first := int(l.attempts.Add(1) - 1)
	for i := range l.urls {
		u := l.urls[(first+i)%len(l.urls)]
		conn, err := l.t.cfg.Dial(ctx, u)
		if err != nil {
			refused = refused && isRefused(err)
			failed = append(failed, err)
			continue
		}
		cc, err := l.t.newClient(conn, u)
		if err != nil {
			conn.Close()
			return nil, false, err
		}
		return cc, false, nil
	}
	if len(failed) == 0 {
		failed = []error{errors.New("the peer has no URL")}
	}
	return nil, refused, errors.Join(failed...)
}

// newClient wraps one connection. The client never dials by itself: when the
// connection ends, so does the client's use.
func (t *GRPC) newClient(conn net.Conn, rawURL string) (*grpc.ClientConn, error) {
	creds, err := t.clientCredentials(rawURL)
	if err != nil {
		return nil, err
	}
	once := make(chan net.Conn, 1)
	once <- conn
	dial := func(context.Context, string) (net.Conn, error) {
		select {
		case conn := <-once:
			return conn, nil
		default:
			return nil, ErrUnreachable
		}
	}
	return grpc.NewClient("passthrough:///keelson-peer",
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(rawCodec{}),
			grpc.MaxCallRecvMsgSize(t.maxMessage()),
			grpc.MaxCallSendMsgSize(t.maxMessage()),
		),
		grpc.WithInitialWindowSize(windowBytes),
		grpc.WithInitialConnWindowSize(2*windowBytes),
		grpc.WithReadBufferSize(bufferBytes),
		grpc.WithWriteBufferSize(bufferBytes),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveIdle, Timeout: keepaliveTimeout}),
		grpc.WithMaxHeaderListSize(headerBytes),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
	)
}

func (t *GRPC) clientCredentials(rawURL string) (credentials.TransportCredentials, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" && u.Scheme != "unixs" {
		return insecure.NewCredentials(), nil
	}
	if t.cfg.TLS == nil {
		return nil, fmt.Errorf("transport: %s needs TLS, which is not configured", rawURL)
	}
	cfg := t.cfg.TLS.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = u.Hostname()
	}
	return credentials.NewTLS(cfg), nil
}

func (t *GRPC) serverCredentials() credentials.TransportCredentials {
	if t.cfg.TLS == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(t.cfg.TLS)
}

// maxMessage is the largest gRPC message: a frame, a part of a snapshot, or a
// call with its small head.
func (t *GRPC) maxMessage() int {
	return max(t.cfg.MaxFrame, maxPart) + 1024
}

// Ask asks the member behind conn what it announces. It closes conn.
func Ask(ctx context.Context, conn net.Conn) ([]byte, error) {
	once := make(chan net.Conn, 1)
	once <- conn
	cc, err := grpc.NewClient("passthrough:///keelson-peer",
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case conn := <-once:
				return conn, nil
			default:
				return nil, ErrUnreachable
			}
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // conn brings its own
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(announceBytes)),
		grpc.WithMaxHeaderListSize(headerBytes),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
	)
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer func() {
		cc.Close()
		conn.Close()
	}()
	ctx = metadata.AppendToOutgoingContext(ctx, keyProtocol, protocolVersion)
	request := mem.BufferSlice{mem.SliceBuffer(nil)}
	var answer mem.BufferSlice
	if err := cc.Invoke(ctx, announceMethod, &request, &answer); err != nil {
		return nil, err
	}
	defer answer.Free()
	return answer.Materialize(), nil
}
