package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/keelson-io/keelson/clock"
)

// This file is the one place where a tls.Config is made. Every listener of a
// member (clients, HTTP, metrics, peers) and every connection to a peer gets
// its configuration from tlsRules, so that no rule can hold on one of them and
// be forgotten on another: that was etcd's GHSA-3wh4-j44w-pg92.
//
// A configuration is made for each connection anew, from what the files held at
// that moment (tls_keyring.go). Sessions are never resumed: a ticket would let
// in a client whose certificate was judged by yesterday's files.

// TLS says where one side of a member, the clients' or the peers', has its
// certificates, and whom it admits.
type TLS struct {
	CertFile, KeyFile             string // the server's, and the client's when that has none
	ClientCertFile, ClientKeyFile string // shown when this member connects to others
	TrustedCAFile                 string // whoever connects must show a certificate of one of these
	CRLFile                       string // revoked certificates, DER or PEM
	ClientCertAuth                bool   // ask for certificates; without TrustedCAFile the system's CAs count
	AllowedCNs, AllowedHostnames  []string
	SkipClientSANVerify           bool // peers only: do not compare addresses with certificates
	Auto                          bool // make a certificate when none is given
}

func (t *TLS) hasCert() bool { return t.CertFile != "" && t.KeyFile != "" }

// asksClients reports whether whoever connects must show a certificate.
func (t *TLS) asksClients() bool { return t.ClientCertAuth || t.TrustedCAFile != "" }

// check refuses what cannot work, in etcd's words where it has the same check.
func (t *TLS) check() error {
	if (t.CertFile == "") != (t.KeyFile == "") || (t.ClientCertFile != "" && t.CertFile == "") {
		return fmt.Errorf("KeyFile and CertFile must both be present[key: %v, cert: %v]", t.KeyFile, t.CertFile)
	}
	if (t.ClientKeyFile == "") != (t.ClientCertFile == "") {
		return fmt.Errorf("ClientKeyFile and ClientCertFile must both be present or both absent: key: %v, cert: %v]", t.ClientKeyFile, t.ClientCertFile)
	}
	if len(t.AllowedCNs) > 0 && len(t.AllowedHostnames) > 0 {
		return fmt.Errorf("AllowedCNs and AllowedHostnames are mutually exclusive (cns=%q, hostnames=%q)", t.AllowedCNs, t.AllowedHostnames)
	}
	return nil
}

// isSecure reports whether a URL asks for TLS.
func isSecure(u url.URL) bool { return u.Scheme == "https" || u.Scheme == "unixs" }

// checkTLS refuses TLS settings that cannot work.
func (c *Config) checkTLS() error {
	if _, err := c.tlsRules(&c.ClientTLS); err != nil {
		return err
	}
	for _, t := range []*TLS{&c.ClientTLS, &c.PeerTLS} {
		if err := t.check(); err != nil {
			return err
		}
		if t.Auto && c.SelfSignedCertValidity == 0 {
			return errors.New("selfSignedCertValidity is invalid,it should be greater than 0")
		}
	}
	served := func(t *TLS) bool { return t.hasCert() || t.Auto }
	for _, u := range slices.Concat(c.ListenClientURLs, c.ListenClientHTTPURLs, c.ListenResourceURLs) {
		if isSecure(u) && !served(&c.ClientTLS) {
			return fmt.Errorf("TLS key/cert (--cert-file, --key-file) must be provided for client url %s with HTTPS scheme", u.String())
		}
	}
	for _, u := range c.ListenMetricsURLs {
		if isSecure(u) && !served(&c.ClientTLS) {
			return errors.New("client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url")
		}
	}
	for _, u := range c.ListenPeerURLs {
		if isSecure(u) && !served(&c.PeerTLS) {
			return fmt.Errorf("cannot listen on TLS for %s: KeyFile and CertFile are not presented (--peer-cert-file, --peer-key-file)", u.String())
		}
	}
	return nil
}

// tlsWarnings names settings that do nothing as they stand.
func (c *Config) tlsWarnings() []string {
	var out []string
	plain := func(t *TLS, side string, urls []url.URL) {
		for _, u := range urls {
			if isSecure(u) {
				continue
			}
			if t.hasCert() {
				out = append(out, fmt.Sprintf("%s URL %s is served without TLS although a certificate is given", side, u.String()))
			}
			if t.ClientCertAuth {
				out = append(out, fmt.Sprintf("%s URL %s asks nobody for a certificate although client certificates are demanded", side, u.String()))
			}
		}
	}
	plain(&c.ClientTLS, "client", slices.Concat(c.ListenClientURLs, c.ListenClientHTTPURLs, c.ListenResourceURLs))
	plain(&c.PeerTLS, "peer", c.ListenPeerURLs)
	for side, t := range map[string]*TLS{"client": &c.ClientTLS, "peer": &c.PeerTLS} {
		if t.Auto && t.hasCert() {
			out = append(out, "ignoring "+side+" auto TLS since certs given")
		}
		if side == "peer" && t.Auto && !t.hasCert() && t.asksClients() {
			out = append(out, "peer auto TLS cannot verify anybody: peers are not asked for certificates")
		}
		if !t.asksClients() && (t.CRLFile != "" || len(t.AllowedCNs)+len(t.AllowedHostnames) > 0) {
			out = append(out, side+" certificates are restricted, but nobody who connects is asked for one: give a trusted CA file")
		}
	}
	slices.Sort(out)
	return out
}

