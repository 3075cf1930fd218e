package server

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protowire"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
)

// Server is one member: consensus, store and the services of the client port.
//
// Fields are set before Run and do not change afterwards; each of them is safe
// for concurrent use.
type Server struct {
	cfg     Config
	log     *slog.Logger
	clock   clock.Clock
	id      api.MemberID
	cluster api.ClusterID

	node    replica
	store   atomic.Pointer[mvcc.Store] // an installed snapshot brings another one
	members *members
	lessor  *lessor
	auth    *authority
	load    *overload
	answers *answers
	metrics *metrics
	slow    slowLog
	audit   *auditLog // nil: there is none
	hot     *hotSpots
	upkeep  *upkeep
	led     streams
	wait    func(ctx context.Context, changed <-chan struct{}, d time.Duration) bool // await; false: the member is gone
	ids     idSource

	startConf *raftpb.ConfState // the membership that the store had at start
	judge     *judge            // of membership changes; owned by raft's loop

	unserved chan struct{} // closed when no client is served any more

	parts parts // what Run starts and stops
}

// newServer makes the half of a member that needs neither disk nor network. The
// caller sets node and store.
func newServer(cfg Config, id api.MemberID, cluster api.ClusterID, m *members) *Server {
	s := &Server{
		cfg: cfg, log: cfg.Logger, clock: cfg.Clock, id: id, cluster: cluster,
		members: m,
		metrics: newMetrics(cfg.Clock),

		unserved: make(chan struct{}),
	}
	s.ids.state.Store(cfg.Seed ^ uint64(id))
	s.load = newOverload(&s.cfg, s.Store)
	s.answers = newAnswers(cfg.Clock, s.load.gate)
	s.auth = newAuthority(s)
	s.slow = slowLog{log: cfg.Logger, clock: cfg.Clock}
	s.audit = newAuditLog(cfg.Audit, maker{s.metrics.registry}, s.whoAsks)
	s.hot = newHotSpots(cfg.Clock, s.ids.next)
	s.lessor = &lessor{
		id: id, clock: cfg.Clock, log: cfg.Logger,
		store:   s.Store,
		extend:  cfg.ElectionTimeout,
		recheck: cfg.HeartbeatInterval,
		expired: s.metrics.leaseExpired.Add,
		renewed: s.metrics.store.renewed.Inc,
		await:   awaitGone,
		kick:    make(chan struct{}, 1),
	}
	s.upkeep = newUpkeep(s)
	s.wait = s.await
	return s
}

// lead gives the member its log.
func (s *Server) lead(node replica) {
	node = countedLog{node, &s.metrics.log, s.cfg.Tracer}
	s.node, s.lessor.node = node, node
	s.upkeep.view = s.view()
}

// Store returns the store of the moment. Take it once for each request.
func (s *Server) Store() *mvcc.Store { return s.store.Load() }

// CachedBytes is what the resource layer keeps of objects for lists.
func (s *Server) CachedBytes() uint64 {
	if s.parts.resource == nil {
		return 0
	}
	return s.parts.resource.CachedBytes()
}

// view is what the services beside KV, Watch and Lease see.
func (s *Server) view() *view {
	v := &view{
		cfg: &s.cfg, id: s.id, cluster: s.cluster, node: s.node, members: s.members,
		store: func() storeState { return s.Store() }, upkeep: s.upkeep,
	}
	if t, ok := s.parts.transport.(peerTransport); ok {
		v.peers = t
	}
	return v
}

// services registers every service of the client port on a new gRPC server.
func (s *Server) services() *grpc.Server {
	i := &interceptors{cfg: &s.cfg, metrics: s.metrics, node: s.node, admit: s.admitRPC, load: s.load, ended: s.rpcEnded}
	opts := append(grpcOptions(&s.cfg, i),
		grpc.ForceServerCodecV2(Codec()), grpc.ChainStreamInterceptor(s.admitStream))
	g := grpc.NewServer(opts...)
	v := s.view()
	g.RegisterService(&kvService, s)
	g.RegisterService(&leaseService, s)
	watches := s.watches()
	g.RegisterService(&watchService, watches)
	g.RegisterService(&lockService, s)
	g.RegisterService(&electionService, s)
	g.RegisterService(&authService, s)
	g.RegisterService(&pipelineService, &pipelines{s, i})
	s.parts.direct = newDirectCalls(s, i, streamOf(&watchService, watches))
	pb.RegisterClusterServer(g, &clusterService{view: v, change: s.parts.members})
	pb.RegisterMaintenanceServer(g, &maintenanceService{view: v})
	healthpb.RegisterHealthServer(g, health.NewServer())
	newSchema().register(g)
	s.metrics.countMethods(g, s.cfg.ExtensiveMetrics)
	s.metrics.observe(v)
	s.metrics.registry.MustRegister(s.load)
	return g
}

