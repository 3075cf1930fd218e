package server

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
)

// peerMetrics are about the other members. Bytes and failures are kept by the
// transport and read at a scrape.
type peerMetrics struct {
	rtt   *prometheus.HistogramVec
	saved prometheus.Histogram

	sent, received snapshotMetrics
}

// snapshotMetrics are about snapshots in one direction.
type snapshotMetrics struct {
	ok, failed *prometheus.CounterVec
	inflight   *prometheus.GaugeVec
	took       *prometheus.HistogramVec
}

func newPeerMetrics(k maker) peerMetrics {
	snapshots := func(direction, label string) snapshotMetrics {
		name := "etcd_network_snapshot_" + direction
		return snapshotMetrics{
			ok:       k.counters(name+"_success", "Snapshots between this member and another that arrived.", label),
			failed:   k.counters(name+"_failures", "Snapshots between this member and another that did not arrive.", label),
			inflight: k.gauges(name+"_inflights_total", "Snapshots between this member and another that are on their way.", label),
			took:     k.histograms(name+"_total_duration_seconds", "How long snapshots between this member and another took.", prometheus.ExponentialBuckets(0.1, 2, 10), label),
		}
	}
	return peerMetrics{
		rtt: k.histograms("etcd_network_peer_round_trip_time_seconds", "How long a question to another member and its answer took.",
			prometheus.ExponentialBuckets(0.0001, 2, 16), "To"),
		saved: k.histogram("etcd_snap_db_save_total_duration_seconds", "How long receiving and writing a snapshot of another member took.",
			prometheus.ExponentialBuckets(0.1, 2, 10)),
		sent: snapshots("send", "To"), received: snapshots("receive", "From"),
	}
}

// transfer observes a snapshot's way; see transport.GRPCConfig.
func (m *metrics) transfer(peer api.MemberID, sends bool) (done func(error)) {
	of := &m.peers.received
	if sends {
		of = &m.peers.sent
	}
	begin, id := m.clock.Now(), peer.String()
	of.inflight.WithLabelValues(id).Inc()
	return func(err error) {
		of.inflight.WithLabelValues(id).Dec()
		if err != nil {
			of.failed.WithLabelValues(id).Inc()
			return
		}
		of.ok.WithLabelValues(id).Inc()
		took := m.clock.Now().Sub(begin).Seconds()
		of.took.WithLabelValues(id).Observe(took)
		if !sends {
			m.peers.saved.Observe(took)
		}
	}
}

const (
	// callPing is a kind of call, of raft.Node.Call: an empty question with an
	// empty answer.
	callPing uint8 = 13
	// pingEvery is how often the other members are asked, as in etcd.
	pingEvery   = 4 * time.Second
	pingTimeout = 2 * time.Second
)

func answerPing(context.Context, api.MemberID, []byte) ([]byte, error) { return nil, nil }

// pingPeers measures the way to the other members until ctx ends.
func (s *Server) pingPeers(ctx context.Context) {
	every(ctx, s.clock, pingEvery, s.pingOnce)
}

// pingOnce asks all members at once, so that none waits for another.
func (s *Server) pingOnce(ctx context.Context) {
	ctx, cancel := s.withTimeout(ctx, pingTimeout)
	defer cancel()
	var wait sync.WaitGroup
	for _, m := range s.members.list() {
		if m.ID == s.id || s.parts.transport.ActiveSince(m.ID).IsZero() {
			continue
		}
		wait.Go(func() {
			begin := s.clock.Now()
			if _, err := s.node.Call(ctx, m.ID, callPing, nil); err == nil {
				s.metrics.peers.rtt.WithLabelValues(m.ID.String()).Observe(s.clock.Now().Sub(begin).Seconds())
			}
		})
	}
	wait.Wait()
}

// peerCounts is what the transport counts; one in memory does not.
type peerCounts interface{ Stats() []transport.PeerStats }

// peerFigures sends what the transport knows of the other members.
func (v *view) peerFigures(send sendMetric) {
	local := v.id.String()
	for _, m := range v.members.list() {
		send(prometheus.GaugeValue, "etcd_network_known_peers", "The current number of known peers.", 1, "Local", local, "Remote", m.ID.String())
	}
	if v.peers == nil {
		return
	}
	for _, p := range v.peers.Stats() {
		remote := p.ID.String()
		send(prometheus.GaugeValue, "etcd_network_active_peers", "1 while there is a connection with the member.",
			flag(!p.UpSince.IsZero()), "Local", local, "Remote", remote)
		send(prometheus.CounterValue, "etcd_network_disconnected_peers_total", "Connections with the member that broke.",
			float64(p.Broken), "Local", local, "Remote", remote)
		send(prometheus.CounterValue, "etcd_network_peer_sent_bytes_total", "Bytes of messages that were sent to the member.",
			float64(p.Control.Bytes+p.Bulk.Bytes), "To", remote)
		send(prometheus.CounterValue, "etcd_network_peer_received_bytes_total", "Bytes of messages that came from the member.",
			float64(p.Received.Bytes), "From", remote)
		send(prometheus.CounterValue, "etcd_network_peer_sent_failures_total", "Messages to the member that were dropped or lost.",
			float64(p.Control.Dropped+p.Bulk.Dropped), "To", remote)
		send(prometheus.CounterValue, "etcd_network_peer_received_failures_total", "Streams of the member that broke or made no sense.",
			float64(p.Received.Failed), "From", remote)
	}
}
