package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
)

// endpoint is one address, with a connection of its own: the client, not gRPC,
// decides where a request goes, because only the client knows which requests
// may be sent twice and which member leads.
type endpoint struct {
	name    string // as it was configured
	conn    *grpc.ClientConn
	member  atomic.Uint64 // who answered here last; 0: nobody yet
	suspect atomic.Int64  // until this time (ns) others are asked first
	piping  piping
}

// How fast a lost connection is tried again. gRPC's own bounds are made for the
// internet; a member that restarts is back within a second.
var reconnect = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

// suspicion is how long others are asked before an endpoint that let a request
// wait until its deadline.
const suspicion = 5 * time.Second

// dial makes an endpoint. No connection is made before the first request.
func dial(name string, cfg Config) (*endpoint, error) {
	target, secure, err := parseEndpoint(name, cfg.TLS)
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if secure != nil {
		creds = credentials.NewTLS(secure)
	}
	opts := append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: cfg.DialTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: cfg.KeepAlive, Timeout: cfg.KeepAliveTimeout}),
		// Requests and answers are as large as the server allows.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)),
		grpc.WithStatsHandler(passages{}),
		grpc.WithDisableServiceConfig(),
	}, cfg.DialOptions...)
	if cfg.Dial != nil {
		opts = append(opts, grpc.WithContextDialer(cfg.Dial))
	}
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", name, err)
	}
	return &endpoint{name: name, conn: conn}, nil
}

// parseEndpoint returns gRPC's name of an endpoint, and the TLS to use with it.
func parseEndpoint(name string, secure *tls.Config) (target string, _ *tls.Config, err error) {
	scheme, _, found := strings.Cut(name, ":/")
	if !found {
		if !strings.Contains(name, ":") {
			return "", nil, fmt.Errorf(`endpoint %q has no port: give "host:port" or a URL`, name)
		}
		return "passthrough:///" + name, secure, nil
	}
	u, err := url.Parse(name)
	if err != nil {
		return "", nil, fmt.Errorf("endpoint %q: %w", name, err)
	}
	if secure == nil {
		secure = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	switch scheme {
	case "http":
		return "passthrough:///" + u.Host, nil, nil
	case "https":
		return "passthrough:///" + u.Host, secure, nil
	case "unix":
		return "unix:" + u.Host + u.Path, nil, nil
	case "unixs":
		if secure.ServerName == "" {
			secure = secure.Clone()
			secure.ServerName = "localhost" // a path is no name that a certificate could have
		}
		return "unix:" + u.Host + u.Path, secure, nil
	}
	return "", nil, fmt.Errorf("endpoint %q: the scheme must be http, https, unix or unixs", name)
}

// up reports whether a request sent now has a chance.
func (e *endpoint) up(now time.Time) bool {
	switch e.conn.GetState() {
	case connectivity.TransientFailure, connectivity.Shutdown:
		return false
	}
	return e.suspect.Load() <= now.UnixNano()
}

// doubt makes others be asked first for a while; trust ends that.
func (e *endpoint) doubt() { e.suspect.Store(time.Now().Add(suspicion).UnixNano()) }
func (e *endpoint) trust() {
	if e.suspect.Load() != 0 {
		e.suspect.Store(0)
	}
}

// passage is what gRPC reports of one attempt.
type passage struct {
	// departed: the request can have left this process. Without it, it is certain
	// that it has not: gRPC reports a request's header after queueing it for the
	// connection, in the goroutine of the call, before it waits for an answer.
	departed atomic.Bool
	pushback atomic.Int64 // how many ms an overloaded member wants to be left alone
}

// pushbackHeader is gRPC's own name for it, a trailer of refused requests.
const pushbackHeader = "grpc-retry-pushback-ms"

// maxPushback bounds what a member may ask for.
const maxPushback = 10_000

type passageKey struct{}

// passages fills in the passage that an attempt's context has.
type passages struct{}

func (passages) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (passages) HandleRPC(ctx context.Context, s stats.RPCStats) {
	p, ok := ctx.Value(passageKey{}).(*passage)
	if !ok {
		return
	}
	switch s := s.(type) {
	case *stats.OutHeader:
		p.departed.Store(true)
	case *stats.InTrailer:
		if v := s.Trailer.Get(pushbackHeader); len(v) > 0 {
			if ms, err := strconv.ParseInt(v[0], 10, 64); err == nil {
				p.pushback.Store(min(max(ms, 0), maxPushback))
			}
		}
	}
}

func (passages) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (passages) HandleConn(context.Context, stats.ConnStats)                       {}
