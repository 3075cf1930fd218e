package server

import (
	"context"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

// metrics are the figures of one member under etcd's names, so that dashboards
// and alerts made for etcd go on working; testdata/etcd_metrics.txt lists them.
// What can be read from the member's state is read when somebody asks
// (metrics_state.go); only durations and counts of things that pass are kept.
//
// Nothing here allocates while a request passes: every series of an RPC, a
// command or a method is looked up before, or once.
//
// Differences from etcd's, which has the same names: client bytes are counted
// on the connections, HTTP and framing included; proposals committed and applied
// count log entries.
type metrics struct {
	registry *prometheus.Registry
	page     http.Handler // /metrics
	traffic  *traffic
	clock    clock.Clock

	leaderChanges atomic.Uint64
	leaseExpired  prometheus.Counter
	repairs       prometheus.Counter
	healthy       prometheus.Counter
	unhealthy     prometheus.Counter
	checks        *prometheus.GaugeVec
	checkRuns     *prometheus.CounterVec
	promoted      prometheus.Counter
	promoteFailed *prometheus.CounterVec

	disk  diskMetrics
	log   logMetrics
	store storeMetrics
	rpc   rpcMetrics
	peers peerMetrics
}

// From etcd's: the lowest bound in seconds, doubling.
var (
	diskBuckets  = prometheus.ExponentialBuckets(0.001, 2, 14)  // to 8 s
	applyBuckets = prometheus.ExponentialBuckets(0.0001, 2, 20) // to 52 s
	hashBuckets  = prometheus.ExponentialBuckets(0.01, 2, 15)   // to 164 s
)

func newMetrics(c clock.Clock) *metrics {
	r := prometheus.NewRegistry()
	k := maker{r}
	m := &metrics{
		registry: r, page: promhttp.InstrumentMetricHandler(r, promhttp.HandlerFor(r, promhttp.HandlerOpts{})), traffic: &traffic{}, clock: c,
		leaseExpired:  k.counter("etcd_debugging_server_lease_expired_total", "The total number of expired leases."),
		repairs:       k.counter("keelson_server_repairs_total", "The number of times that damaged data was replaced by other members' at the start of this process."),
		healthy:       k.counter("etcd_server_health_success", "The total number of successful health checks"),
		unhealthy:     k.counter("etcd_server_health_failures", "The total number of failed health checks"),
		checks:        k.gauges("etcd_server_healthcheck", "The result of each kind of healthcheck.", "type", "name"),
		checkRuns:     k.counters("etcd_server_healthchecks_total", "The total number of each kind of healthcheck.", "type", "name", "status"),
		promoted:      k.counter("etcd_server_learner_promote_successes", "Learners that this member, leading, made voters."),
		promoteFailed: k.counters("etcd_server_learner_promote_failures", "Promotions that this member, leading, refused.", "Reason"),

		disk: newDiskMetrics(k), log: newLogMetrics(k, c), store: newStoreMetrics(k, c), rpc: newRPCMetrics(k), peers: newPeerMetrics(k),
	}
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// maker makes metrics and registers them.
type maker struct{ registry *prometheus.Registry }

func made[C prometheus.Collector](k maker, c C) C {
	k.registry.MustRegister(c)
	return c
}

func (k maker) counter(name, help string) prometheus.Counter {
	return made(k, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))
}

func (k maker) gauge(name, help string) prometheus.Gauge {
	return made(k, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help}))
}

func (k maker) histogram(name, help string, buckets []float64) prometheus.Histogram {
	return made(k, prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}))
}

func (k maker) counters(name, help string, labels ...string) *prometheus.CounterVec {
	return made(k, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
}

func (k maker) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return made(k, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels))
}

func (k maker) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return made(k, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels))
}

// outcome is two series of a histogram that differ in the label "success". A
// series exists once something was observed in it, as in etcd; the lookup is
// made once.
type outcome struct {
	vec    *prometheus.HistogramVec
	labels []string // those before success
	series [2]atomic.Pointer[prometheus.Observer]
}

func (o *outcome) observe(ok bool, seconds float64) {
	i, text := 0, "false"
	if ok {
		i, text = 1, "true"
	}
	series := o.series[i].Load()
	if series == nil {
		s := o.vec.WithLabelValues(append(o.labels[:len(o.labels):len(o.labels)], text)...)
		series = &s
		o.series[i].Store(series)
	}
	(*series).Observe(seconds)
}

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

// promotion counts a learner's promotion, tried by this member as the leader.
func (m *metrics) promotion(err error) {
	if err == nil {
		m.promoted.Inc()
		return
	}
	m.promoteFailed.WithLabelValues(err.Error()).Inc()
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
