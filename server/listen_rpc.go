package server

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft"
	"github.com/keelson-io/keelson/server/admission"
)

// stopGrace is how long RPCs may go on after a member was asked to stop. Then
// they are cut; clients repeat what is safe elsewhere.
const stopGrace = time.Second

// grpcOptions are the limits and interceptors of the client port. The codec is
// the caller's to add.
func grpcOptions(cfg *Config, i *interceptors) []grpc.ServerOption {
	opts := []grpc.ServerOption{
		grpc.Creds(newGateCredentials()),
		grpc.ConnectionTimeout(openTimeout),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxRecvMsgSize(int(cfg.MaxRequestBytes) + api.RequestOverheadBytes),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(cfg.MaxConcurrentStreams),
		grpc.ReadBufferSize(0), // what lies below has one
		grpc.WriteBufferSize(writeBufferBytes),
		grpc.ChainUnaryInterceptor(i.unary),
		grpc.ChainStreamInterceptor(i.stream),
	}
	if cfg.KeepaliveMinTime > 0 {
		opts = append(opts, grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: cfg.KeepaliveMinTime}))
	}
	if cfg.KeepaliveInterval > 0 && cfg.KeepaliveTimeout > 0 {
		opts = append(opts, grpc.KeepaliveParams(keepalive.ServerParameters{Time: cfg.KeepaliveInterval, Timeout: cfg.KeepaliveTimeout}))
	}
	return opts
}

// writeBufferBytes is what gRPC gathers for one write to a client. A connection
// has it only while it writes (gRPC shares them): thousands of quiet watchers hold none.
const writeBufferBytes = 64 << 10

// interceptors stand before every RPC: they count it, refuse it when its client
// demands a leader and there is none or lacks what the RPC needs, and tell of its end.
type interceptors struct {
	cfg     *Config
	metrics *metrics
	node    consensus
	admit   func(ctx context.Context, method string, req any) error // by the table of needs
	load    *overload
	ended   rpcEnd
}

// rpcEnd is told of an RPC that ended; of a stream req and resp are nil.
type rpcEnd func(ctx context.Context, method string, req, resp any, err error, took time.Duration)

func (i *interceptors) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	r := i.begin(ctx, info.FullMethod, req, i.metrics.clock.Now())
	err := i.admitted(&r, i.node.Status(), needsLeader(ctx))
	if err == nil {
		r.pass, err = i.load.enter(r.ctx, req, r.began)
	}
	var resp any
	if err == nil {
		resp, err = handler(r.ctx, req)
	}
	i.end(&r, resp, err, i.metrics.clock.Now())
	return resp, err
}

// rpcRun is a request on its way through the interceptors.
type rpcRun struct {
	ctx    context.Context
	method string
	series *methodMetrics
	req    any
	began  time.Time
	pass   admission.Pass
	traced func(error) // ends the span
}

// begin counts a request that has come.
func (i *interceptors) begin(ctx context.Context, method string, req any, now time.Time) rpcRun {
	r := rpcRun{method: method, series: i.metrics.rpc.methods[method], req: req, began: now}
	r.series.started.Inc()
	r.series.received.Inc()
	r.ctx, r.traced = traced(ctx, i.cfg.Tracer, method, req)
	return r
}

// admitted asks whether the request may be served. It waits for others at most
// where a refusal has to be confirmed.
func (i *interceptors) admitted(r *rpcRun, at raft.Status, needsLeader bool) error {
	if err := i.metrics.countClient(r.ctx, unaryRPC); err != nil {
		return err
	}
	return i.refuse(r.ctx, at, servedByLearner(r.req), needsLeader, r.method, r.req)
}

// end counts a request that has ended, and tells of it.
func (i *interceptors) end(r *rpcRun, resp any, err error, now time.Time) {
	r.traced(err)
	i.load.gate.Leave(r.pass, now, err == nil)
	took := now.Sub(r.began)
	i.metrics.answered(r.series, r.req, status.Code(err), took)
	i.ended(r.ctx, r.method, r.req, resp, err, took)
}

func (i *interceptors) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	method := i.metrics.rpc.methods[info.FullMethod]
	method.started.Inc()
	begin := i.metrics.clock.Now()
	err := i.metrics.countClient(ss.Context(), streamRPC)
	if err == nil {
		// One that needs a leader waits for it, see admitStream.
		err = i.refuse(ss.Context(), i.node.Status(), info.FullMethod == snapshotMethod, false, info.FullMethod, nil)
	}
	if err == nil {
		err = handler(srv, &countedStream{ss, method})
	}
	took := i.metrics.clock.Now().Sub(begin)
	i.metrics.done(method, status.Code(err), took)
	i.ended(ss.Context(), info.FullMethod, nil, nil, err, took)
	return err
}