// watches serves the Watch RPC.
func (s *Server) watches() *watchServer {
	return newWatchServer(watchConfig{
		Backend: watchAccess{s}, Cluster: s.cluster, Member: s.id, Clock: s.clock, Logger: s.log,
		Sent:             func(events int) { s.metrics.store.events.Add(float64(events)) },
		FragmentBytes:    int(s.cfg.MaxRequestBytes) + api.RequestOverheadBytes,
		ProgressInterval: s.cfg.WatchProgressInterval,
		Jitter:           func(n int64) int64 { return int64(s.ids.next() % uint64(max(n, 1))) },
	})
}

// watchAccess is what watches see of the member.
type watchAccess struct{ s *Server }

func (w watchAccess) NewWatchStream() *mvcc.WatchStream { return w.s.Store().NewWatchStream() }
func (w watchAccess) Term() api.Term                    { return w.s.node.Status().Term }

// WatchPermitted asks for the right to read the range. As in etcd a watch goes on
// when the right is taken away; a stream that is opened again is asked again.
func (w watchAccess) WatchPermitted(ctx context.Context, key, end []byte) error {
	r := watchRange{key, end}
	_, err := w.s.permit(ctx, func(state *auth.State, who auth.Principal) error {
		g := guard{state: state, who: who}
		return g.check(r)
	})
	w.s.audit.watch(ctx, r, err)
	w.s.heatOf(ctx, r, 0)
	return err
}

// rpcEnded is told of each RPC. Of a stream req and resp are nil: what it asks
// for is noted where it is known.
func (s *Server) rpcEnded(ctx context.Context, method string, req, resp any, err error, took time.Duration) {
	size := 0
	if answer, ok := resp.(*Encoded); ok && answer != nil {
		size = answer.Buffers.Len()
	}
	s.heatOf(ctx, req, size)
	s.audit.record(ctx, method, req, err, took)
	if req != nil && took > s.cfg.WarnUnaryDuration {
		s.slow.warn("slow request", took, s.cfg.WarnUnaryDuration, err, func() []slog.Attr {
			attrs := []slog.Attr{slog.String("method", method), slog.Int("response-size", size), slog.String("client", s.clientName(ctx))}
			return append(attrs, describe(req)...)
		})
	}
}

// requestTimeout is how long a request may wait for consensus.
func (s *Server) requestTimeout() time.Duration { return s.cfg.requestTimeout() }

// withTimeout is context.WithTimeout by the member's own clock. The cause of
// the end is then context.DeadlineExceeded.
func (s *Server) withTimeout(ctx context.Context, d time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := s.clock.AfterFunc(d, func() { cancel(context.DeadlineExceeded) })
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}

// idSource makes numbers that hardly ever meet: a seeded splitmix64 sequence.
type idSource struct{ state atomic.Uint64 }

func (s *idSource) next() uint64 {
	z := s.state.Add(0x9e3779b97f4a7c15)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Fields of etcdserverpb.ResponseHeader.
const (
	fieldHeaderCluster  = 1
	fieldHeaderMember   = 2
	fieldHeaderRevision = 3
	fieldHeaderTerm     = 4
)

// appendHeader appends the content of a ResponseHeader (without tag and length)
// for an answer given at rev. Zero fields are left out, as protobuf does.
func (s *Server) appendHeader(b []byte, rev api.Revision, term api.Term) []byte {
	b = appendUint(b, fieldHeaderCluster, uint64(s.cluster))
	b = appendUint(b, fieldHeaderMember, uint64(s.id))
	b = appendUint(b, fieldHeaderRevision, uint64(rev))
	return appendUint(b, fieldHeaderTerm, uint64(term))
}

// appendUint appends a varint field unless it is zero.
func appendUint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}
