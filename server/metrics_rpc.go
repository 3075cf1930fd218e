package server

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/keelson-io/keelson/api"
)

// rpcMetrics are about RPCs of clients.
type rpcMetrics struct {
	started, handled, received, sent *prometheus.CounterVec
	requests                         *prometheus.CounterVec
	versions                         *versionNames
	request                          *prometheus.HistogramVec
	handling                         *prometheus.HistogramVec  // nil unless --metrics=extensive
	methods                          map[string]*methodMetrics // by full method; fixed before serving
}

// rpcLabels are those of the names that begin with grpc_server.
var rpcLabels = []string{"grpc_type", "grpc_service", "grpc_method"}

func newRPCMetrics(k maker) rpcMetrics {
	return rpcMetrics{
		started:  k.counters("grpc_server_started_total", "Total number of RPCs started on the server.", rpcLabels...),
		handled:  k.counters("grpc_server_handled_total", "Total number of RPCs completed on the server, regardless of success or failure.", append(rpcLabels[:3:3], "grpc_code")...),
		received: k.counters("grpc_server_msg_received_total", "Messages of RPCs that came from clients.", rpcLabels...),
		sent:     k.counters("grpc_server_msg_sent_total", "Messages of RPCs that were sent to clients.", rpcLabels...),
		requests: k.counters("etcd_server_client_requests_total", "RPCs by the API version that the client's library names.", "type", "client_api_version"),
		versions: &versionNames{},
		request:  k.histograms("etcd_server_request_duration_seconds", "How long requests of clients took, by kind.", diskBuckets, "type", "success"),
	}
}

// methodMetrics are one RPC's series, looked up once.
type methodMetrics struct {
	started, received, sent prometheus.Counter
	ok                      prometheus.Counter
	labels                  []string // type, service, method
	request                 *outcome // nil: of a kind that etcd does not measure
	readOnly                *outcome // of a transaction that cannot write
	handling                prometheus.Observer
}

// requestKinds are etcd's words for the RPCs whose duration it measures.
var requestKinds = map[string]string{
	"Range": "Range", "Put": "Put", "DeleteRange": "DeleteRange", "Txn": "Txn", "Compact": "Compaction",
	"LeaseGrant": "LeaseGrant", "LeaseRevoke": "LeaseRevoke", "Alarm": "Alarm", "Authenticate": "Authenticate",
	"AuthEnable": "AuthEnable", "AuthDisable": "AuthDisable", "AuthStatus": "AuthStatus",
	"UserAdd": "AuthUserAdd", "UserDelete": "AuthUserDelete", "UserGet": "AuthUserGet", "UserList": "AuthUserList",
	"UserChangePassword": "AuthUserChangePassword", "UserGrantRole": "AuthUserGrantRole", "UserRevokeRole": "AuthUserRevokeRole",
	"RoleAdd": "AuthRoleAdd", "RoleDelete": "AuthRoleDelete", "RoleGet": "AuthRoleGet", "RoleList": "AuthRoleList",
	"RoleGrantPermission": "AuthRoleGrantPermission", "RoleRevokePermission": "AuthRoleRevokePermission",
}

// countMethods prepares the series of every RPC the server offers. It is called
// once, after all services are registered and before the first RPC. extensive
// adds grpc_server_handling_seconds, as in etcd.
func (m *metrics) countMethods(g *grpc.Server, extensive bool) {
	r := &m.rpc
	if extensive {
		r.handling = maker{m.registry}.histograms("grpc_server_handling_seconds", "How long RPCs took, by method.", prometheus.DefBuckets, rpcLabels...)
	}
	r.methods = map[string]*methodMetrics{}
	for service, info := range g.GetServiceInfo() {
		for _, method := range info.Methods {
			labels := []string{rpcType(method), service, method.Name}
			n := &methodMetrics{
				started: r.started.WithLabelValues(labels...), received: r.received.WithLabelValues(labels...), sent: r.sent.WithLabelValues(labels...),
				ok:     r.handled.WithLabelValues(append(labels, codes.OK.String())...),
				labels: labels,
			}
			if kind, ok := requestKinds[method.Name]; ok {
				n.request = &outcome{vec: r.request, labels: []string{kind}}
			}
			if method.Name == "Txn" {
				n.readOnly = &outcome{vec: r.request, labels: []string{"ReadonlyTxn"}}
			}
			if extensive {
				n.handling = r.handling.WithLabelValues(labels...)
			}
			r.methods["/"+service+"/"+method.Name] = n
		}
	}
}