// refuse ends an RPC that a learner does not serve, if this member is one, one
// whose client asked for a leader when none is known, and one whose caller must
// not make it.
func (i *interceptors) refuse(ctx context.Context, at raft.Status, byLearner, needsLeader bool, method string, req any) error {
	if at.Learner && !byLearner {
		return api.ErrNotSupportedForLearner
	}
	if needsLeader && at.Leader == 0 {
		return api.ErrNoLeader
	}
	return rpcError(i.admit(ctx, method, req))
}

// needsLeader reports whether the client put "hasleader" into the metadata.
func needsLeader(ctx context.Context) bool {
	values := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey)
	return len(values) > 0 && values[0] == rpctypes.MetadataHasLeader
}

// front serves the bound client and metrics listeners. One goroutine for each
// listener and protocol; all of them end before Run returns.
type front struct {
	cfg     *Config
	sockets *listeners
	grpc    *grpc.Server
	direct  *directCalls // nil: gRPC's server does all
	http    *httpEndpoints
	objects http.Handler // the resource layer; nil: it is off
	metrics *metrics
	log     *slog.Logger
}

// Run serves until ctx ends or a listener fails. The metrics listeners answer
// at once, so that probes see a member that waits for its cluster; the client
// listeners answer once ready is closed, as etcd's do.
func (f *front) Run(ctx context.Context, ready <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wait   sync.WaitGroup
		failed = make(chan error, 1)
	)
	serve := func(fn func() error) {
		wait.Go(func() {
			if err := fn(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, grpc.ErrServerStopped) && ctx.Err() == nil {
				select {
				case failed <- err:
				default: // the first failure ends us all
				}
			}
		})
	}
	monitoring := f.httpServer(f.http.metricsHandler())
	clients := f.httpServer(f.http.clientHandler())
	objects := f.objectServer(ctx)
	for _, l := range f.sockets.metrics {
		serve(func() error { return monitoring.Serve(l) })
	}
	f.log.Info("waiting for the cluster, then serving clients", "member", f.http.view.id, "cluster", f.http.view.cluster)
	var err error
	select {
	case <-ready:
		f.serveClients(serve, clients, objects)
		select {
		case <-ctx.Done():
		case err = <-failed:
		}
	case <-ctx.Done():
	case err = <-failed:
	}
	cancel()
	f.stop(monitoring, clients, objects)
	wait.Wait()
	return err
}

func (f *front) serveClients(serve func(func() error), clients, objects *http.Server) {
	for _, g := range f.sockets.client {
		g.traffic = f.metrics.traffic
		if g.only() != nil {
			l := f.direct.under(g)
			f.ready("grpc", g)
			serve(func() error { return f.grpc.Serve(l) })
			continue
		}
		l := f.direct.under(g.grpc)
		f.ready("grpc+http", g)
		serve(g.Run)
		serve(func() error { return f.grpc.Serve(l) })
		serve(func() error { return clients.Serve(g.http) })
	}
	for _, g := range f.sockets.http {
		f.ready("http", g)
		serve(func() error { return clients.Serve(g) })
	}
	for _, g := range f.sockets.objects {
		f.ready("resource", g)
		serve(func() error { return objects.Serve(laned{g}) })
	}
	if f.cfg.OnReady != nil {
		f.cfg.OnReady()
	}
}

// ready tells the world, in etcd's words. Connections are queued already, so
// nothing that reads this line and connects can be too early.
func (f *front) ready(traffic string, g *gate) {
	f.log.Info("ready to serve client requests", "traffic", traffic, "address", g.Addr().String(), "tls", g.isSecure)
}

func (f *front) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           f.http.guard.wrap(h),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext:       rememberConn,
		ErrorLog:          slog.NewLogLogger(f.log.Handler(), slog.LevelDebug), // mostly clients' mistakes
	}
}

// stop closes the clients' sockets, lets RPCs finish for a moment, and cuts the rest.
func (f *front) stop(servers ...*http.Server) {
	f.sockets.closeClients()
	timer := f.metrics.clock.AfterFunc(stopGrace, f.grpc.Stop)
	f.direct.drain() // before gRPC tells clients that it stops: they would call again elsewhere
	f.grpc.GracefulStop()
	timer.Stop()
	f.direct.stop()
	for _, s := range servers {
		s.Close()
	}
}