// tlsRules are the settings of one side that do not come from files.
type tlsRules struct {
	set      *TLS
	min, max uint16
	suites   []uint16
	clock    clock.Clock
	// selfMade: the certificate is of our own making, as everybody else's is,
	// so nobody can be verified. It encrypts; it proves nothing.
	selfMade bool
}

// tlsRules parses the settings that both sides share.
func (c *Config) tlsRules(t *TLS) (tlsRules, error) {
	r := tlsRules{set: t, clock: c.Clock}
	var err error
	if r.min, err = tlsVersion(c.TLSMinVersion); err != nil {
		return r, err
	}
	if r.max, err = tlsVersion(c.TLSMaxVersion); err != nil {
		return r, err
	}
	r.min = max(r.min, tls.VersionTLS12)
	if r.max != 0 && r.min > r.max {
		return r, fmt.Errorf("min version (%s) is greater than max version (%s)", c.TLSMinVersion, c.TLSMaxVersion)
	}
	if r.min == tls.VersionTLS13 && len(c.CipherSuites) > 0 {
		return r, errors.New("cipher suites cannot be configured when only TLS1.3 is enabled")
	}
	r.suites, err = cipherSuites(c.CipherSuites)
	return r, err
}

func tlsVersion(s string) (uint16, error) {
	switch s {
	case "":
		return 0, nil
	case "TLS1.2":
		return tls.VersionTLS12, nil
	case "TLS1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("unexpected TLS version %q (must be one of: TLS1.2, TLS1.3)", s)
}

// cipherSuites finds suites by name. etcd takes weak ones too
// (GHSA-5x4g-q5rc-36jp); here they are refused.
func cipherSuites(names []string) ([]uint16, error) {
	var out []uint16
	for _, name := range names {
		full := name
		if strings.HasSuffix(name, "_CHACHA20_POLY1305") {
			full += "_SHA256" // the suites' names before they were standardised
		}
		named := func(c *tls.CipherSuite) bool { return c.Name == full }
		if i := slices.IndexFunc(tls.CipherSuites(), named); i >= 0 {
			out = append(out, tls.CipherSuites()[i].ID)
			continue
		}
		if slices.ContainsFunc(tls.InsecureCipherSuites(), named) {
			return nil, fmt.Errorf("TLS cipher suite %q is weak and not served", name)
		}
		return nil, fmt.Errorf("unexpected TLS cipher suite %q", name)
	}
	return out, nil
}

// base is what both ends of a connection share.
func (r *tlsRules) base(protocols []string) *tls.Config {
	return &tls.Config{
		MinVersion: r.min, MaxVersion: r.max, CipherSuites: r.suites,
		NextProtos: protocols, Time: r.clock.Now,
		SessionTicketsDisabled: true,
	}
}

// server is the configuration for one connection that comes in. Where clients may
// have tokens instead, only --client-cert-auth demands a certificate; one that is shown
// must be good in any case.
func (r *tlsRules) server(m *material, protocols []string, tokens bool) *tls.Config {
	cfg := r.base(protocols)
	cfg.Certificates = []tls.Certificate{*m.server}
	if r.set.asksClients() {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		cfg.ClientCAs = m.roots
		cfg.VerifyConnection = func(s tls.ConnectionState) error { return r.admit(m, &s) }
		if tokens && !r.set.ClientCertAuth {
			cfg.ClientAuth = tls.VerifyClientCertIfGiven
			cfg.VerifyConnection = func(s tls.ConnectionState) error {
				if len(s.PeerCertificates) == 0 {
					return nil
				}
				return r.admit(m, &s)
			}
		}
	}
	return cfg
}

// client is the configuration for one connection to host.
func (r *tlsRules) client(m *material, host string) *tls.Config {
	cfg := r.base([]string{protocolH2})
	cfg.RootCAs, cfg.ServerName = m.roots, host
	if own := m.client; own != nil {
		// Always shown, even if the other side's list of CAs is older than ours:
		// it decides.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
	}
	if r.selfMade {
		cfg.InsecureSkipVerify = true
		return cfg
	}
	cfg.VerifyConnection = func(s tls.ConnectionState) error { return r.admit(m, &s) }
	return cfg
}

// ErrCertificateRefused is wrapped when a valid certificate is not admitted.
var ErrCertificateRefused = errors.New("client certificate authentication failed")

// admit judges the other end's certificate, once its chain is verified.
func (r *tlsRules) admit(m *material, s *tls.ConnectionState) error {
	if len(s.VerifiedChains) == 0 || len(s.VerifiedChains[0]) == 0 {
		return fmt.Errorf("%w: no verified certificate", ErrCertificateRefused)
	}
	if err := m.revoked.check(s); err != nil {
		return err
	}
	leaf := s.VerifiedChains[0][0]
	if allowed := r.set.AllowedCNs; len(allowed) > 0 && !slices.Contains(allowed, leaf.Subject.CommonName) {
		return fmt.Errorf("%w: common name %q is not one of %q", ErrCertificateRefused, leaf.Subject.CommonName, allowed)
	}
	matches := func(host string) bool { return leaf.VerifyHostname(host) == nil }
	if allowed := r.set.AllowedHostnames; len(allowed) > 0 && !slices.ContainsFunc(allowed, matches) {
		return fmt.Errorf("%w: the certificate is for none of the hosts %q", ErrCertificateRefused, allowed)
	}
	return nil
}

// material is what the files of one side held at one moment. It never changes.
type material struct {
	server, client *tls.Certificate    // nil: none
	roots          *x509.CertPool      // nil: the system's
	cas            []*x509.Certificate // those in roots
	revoked        *revocations        // nil: none
}
