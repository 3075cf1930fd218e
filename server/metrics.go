package server

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft/vfs"
)

// metrics are the figures of one member under etcd's names, so that dashboards
// and alerts made for etcd go on working. What can be read from the member's
// state is read when somebody asks (state.Collect); only durations and counts
// of things that pass are kept here.
//
// Differences from etcd's, which has the same names: client bytes are counted
// on the connections, HTTP and framing included; proposals committed and applied
// count log entries, pending and failed count RPCs that go through the log.
type metrics struct {
	registry *prometheus.Registry
	traffic  *traffic
	clock    clock.Clock

	leaderChanges   atomic.Uint64
	proposalsFailed prometheus.Counter
	pending         prometheus.Gauge
	leaseExpired    prometheus.Counter
	repairs         prometheus.Counter
	walSync         prometheus.Histogram
	walBytes        prometheus.Counter
	commit          prometheus.Histogram
	healthy         prometheus.Counter
	unhealthy       prometheus.Counter
	checks          *prometheus.GaugeVec
	checkRuns       *prometheus.CounterVec

	started, handled *prometheus.CounterVec
	methods          map[string]*methodMetrics // by full method; fixed before serving
}

// methodMetrics are one RPC's counters, looked up once.
type methodMetrics struct {
	started prometheus.Counter
	ok      prometheus.Counter
	labels  []string // type, service, method
	// proposes: the RPC goes through the log (a transaction may turn out not to).
	proposes bool
}

// proposing are the RPCs that go through the log.
var proposing = []string{"Put", "DeleteRange", "Txn", "Compact", "LeaseGrant", "LeaseRevoke",
	"AuthEnable", "AuthDisable", "UserAdd", "UserDelete", "UserChangePassword", "UserGrantRole", "UserRevokeRole",
	"RoleAdd", "RoleDelete", "RoleGrantPermission", "RoleRevokePermission"}

// diskBuckets are etcd's: from 1 ms, doubling, to 8 s.
var diskBuckets = prometheus.ExponentialBuckets(0.001, 2, 14)