func rpcType(m grpc.MethodInfo) string {
	switch {
	case m.IsClientStream && m.IsServerStream:
		return "bidi_stream"
	case m.IsClientStream:
		return "client_stream"
	case m.IsServerStream:
		return "server_stream"
	}
	return "unary"
}

// done counts an RPC that ended.
func (m *metrics) done(method *methodMetrics, code codes.Code, took time.Duration) {
	if method.handling != nil {
		method.handling.Observe(took.Seconds())
	}
	if code == codes.OK {
		method.ok.Inc()
		return
	}
	m.rpc.handled.WithLabelValues(append(method.labels[:len(method.labels):len(method.labels)], code.String())...).Inc()
}

// answered counts a unary RPC that ended.
func (m *metrics) answered(method *methodMetrics, req any, code codes.Code, took time.Duration) {
	method.sent.Inc()
	m.done(method, code, took)
	o := method.request
	if method.readOnly != nil {
		if r, ok := req.(*txnRequest); ok && r.readOnly() {
			o = method.readOnly
		}
	}
	if o != nil {
		o.observe(code == codes.OK, took.Seconds())
	}
}

// countedStream counts the messages of a streaming RPC.
type countedStream struct {
	grpc.ServerStream
	method *methodMetrics
}

func (s *countedStream) unwrap() grpc.ServerStream { return s.ServerStream }

func (s *countedStream) SendMsg(m any) error {
	s.method.sent.Inc()
	return s.ServerStream.SendMsg(m)
}

func (s *countedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.method.received.Inc()
	}
	return err
}

// versionNames bounds the values of a label that clients choose.
type versionNames struct {
	mu    sync.Mutex
	known map[string]bool
}

// maxVersionNames is far above the versions that any fleet has.
const maxVersionNames = 32

// bounded returns the name, or "unknown" once there are too many.
func (n *versionNames) bounded(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known[name] {
		return name
	}
	if len(n.known) >= maxVersionNames {
		return "unknown"
	}
	if n.known == nil {
		n.known = map[string]bool{}
	}
	n.known[name] = true
	return name
}

// clientVersions counts the RPCs of one connection. Its client's library does
// not change: the first RPC's version counts for all.
type clientVersions struct {
	counters [2]atomic.Pointer[prometheus.Counter] // unary, stream
}

const (
	unaryRPC  = 0
	streamRPC = 1
)

// countClient counts an RPC by its client's API version, and refuses a version
// that is no text, as etcd does.
func (m *metrics) countClient(ctx context.Context, kind int) error {
	conn := connectionOf(ctx)
	if conn != nil {
		if c := conn.versions.counters[kind].Load(); c != nil {
			(*c).Inc()
			return nil
		}
	}
	version := "unknown"
	if values := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataClientAPIVersionKey); len(values) > 0 {
		version = values[0]
	}
	if !utf8.ValidString(version) {
		return api.ErrInvalidClientAPIVersion
	}
	c := m.rpc.requests.WithLabelValues([]string{"unary", "stream"}[kind], m.rpc.versions.bounded(version))
	c.Inc()
	if conn != nil {
		conn.versions.counters[kind].Store(&c)
	}
	return nil
}

// connectionOf is the connection that an RPC came on; nil when it came through
// the gateway.
func connectionOf(ctx context.Context) *clientAddr {
	if p, ok := peer.FromContext(ctx); ok {
		addr, _ := p.Addr.(*clientAddr)
		return addr
	}
	return nil
}
