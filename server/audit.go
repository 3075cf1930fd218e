package server

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/auth"
)

// Audit says where the audit log goes.
type Audit struct {
	Logger *slog.Logger // nil: there is none
	Reads  int          // one of so many reads is recorded; 1: all; 0: none
}

// auditLog records who asked for what, and how it ended. Everything that changes
// something is recorded, and everything that was refused for lack of rights;
// reads by sample. A record holds no value, no password and no token.
//
// Requests never wait for the disk: records go through a queue of auditQueue
// places to one goroutine (run). When it is full they are dropped and counted in
// keelson_audit_dropped_total.
type auditLog struct {
	cfg     Audit
	who     func(ctx context.Context) auth.Principal
	queue   chan []slog.Attr
	reads   atomic.Uint64
	written prometheus.Counter
	dropped prometheus.Counter
}

// auditQueue bounds what waits to be written: a few megabytes.
const auditQueue = 8192

// newAuditLog returns nil when there is to be no log.
func newAuditLog(cfg Audit, k maker, who func(ctx context.Context) auth.Principal) *auditLog {
	if cfg.Logger == nil {
		return nil
	}
	return &auditLog{
		cfg: cfg, who: who, queue: make(chan []slog.Attr, auditQueue),
		written: k.counter("keelson_audit_records_total", "Records that were written to the audit log."),
		dropped: k.counter("keelson_audit_dropped_total", "Records that the audit log had no room for."),
	}
}

// run writes records until ctx ends, and then what is left. Nothing is recorded
// any more by then.
func (a *auditLog) run(ctx context.Context) {
	for {
		select {
		case record := <-a.queue:
			a.write(record)
		case <-ctx.Done():
			for {
				select {
				case record := <-a.queue:
					a.write(record)
				default:
					return
				}
			}
		}
	}
}

func (a *auditLog) write(record []slog.Attr) {
	a.cfg.Logger.LogAttrs(context.Background(), slog.LevelInfo, "rpc", record...)
	a.written.Inc()
}

// onlyReads are the RPCs that change nothing. What is not here is recorded each
// time, unless wants sees that it only reads.
var onlyReads = map[string]bool{
	"/etcdserverpb.KV/Range": true, "/etcdserverpb.KV/RangeStream": true,
	"/etcdserverpb.Lease/LeaseTimeToLive": true, "/etcdserverpb.Lease/LeaseLeases": true, "/etcdserverpb.Lease/LeaseKeepAlive": true,
	"/etcdserverpb.Cluster/MemberList": true,
	"/etcdserverpb.Maintenance/Status": true, "/etcdserverpb.Maintenance/Hash": true, "/etcdserverpb.Maintenance/HashKV": true,
	"/etcdserverpb.Auth/AuthStatus": true, "/etcdserverpb.Auth/UserGet": true, "/etcdserverpb.Auth/UserList": true,
	"/etcdserverpb.Auth/RoleGet": true, "/etcdserverpb.Auth/RoleList": true,
	"/v3electionpb.Election/Leader": true, "/v3electionpb.Election/Observe": true,
	"/grpc.health.v1.Health/Check": true, "/grpc.health.v1.Health/Watch": true, "/grpc.health.v1.Health/List": true,
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": true, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": true,
}

// wants decides whether an RPC that ended with code is recorded.
func (a *auditLog) wants(method string, req any, code codes.Code) bool {
	if code == codes.PermissionDenied || code == codes.Unauthenticated {
		return true
	}
	reads := onlyReads[method]
	switch r := req.(type) {
	case *txnRequest:
		reads = r.readOnly()
	case *pb.AlarmRequest:
		reads = r.Action == pb.AlarmRequest_GET
	}
	if !reads {
		return true
	}
	return a.cfg.Reads > 0 && a.reads.Add(1)%uint64(a.cfg.Reads) == 0
}

// record notes an RPC that ended. A nil auditLog notes nothing.
func (a *auditLog) record(ctx context.Context, method string, req any, err error, took time.Duration) {
	if a == nil {
		return
	}
	code := status.Code(err)
	if !a.wants(method, req, code) {
		return
	}
	record := append(a.caller(ctx), slog.String("method", method), slog.String("code", code.String()), slog.String("took", took.String()))
	if err != nil {
		record = append(record, slog.String("error", status.Convert(err).Message()))
	}
	a.put(append(record, describe(req)...))
}

// watch notes a watch that was opened, or refused.
func (a *auditLog) watch(ctx context.Context, r watchRange, err error) {
	if a == nil {
		return
	}
	record := append(a.caller(ctx), slog.String("method", watchMethod), slog.String("code", status.Code(err).String()), slog.Bool("create", true))
	a.put(append(record, describe(r)...))
}

const watchMethod = "/etcdserverpb.Watch/Watch"

func (a *auditLog) put(record []slog.Attr) {
	select {
	case a.queue <- record:
	default:
		a.dropped.Inc()
	}
}

// caller is who asked: a user, or the name in a certificate, and from where.
func (a *auditLog) caller(ctx context.Context) []slog.Attr {
	attrs := make([]slog.Attr, 0, 10)
	if who := a.who(ctx); who.Known() {
		attrs = append(attrs, slog.String("user", who.Name))
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return attrs
	}
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
		attrs = append(attrs, slog.String("certificate", info.State.PeerCertificates[0].Subject.CommonName))
	}
	if p.Addr != nil {
		attrs = append(attrs, slog.String("remote", p.Addr.String()))
	}
	return attrs
}

// whoAsks is the user that an RPC comes from, as far as this member knows.
func (s *Server) whoAsks(ctx context.Context) auth.Principal {
	who, err := s.auth.caller(ctx, s.auth.now.Load())
	if err != nil {
		return auth.Principal{}
	}
	return who
}