func newMetrics(c clock.Clock) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), traffic: &traffic{}, clock: c}
	counter := func(name, help string) prometheus.Counter {
		n := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		m.registry.MustRegister(n)
		return n
	}
	histogram := func(name, help string) prometheus.Histogram {
		n := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: diskBuckets})
		m.registry.MustRegister(n)
		return n
	}
	m.proposalsFailed = counter("etcd_server_proposals_failed_total", "The total number of failed proposals seen.")
	m.repairs = counter("keelson_server_repairs_total", "The number of times that damaged data was replaced by other members' at the start of this process.")
	m.leaseExpired = counter("etcd_debugging_server_lease_expired_total", "The total number of expired leases.")
	m.healthy = counter("etcd_server_health_success", "The total number of successful health checks")
	m.unhealthy = counter("etcd_server_health_failures", "The total number of failed health checks")
	m.walBytes = counter("etcd_disk_wal_write_bytes_total", "Total number of bytes written in WAL.")
	m.walSync = histogram("etcd_disk_wal_fsync_duration_seconds", "The latency distributions of fsync called by WAL.")
	m.commit = histogram("etcd_disk_backend_commit_duration_seconds", "The latency distributions of commit called by backend.")
	m.pending = prometheus.NewGauge(prometheus.GaugeOpts{Name: "etcd_server_proposals_pending",
		Help: "The current number of pending proposals to commit."})
	m.checks = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "etcd_server_healthcheck",
		Help: "The result of each kind of healthcheck."}, []string{"type", "name"})
	m.checkRuns = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "etcd_server_healthchecks_total",
		Help: "The total number of each kind of healthcheck."}, []string{"type", "name", "status"})
	rpc := []string{"grpc_type", "grpc_service", "grpc_method"}
	m.started = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grpc_server_started_total",
		Help: "Total number of RPCs started on the server."}, rpc)
	m.handled = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "grpc_server_handled_total",
		Help: "Total number of RPCs completed on the server, regardless of success or failure."}, append(rpc, "grpc_code"))
	m.registry.MustRegister(m.pending, m.checks, m.checkRuns, m.started, m.handled,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observe adds what is read from the member's state at each scrape.
func (m *metrics) observe(v *view) { m.registry.MustRegister(&stateMetrics{view: v, m: m}) }

// health counts a /health answer.
func (m *metrics) health(ok bool) {
	if ok {
		m.healthy.Inc()
		return
	}
	m.unhealthy.Inc()
}

// check counts one line of /livez or /readyz.
func (m *metrics) check(kind, name string, ok bool) {
	value, status := 0.0, "error"
	if ok {
		value, status = 1, "success"
	}
	m.checks.WithLabelValues(kind, name).Set(value)
	m.checkRuns.WithLabelValues(kind, name, status).Inc()
}

// countMethods prepares the counters of every RPC the server offers. It is
// called once, after all services are registered and before the first RPC.
func (m *metrics) countMethods(g *grpc.Server) {
	m.methods = map[string]*methodMetrics{}
	for service, info := range g.GetServiceInfo() {
		for _, method := range info.Methods {
			labels := []string{rpcType(method), service, method.Name}
			m.methods["/"+service+"/"+method.Name] = &methodMetrics{
				started: m.started.WithLabelValues(labels...),
				ok:      m.handled.WithLabelValues(append(labels, codes.OK.String())...),
				labels:  labels,

				proposes: slices.Contains(proposing, method.Name),
			}
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

// begin counts an RPC that starts, done one that ended.
func (m *metrics) begin(method *methodMetrics) {
	method.started.Inc()
	if method.proposes {
		m.pending.Inc()
	}
}

func (m *metrics) done(method *methodMetrics, code codes.Code) {
	if method.proposes {
		m.pending.Dec()
		if code == codes.Unavailable || code == codes.Canceled || code == codes.DeadlineExceeded {
			m.proposalsFailed.Inc()
		}
	}
	if code == codes.OK {
		method.ok.Inc()
		return
	}
	m.handled.WithLabelValues(append(method.labels[:len(method.labels):len(method.labels)], code.String())...).Inc()
}

// followLeader counts changes of leader until ctx ends.
func (m *metrics) followLeader(ctx context.Context, node consensus) {
	var last api.MemberID
	for {
		changed := node.LeaderChanges()
		if leader := node.Status().Leader; leader != 0 && leader != last {
			m.leaderChanges.Add(1)
			last = leader
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// timedFS returns fs with the log's syncs and bytes measured.
func (m *metrics) timedFS(fs vfs.FS) vfs.FS { return timedFS{fs, m} }

type timedFS struct {
	vfs.FS
	m *metrics
}

func (t timedFS) Create(name string) (vfs.File, error) { return t.file(t.FS.Create(name)) }
func (t timedFS) Open(name string) (vfs.File, error)   { return t.file(t.FS.Open(name)) }

func (t timedFS) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return timedFile{f, t.m}, nil
}

type timedFile struct {
	vfs.File
	m *metrics
}

func (f timedFile) Sync() error {
	begin := f.m.clock.Now()
	err := f.File.Sync()
	f.m.walSync.Observe(f.m.clock.Now().Sub(begin).Seconds())
	return err
}

func (f timedFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	f.m.walBytes.Add(float64(n))
	return n, err
}

// timedEngine returns e with its commits measured.
func (m *metrics) timedEngine(e engine.Engine) engine.Engine { return timedEngine{e, m} }

type timedEngine struct {
	engine.Engine
	m *metrics
}

func (t timedEngine) Commit(b *engine.Batch) error {
	begin := t.m.clock.Now()
	err := t.Engine.Commit(b)
	t.m.commit.Observe(t.m.clock.Now().Sub(begin).Seconds())
	return err
}

// stateMetrics reads the member's state when somebody scrapes.
type stateMetrics struct {
	view *view
	m    *metrics
}

// Describe sends nothing: the collector is unchecked, its figures come and go.
func (*stateMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *stateMetrics) Collect(out chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, constLabels(labels)), kind, value)
	}
	gauge := func(name, help string, value float64, labels ...string) {
		send(prometheus.GaugeValue, name, help, value, labels...)
	}
	now, stats := s.view.node.Status(), s.view.store().Stats()
	gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", flag(now.Leader != 0))
	gauge("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", flag(now.Leader == s.view.id))
	gauge("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.", flag(now.Learner))
	gauge("etcd_server_proposals_committed_total", "The total number of consensus proposals committed.", float64(now.Committed))
	gauge("etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", float64(now.Applied))
	gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.", float64(s.view.quota()))
	gauge("etcd_server_id", "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.", 1, "server_id", s.view.id.String())
	gauge("etcd_server_version", "Which version is running. 1 for 'server_version' label with current version.", 1, "server_version", apiVersion)
	gauge("etcd_server_go_version", "Which Go version server is running with. 1 for 'server_go_version' label with current version.", 1, "server_go_version", runtime.Version())
	gauge("etcd_cluster_version", "Which version is running. 1 for 'cluster_version' label with current cluster version", 1,
		"cluster_version", s.view.versions().cluster.short())
	gauge("etcd_mvcc_db_total_size_in_bytes", "Total size of the underlying database physically allocated in bytes.", float64(stats.Engine.Allocated))
	gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Total size of the underlying database logically in use in bytes.", float64(stats.Engine.InUse))
	gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", float64(stats.Keys))
	gauge("etcd_debugging_mvcc_current_revision", "The current revision of store.", float64(s.view.store().Revision()))
	gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.", float64(max(s.view.store().CompactRevision(), 0)))
	gauge("keelson_mvcc_tail_bytes", "Bytes applied but not yet in the database.", float64(stats.TailBytes))
	gauge("keelson_mvcc_index_bytes", "Estimated bytes of the index in memory.", float64(stats.IndexBytes))
	for _, a := range s.view.alarms() {
		gauge("etcd_debugging_server_alarms", "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for 'alarm_type' label with type of this alarm", 1,
			"server_id", api.MemberID(a.MemberID).String(), "alarm_type", a.Alarm.String())
	}
	gauge("keelson_divergent_revision", "The first revision in which members were found to differ; 0 when none was.", float64(s.view.divergent()))
	for _, m := range s.view.members.list() {
		if m.ID != s.view.id {
			gauge("etcd_network_known_peers", "The current number of known peers.", 1, "Local", s.view.id.String(), "Remote", m.ID.String())
		}
	}
	send(prometheus.CounterValue, "etcd_server_leader_changes_seen_total", "The number of leader changes seen.", float64(s.m.leaderChanges.Load()))
	send(prometheus.CounterValue, "etcd_network_client_grpc_sent_bytes_total", "The total number of bytes sent to grpc clients.", float64(s.m.traffic.sent.Load()))
	send(prometheus.CounterValue, "etcd_network_client_grpc_received_bytes_total", "The total number of bytes received from grpc clients.", float64(s.m.traffic.received.Load()))
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func constLabels(pairs []string) prometheus.Labels {
	labels := prometheus.Labels{}
	for i := 0; i+1 < len(pairs); i += 2 {
		labels[pairs[i]] = pairs[i+1]
	}
	return labels
}
