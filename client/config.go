package client

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"google.golang.org/grpc"
)

// Config says how to reach a cluster. Only Endpoints is needed.
type Config struct {
	// Endpoints are the members' client addresses: "host:port", an http, https,
	// unix or unixs URL. Name all members: the client fails over between them.
	Endpoints []string

	// TLS secures the connections. It is used for https and unixs URLs and for
	// bare addresses; http and unix URLs stay plain. Nil means the system's roots
	// for the former and plain text for the latter.
	TLS *tls.Config

	// Username and Password log in where the cluster has authentication. The
	// token they yield is renewed when the cluster no longer accepts it.
	Username, Password string
	// Token is the other way to be known: it returns a token of the caller's own
	// making, and is asked again when the cluster refuses the last one.
	Token func(context.Context) (string, error)

	// Timeout ends a call, with all its attempts, whose context has no deadline.
	// 0 means 10 seconds; negative: it waits as long as the context lives. It
	// does not concern Watch, Scan, Snapshot, locks and elections.
	Timeout time.Duration
	// Rounds is how often a call asks all endpoints while none is available,
	// before it fails. 0: until its deadline. It does not concern what goes on by
	// itself: watches, sessions, caches.
	Rounds int
	// DialTimeout is how long one endpoint may take to accept a connection
	// before another one is tried. 0 means 2 seconds.
	DialTimeout time.Duration
	// KeepAlive is how often a quiet connection is tested, and KeepAliveTimeout
	// how long the answer may take before the connection counts as dead. 0 means
	// 10 and 5 seconds; gRPC raises a KeepAlive below 10 seconds.
	KeepAlive, KeepAliveTimeout time.Duration

	// Observer hears of calls and events, for metrics and traces. May be nil.
	Observer Observer

	// NoPipeline makes every call an RPC by itself. Otherwise small calls share a
	// stream to a kvd once many are made at once, which is cheaper several times
	// over for all sides. It makes no difference to what a call does or returns.
	NoPipeline bool

	// Dial opens connections to an address, for tunnels and tests. Nil: TCP or the
	// unix socket, by way of the proxy that the environment names.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// DialOptions are added to the client's own, for what gRPC can do beyond
	// this package: interceptors, tracing handlers, proxies. With them calls are
	// not pipelined: they would not see each call.
	DialOptions []grpc.DialOption

	pipeAt int32 // from how many calls at once a pipe is opened
}

// Defaults of Config.
const (
	defaultTimeout          = 10 * time.Second
	defaultDialTimeout      = 2 * time.Second
	defaultKeepAlive        = 10 * time.Second
	defaultKeepAliveTimeout = 5 * time.Second
)

func (c Config) withDefaults() Config {
	pick := func(v *time.Duration, otherwise time.Duration) {
		if *v == 0 {
			*v = otherwise
		}
	}
	pick(&c.Timeout, defaultTimeout)
	pick(&c.DialTimeout, defaultDialTimeout)
	pick(&c.KeepAlive, defaultKeepAlive)
	pick(&c.KeepAliveTimeout, defaultKeepAliveTimeout)
	if c.pipeAt == 0 {
		c.pipeAt = defaultPipeAt
	}
	return c
}
