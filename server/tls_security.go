package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keelson-io/keelson/raft/transport"
)

// security is the certificates of a member, both sides, and the gates that use
// them.
type security struct {
	client, peer *keyring
	network      Network
	gates        []*gate // set before Run
}

// openSecurity reads all certificates. The member's directory exists already:
// certificates of our own making go there.
func openSecurity(cfg *Config) (*security, error) {
	for _, w := range cfg.tlsWarnings() {
		cfg.Logger.Warn(w)
	}
	clients, err := cfg.autoTLS("client", cfg.ClientTLS, cfg.ListenClientURLs, cfg.ListenClientHTTPURLs, cfg.ListenResourceURLs, cfg.AdvertiseClientURLs)
	if err != nil {
		return nil, err
	}
	peers, err := cfg.autoTLS("peer", cfg.PeerTLS, cfg.ListenPeerURLs, cfg.AdvertisePeerURLs)
	if err != nil {
		return nil, err
	}
	s := &security{network: cfg.network()}
	if s.client, err = openKeyring(cfg, "client", &clients); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if s.peer, err = openKeyring(cfg, "peer", &peers); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	s.client.rules.selfMade = clients.CertFile != cfg.ClientTLS.CertFile
	s.peer.rules.selfMade = peers.CertFile != cfg.PeerTLS.CertFile
	return s, nil
}

// openSecurity gives the member its certificates.
func (s *Server) openSecurity() error {
	security, err := openSecurity(&s.cfg)
	if err != nil {
		return err
	}
	s.parts.security = security
	s.parts.sockets.arm(security)
	s.metrics.registry.MustRegister(tlsMetrics{security})
	return nil
}

// refreshInterval is how long a revocation may wait before it cuts connections
// that exist. New connections see it at once.
const refreshInterval = time.Second

// run follows the files until ctx ends.
func (s *security) run(ctx context.Context) {
	every(ctx, s.client.rules.clock, refreshInterval, func(context.Context) {
		s.client.refresh()
		s.peer.refresh()
		for _, g := range s.gates {
			g.cutRevoked()
		}
	})
}

// securedPrefix marks peer URLs whose TLS is made here. The transport between
// members takes a scheme that it does not know for a plain connection.
const securedPrefix = "tls+"

// peerTransport is the transport over gRPC with its TLS made by the member's
// one builder: certificates, CAs and revocations of the moment count for each
// connection, and the host in a peer's URL must be in its certificate.
type peerTransport struct{ *transport.GRPC }

// SetPeers implements transport.Transport.
func (t peerTransport) SetPeers(peers []transport.Peer) {
	marked := make([]transport.Peer, len(peers))
	for i, p := range peers {
		marked[i] = p
		marked[i].URLs = make([]string, len(p.URLs))
		for j, raw := range p.URLs {
			if u, err := url.Parse(raw); err == nil && isSecure(*u) {
				raw = securedPrefix + raw
			}
			marked[i].URLs[j] = raw
		}
	}
	t.GRPC.SetPeers(marked)
}

// tlsMetrics tells when certificates end. etcd has no such figures, so the
// names are ours.
type tlsMetrics struct{ security *security }

// Describe sends nothing: which files there are is known at each scrape only.
func (tlsMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (t tlsMetrics) Collect(out chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, constLabels(labels)), kind, value)
	}
	ends := func(side, what string, at time.Time) {
		send(prometheus.GaugeValue, "keelson_tls_expiry_timestamp_seconds",
			"When a certificate ends, or a revocation list should have been renewed, in seconds since 1970; of several, the first.",
			float64(at.Unix()), "side", side, "part", what)
	}
	for _, k := range []*keyring{t.security.client, t.security.peer} {
		m := k.current.Load()
		if m.server != nil {
			ends(k.side, "certificate", firstEnd(m.server))
		}
		if m.client != nil && m.client != m.server {
			ends(k.side, "client_certificate", firstEnd(m.client))
		}
		if len(m.cas) > 0 {
			first := m.cas[0].NotAfter
			for _, ca := range m.cas {
				if ca.NotAfter.Before(first) {
					first = ca.NotAfter
				}
			}
			ends(k.side, "trusted_ca", first)
		}
		if m.revoked != nil && !m.revoked.next.IsZero() {
			ends(k.side, "revocation_list", m.revoked.next)
		}
		send(prometheus.CounterValue, "keelson_tls_reloads_total", "How often changed TLS files were taken over.", float64(k.reloads.Load()), "side", k.side)
		send(prometheus.CounterValue, "keelson_tls_reload_failures_total", "How often changed TLS files could not be used.", float64(k.failures.Load()), "side", k.side)
	}
	for _, g := range t.security.gates {
		g.collect(send)
	}
}

// firstEnd is when the first certificate of a pair's chain ends.
func firstEnd(pair *tls.Certificate) time.Time {
	first := pair.Leaf.NotAfter
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil && c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	return first
}
