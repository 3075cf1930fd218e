package server

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keelson-io/keelson/api"
)

// sendMetric adds one figure to an answer; labels are pairs.
type sendMetric func(kind prometheus.ValueType, name, help string, value float64, labels ...string)

// gauge and counter send figures of one series.
func (send sendMetric) gauge(name, help string, value float64) {
	send(prometheus.GaugeValue, name, help, value)
}

func (send sendMetric) counter(name, help string, value uint64) {
	send(prometheus.CounterValue, name, help, float64(value))
}

// label sends the figure 1 with what there is to say in a label.
func (send sendMetric) label(name, help, label, value string) {
	send(prometheus.GaugeValue, name, help, 1, label, value)
}

// observe adds what is read from the member's state at each scrape.
func (m *metrics) observe(v *view) { m.registry.MustRegister(&stateMetrics{view: v, m: m}) }

// stateMetrics reads the member's state when somebody scrapes.
type stateMetrics struct {
	view *view
	m    *metrics
}

// Describe sends nothing: the collector is unchecked, its figures come and go.
func (*stateMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *stateMetrics) Collect(out chan<- prometheus.Metric) {
	send := sendMetric(func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, constLabels(labels)), kind, value)
	})
	s.collectServer(send)
	s.collectStore(send)
	s.view.peerFigures(send)
	for _, gate := range featureGates {
		send(prometheus.GaugeValue, "etcd_server_feature_enabled", "Whether or not a feature is enabled. 1 is enabled, 0 is not.",
			flag(gate.on(s.view.cfg)), "name", gate.name, "stage", gate.stage)
	}
}

func (s *stateMetrics) collectServer(send sendMetric) {
	v, now := s.view, s.view.node.Status()
	send.gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", flag(now.Leader != 0))
	send.gauge("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", flag(now.Leader == v.id))
	send.gauge("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.", flag(now.Learner))
	send.gauge("etcd_server_proposals_committed_total", "The total number of consensus proposals committed.", float64(now.Committed))
	send.gauge("etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", float64(now.Applied))
	send.gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.", float64(v.quota()))
	send.label("etcd_server_id", "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.", "server_id", v.id.String())
	send.label("etcd_server_version", "Which version is running. 1 for 'server_version' label with current version.", "server_version", apiVersion)
	send.label("etcd_server_go_version", "Which Go version server is running with. 1 for 'server_go_version' label with current version.", "server_go_version", runtime.Version())
	send.label("etcd_cluster_version", "Which version is running. 1 for 'cluster_version' label with current cluster version", "cluster_version", v.versions().cluster.short())
	send.counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen.", s.m.leaderChanges.Load())
	send.counter("etcd_network_client_grpc_sent_bytes_total", "The total number of bytes sent to grpc clients.", s.m.traffic.sent.Load())
	send.counter("etcd_network_client_grpc_received_bytes_total", "The total number of bytes received from grpc clients.", s.m.traffic.received.Load())
	send.gauge("os_fd_used", "The number of used file descriptors.", float64(openFiles()))
	send.gauge("os_fd_limit", "The file descriptor limit.", float64(fileLimit()))
	for _, a := range v.alarms() {
		send(prometheus.GaugeValue, "etcd_debugging_server_alarms", "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for 'alarm_type' label with type of this alarm", 1,
			"server_id", api.MemberID(a.MemberID).String(), "alarm_type", a.Alarm.String())
	}
	if v.upkeep != nil {
		send.gauge("etcd_debugging_auth_revision", "The revision of users and roles.", float64(v.upkeep.s.auth.now.Load().Revision))
	}
}

func (s *stateMetrics) collectStore(send sendMetric) {
	store := s.view.store()
	stats := store.Stats()
	send.gauge("etcd_mvcc_db_total_size_in_bytes", "Total size of the underlying database physically allocated in bytes.", float64(stats.Engine.Allocated))
	send.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Total size of the underlying database logically in use in bytes.", float64(stats.Engine.InUse))
	send.gauge("etcd_mvcc_db_open_read_transactions", "Read transactions of the database that are open; readers share them.", float64(stats.Engine.Views))
	send.gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", float64(stats.Keys))
	send.gauge("etcd_debugging_mvcc_current_revision", "The current revision of store.", float64(store.Revision()))
	send.gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.", float64(max(store.CompactRevision(), 0)))
	send.gauge("keelson_mvcc_tail_bytes", "Bytes applied but not yet in the database.", float64(stats.TailBytes))
	send.gauge("keelson_mvcc_index_bytes", "Estimated bytes of the index in memory.", float64(stats.IndexBytes))
	send.gauge("keelson_mvcc_revisions", "Records that the index names: live, superseded and tombstones.", float64(stats.Revisions))
	send.gauge("keelson_mvcc_compaction_queue_keys", "Keys with history that a compaction has to look at.", float64(stats.CompactionQueue))
	send.gauge("keelson_leases", "Leases that exist.", float64(stats.Leases))
	send.gauge("keelson_divergent_revision", "The first revision in which members were found to differ; 0 when none was.", float64(s.view.divergent()))
	w := store.WatchStats()
	send.gauge("etcd_debugging_mvcc_watch_stream_total", "Streams of watches that are open.", float64(w.Streams))
	send.gauge("etcd_debugging_mvcc_watcher_total", "Watches that are open.", float64(w.Watchers))
	send.gauge("etcd_debugging_mvcc_slow_watcher_total", "Watches that read history because they fell behind or began in the past.", float64(w.Slow))
	send.gauge("etcd_debugging_mvcc_pending_events_total", "Events that are kept for watches that have not taken them.", float64(w.Pending))
}

// featureGate is one of etcd's, for its metric.
type featureGate struct {
	name, stage string
	on          func(*Config) bool
}

func always(*Config) bool { return true }
func never(*Config) bool  { return false }

// featureGates tell what is done, whether or not there is a choice.
var featureGates = []featureGate{
	{"AllAlpha", "ALPHA", never},
	{"AllBeta", "BETA", never},
	{"CompactHashCheck", "ALPHA", func(c *Config) bool { return c.Maintenance.CompactHashCheck }},
	{"FastLeaseKeepAlive", "BETA", always},
	{"InitialCorruptCheck", "ALPHA", func(c *Config) bool { return c.Maintenance.InitialCorruptCheck }},
	{"LeaseCheckpoint", "ALPHA", always},
	{"LeaseCheckpointPersist", "ALPHA", always},
	{"PriorityRequest", "ALPHA", always},
	{"SetMemberLocalAddr", "ALPHA", never},
	{"StopGRPCServiceOnDefrag", "ALPHA", never},
	{"TxnModeWriteWithSharedBuffer", "BETA", never},
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
