package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
)

// storeMetrics are about what was applied to the store and read from it.
type storeMetrics struct {
	clock clock.Clock

	puts, deletes, ranges, txns prometheus.Counter
	putBytes                    prometheus.Gauge // etcd's type
	events                      prometheus.Counter

	applied   [maxCommand + 1]*outcome // by kind of command
	slow      prometheus.Counter
	ranged    *outcome
	installs  prometheus.Gauge
	granted   prometheus.Counter
	renewed   prometheus.Counter
	revoked   prometheus.Counter
	leaseTTLs prometheus.Histogram

	compactedKeys               prometheus.Counter
	compactedLast               prometheus.Gauge
	compactedIn                 prometheus.Histogram
	compactStep, compactTrimmed prometheus.Histogram
}

// maxCommand is the largest kind of command.
const maxCommand = commandRoleRevokePermission

// appliedOps are etcd's words for the commands.
var appliedOps = map[uint8]string{
	commandPut: "Put", commandDelete: "DeleteRange", commandTxn: "Txn", commandCompact: "Compaction",
	commandLeaseGrant: "LeaseGrant", commandLeaseRevoke: "LeaseRevoke", commandLeaseExpire: "LeaseRevoke", commandLeaseCheckpoint: "LeaseCheckpoint",
	commandAttributes: "ClusterMemberAttrSet", commandAlarm: "Alarm", commandQuotaAlarm: "Alarm",
	commandClusterVersion: "ClusterVersionSet", commandDowngrade: "DowngradeInfoSet",
	commandAuthEnable: "AuthEnable", commandAuthDisable: "AuthDisable", commandAuthSecret: "AuthSecret",
	commandUserAdd: "AuthUserAdd", commandUserDelete: "AuthUserDelete", commandUserChangePassword: "AuthUserChangePassword",
	commandUserGrantRole: "AuthUserGrantRole", commandUserRevokeRole: "AuthUserRevokeRole",
	commandRoleAdd: "AuthRoleAdd", commandRoleDelete: "AuthRoleDelete",
	commandRoleGrantPermission: "AuthRoleGrantPermission", commandRoleRevokePermission: "AuthRoleRevokePermission",
}

func newStoreMetrics(k maker, c clock.Clock) storeMetrics {
	m := storeMetrics{
		clock:    c,
		puts:     k.counter("etcd_mvcc_put_total", "Puts that this member applied."),
		deletes:  k.counter("etcd_mvcc_delete_total", "Deletes that this member applied."),
		ranges:   k.counter("etcd_mvcc_range_total", "Ranges that this member read."),
		txns:     k.counter("etcd_mvcc_txn_total", "Transactions of more than one operation that this member applied."),
		putBytes: k.gauge("etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes of keys and values that this member was given to put."),
		events:   k.counter("etcd_debugging_mvcc_events_total", "Events that were sent to watchers."),
		slow:     k.counter("etcd_server_slow_apply_total", "Commands and reads that took longer than --warning-apply-duration."),
		ranged: &outcome{vec: k.histograms("etcd_server_range_duration_seconds", "How long ranges took, without the wait for the cluster.",
			applyBuckets, "success")},
		installs:  k.gauge("etcd_server_snapshot_apply_in_progress_total", "1 while a snapshot of the leader becomes this member's state."),
		granted:   k.counter("etcd_debugging_lease_granted_total", "Leases that were granted."),
		renewed:   k.counter("etcd_debugging_lease_renewed_total", "Renewals of leases that this member, leading, gave."),
		revoked:   k.counter("etcd_debugging_lease_revoked_total", "Leases that were revoked or expired."),
		leaseTTLs: k.histogram("etcd_debugging_lease_ttl_total", "TTLs of the leases that were granted, in seconds.", prometheus.ExponentialBuckets(1, 2, 24)),

		compactedKeys:  k.counter("etcd_debugging_mvcc_db_compaction_keys_total", "Records that compactions deleted."),
		compactedLast:  k.gauge("etcd_debugging_mvcc_db_compaction_last", "When the last compaction was done, in seconds since 1970; 0 when none was."),
		compactedIn:    k.histogram("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", "How long compactions took from start to end.", prometheus.ExponentialBuckets(100, 2, 14)),
		compactStep:    k.histogram("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", "How long deleting one batch took; nobody waits for it.", prometheus.ExponentialBuckets(1, 2, 13)),
		compactTrimmed: k.histogram("etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds", "How long a step of trimming the index took; others go on meanwhile.", prometheus.ExponentialBuckets(0.5, 2, 14)),
	}
	took := k.histograms("etcd_server_apply_duration_seconds", "How long commands took to apply.", applyBuckets, "version", "op", "success")
	for kind, op := range appliedOps {
		m.applied[kind] = &outcome{vec: took, labels: []string{"v3", op}}
	}
	return m
}

// tally counts the operations of one transaction.
type tally struct {
	ranges, puts, deletes int
	putBytes              int
}

func (m *storeMetrics) add(t tally) {
	if t.ranges+t.puts+t.deletes > 1 {
		m.txns.Inc()
	}
	addTo(m.ranges, t.ranges)
	addTo(m.deletes, t.deletes)
	if t.puts > 0 {
		m.puts.Add(float64(t.puts))
		m.putBytes.Add(float64(t.putBytes))
	}
}

func addTo(c prometheus.Counter, n int) {
	if n > 0 {
		c.Add(float64(n))
	}
}

// command observes a command that began at begin, and returns when it ended.
func (m *storeMetrics) command(kind uint8, ok bool, begin time.Time) (end time.Time) {
	end = m.clock.Now()
	if int(kind) < len(m.applied) && m.applied[kind] != nil {
		m.applied[kind].observe(ok, end.Sub(begin).Seconds())
	}
	return end
}

// read observes a range that began at begin.
func (m *storeMetrics) read(err error, begin time.Time) (took time.Duration) {
	took = m.clock.Now().Sub(begin)
	m.ranges.Inc()
	m.ranged.observe(err == nil, took.Seconds())
	return took
}

// lease counts a replicated change of a lease.
func (m *storeMetrics) lease(c mvcc.LeaseChange) {
	switch c.Kind {
	case mvcc.LeaseGranted:
		m.granted.Inc()
		m.leaseTTLs.Observe(float64(c.TTL))
	case mvcc.LeaseRevoked:
		m.revoked.Inc()
	}
}

// compaction observes a step of a compaction.
func (m *storeMetrics) compaction(c mvcc.CompactionStep) {
	millis := c.Took.Seconds() * 1000
	if c.Deletes {
		m.compactStep.Observe(millis)
		m.compactedKeys.Add(float64(c.Deleted))
	} else {
		m.compactTrimmed.Observe(millis)
	}
	if c.Done {
		m.compactedIn.Observe(c.Since.Seconds() * 1000)
		m.compactedLast.Set(float64(m.clock.Wall().Unix()))
	}
}
