package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/server/certtest"
)

// logBuffer is a log that a test reads.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// pki is a member's certificates in files, and its CA.
type pki struct {
	dir string
	ca  *certtest.Authority
	set TLS
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{dir: t.TempDir(), ca: certtest.New(t, "ca")}
	p.set.CertFile, p.set.KeyFile = p.ca.Issue("member", "127.0.0.1", "localhost").Write(t, p.dir, "member")
	p.set.TrustedCAFile = certtest.Write(t, p.dir, "ca.crt", p.ca.PEM())
	p.set.CRLFile = certtest.Write(t, p.dir, "crl", p.ca.Revoke())
	p.set.ClientCertAuth = true
	return p
}

// as is the configuration of a client that shows pair and trusts the CAs.
func as(t *testing.T, pair *certtest.Pair, cas ...*certtest.Authority) *tls.Config {
	t.Helper()
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	for _, ca := range cas {
		cfg.RootCAs.AppendCertsFromPEM(ca.PEM())
	}
	if pair != nil {
		own, err := tls.X509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		// Shown even if the server asks for another CA's.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
	}
	return cfg
}

const probeTimeout = 10 * time.Second

func overGRPC(addr string, cfg *tls.Config) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	_, err = pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
	return err
}

func overHTTP(addr string, cfg *tls.Config) error {
	client := http.Client{Timeout: probeTimeout, Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true, ForceAttemptHTTP2: true}}
	resp, err := client.Get("https://" + addr + "/health")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s, %v", resp.Status, b, err)
	}
	return nil
}

// overBytes expects the word that servePeerGate says.
func overBytes(addr string, cfg *tls.Config) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: probeTimeout}, "tcp", addr, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(probeTimeout))
	_, err = io.ReadFull(conn, make([]byte, 2))
	return err
}

// servePeerGate runs a member's peer gate and says "in" to whoever gets in.
func servePeerGate(t *testing.T, set TLS, change func(*gate), log io.Writer) (addr string, s *security) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Clock, cfg.Logger, cfg.PeerTLS = clock.System(), slog.New(slog.NewTextHandler(log, nil)), set
	cfg.ListenPeerURLs, _ = ParseURLs("https://127.0.0.1:0")
	cfg.ListenClientURLs = nil
	cfg.DataDir = t.TempDir()
	sockets, err := bind(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = openSecurity(&cfg); err != nil {
		t.Fatal(err)
	}
	sockets.arm(s)
	g := sockets.peer[0]
	change(g)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := g.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "in")
			conn.Close()
		}
	}()
	t.Cleanup(func() { g.Close(); <-done })
	return addrOf(g), s
}

// secureFront runs a front with TLS on all listeners.
func secureFront(t *testing.T, p *pki, change func(*Config)) *front {
	t.Helper()
	_, f := serveFront(t, newStubNode(healthyStatus), func(c *Config) {
		c.ClientTLS = p.set
		c.ListenClientURLs, _ = ParseURLs("https://127.0.0.1:0")
		c.ListenMetricsURLs, _ = ParseURLs("https://127.0.0.1:0")
		change(c)
	})
	return f
}

// TestEveryListenerJudgesAlike tries good and bad certificates on every kind of
// listener: what one refuses, all refuse. GHSA-3wh4-j44w-pg92 was a revocation
// list that counted everywhere but on gRPC beside separate HTTP URLs.
func TestEveryListenerJudgesAlike(t *testing.T) {
	p := newPKI(t)
	other := certtest.New(t, "ca") // of the same name: its key must tell
	good, revoked := p.ca.Issue("good", "127.0.0.1"), p.ca.Issue("revoked", "127.0.0.1")
	expired := p.ca.IssueUntil(time.Now().Add(-time.Minute), "expired", "127.0.0.1")
	strange := other.Issue("strange", "127.0.0.1")
	certtest.Write(t, p.dir, "crl", p.ca.Revoke(revoked))

	together := secureFront(t, p, func(*Config) {})
	apart := secureFront(t, p, func(c *Config) { c.ListenClientHTTPURLs, _ = ParseURLs("https://127.0.0.1:0") })
	peers, _ := servePeerGate(t, p.set, func(*gate) {}, io.Discard)
	for name, l := range map[string]struct {
		try  func(string, *tls.Config) error
		addr string
	}{
		"gRPC beside HTTP":      {overGRPC, addrOf(together.sockets.client[0])},
		"HTTP beside gRPC":      {overHTTP, addrOf(together.sockets.client[0])},
		"gRPC on its own URL":   {overGRPC, addrOf(apart.sockets.client[0])},
		"HTTP on its own URL":   {overHTTP, addrOf(apart.sockets.http[0])},
		"metrics":               {overHTTP, addrOf(together.sockets.metrics[0])},
		"metrics of the second": {overHTTP, addrOf(apart.sockets.metrics[0])},
		"peers":                 {overBytes, peers},
	} {
		t.Run(name, func(t *testing.T) {
			if err := l.try(l.addr, as(t, &good, p.ca)); err != nil {
				t.Errorf("a good certificate: %v", err)
			}
			for who, pair := range map[string]*certtest.Pair{"revoked": &revoked, "expired": &expired, "another CA's": &strange, "no": nil} {
				if err := l.try(l.addr, as(t, pair, p.ca)); err == nil {
					t.Errorf("%s certificate gets in", who)
				}
			}
			if err := l.try(l.addr, as(t, &good, other)); err == nil {
				t.Error("a client that trusts another CA is content")
			}
			old := as(t, &good, p.ca)
			old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			if err := l.try(l.addr, old); err == nil {
				t.Error("TLS 1.1 is spoken")
			}
		})
	}
}

// TestRotation replaces everything while connections hold: the pair, the CA,
// the list. New handshakes see each file at once.
func TestRotation(t *testing.T) {
	p := newPKI(t)
	f := secureFront(t, p, func(*Config) {})
	addr := addrOf(f.sockets.client[0])
	good := p.ca.Issue("good")
	held, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(as(t, &good, p.ca))))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	ask := func(when string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
		defer cancel()
		if _, err := pb.NewMaintenanceClient(held).Status(ctx, &pb.StatusRequest{}); err != nil {
			t.Errorf("the held connection %s: %v", when, err)
		}
	}
	serial := func(cfg *tls.Config) string {
		t.Helper()
		conn, err := tls.Dial("tcp", addr, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	ask("before")
	before := serial(as(t, &good, p.ca))
	next := p.ca.Issue("member", "127.0.0.1")
	certtest.Write(t, p.dir, "member.crt", next.Cert) // its key is still the old one's
	if got := serial(as(t, &good, p.ca)); got != before {
		t.Errorf("a certificate without its key is served: %s", got)
	}
	certtest.Write(t, p.dir, "member.key", next.Key)
	if got := serial(as(t, &good, p.ca)); got != next.Serial.String() {
		t.Errorf("after the rotation serial %s is served, want %s", got, next.Serial)
	}

	// The CA: both for a while, then the new one alone.
	young := certtest.New(t, "young")
	certtest.Write(t, p.dir, "ca.crt", append(p.ca.PEM(), young.PEM()...))
	fresh := young.Issue("fresh")
	young.Issue("member", "127.0.0.1").Write(t, p.dir, "member")
	for _, pair := range []certtest.Pair{good, fresh} {
		if err := overGRPC(addr, as(t, &pair, young)); err != nil {
			t.Errorf("with both CAs: %v", err)
		}
	}
	certtest.Write(t, p.dir, "ca.crt", young.PEM())
	if err := overGRPC(addr, as(t, &good, young)); err == nil {
		t.Error("a CA that is gone still counts")
	}
	if err := overHTTP(addr, as(t, &fresh, young)); err != nil {
		t.Errorf("with the new CA: %v", err)
	}
	ask("after the rotation")
}

// TestDamagedFilesChangeNothing: what was read before goes on to count, and
// the log says why.
func TestDamagedFilesChangeNothing(t *testing.T) {
	p := newPKI(t)
	var log logBuffer
	f := secureFront(t, p, func(c *Config) { c.Logger = log.logger() })
	addr, out := addrOf(f.sockets.client[0]), p.ca.Issue("out")
	certtest.Write(t, p.dir, "crl", p.ca.Revoke(out))
	if err := overGRPC(addr, as(t, &out, p.ca)); err == nil {
		t.Error("a revoked certificate gets in")
	}
	certtest.Write(t, p.dir, "crl", []byte("nonsense"))
	if err := overHTTP(addr, as(t, &out, p.ca)); err == nil {
		t.Error("a damaged list admits the revoked")
	}
	if err := os.Remove(p.set.CertFile); err != nil {
		t.Fatal(err)
	}
	last := p.ca.Issue("last")
	if err := overGRPC(addr, as(t, &last, p.ca)); err != nil {
		t.Errorf("without the file the certificate before must serve: %v", err)
	}
	for _, want := range []string{`part=certificate error=`, `part="revocation list" error=`} {
		if n := log.count(want); n != 1 {
			t.Errorf("%d lines with %s:\n%s", n, want, log.b.String())
		}
	}
}

// TestRevocationCutsConnections: a revoked client loses what it has open.
func TestRevocationCutsConnections(t *testing.T) {
	p := newPKI(t)
	f := secureFront(t, p, func(*Config) {})
	bad, good := p.ca.Issue("bad"), p.ca.Issue("good")
	var conns []*tls.Conn
	for _, pair := range []certtest.Pair{bad, good} {
		conn, err := tls.Dial("tcp", addrOf(f.sockets.client[0]), as(t, &pair, p.ca))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "GET /version HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, err := conn.Read(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	certtest.Write(t, p.dir, "crl", p.ca.Revoke(bad))
	keys := f.sockets.client[0].keys
	keys.refresh()
	f.sockets.client[0].cutRevoked()
	conns[0].SetReadDeadline(time.Now().Add(probeTimeout))
	if _, err := conns[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the revoked client is still connected: %v", err)
	}
	io.WriteString(conns[1], "GET /version HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := conns[1].Read(make([]byte, 4096)); err != nil {
		t.Errorf("another client was cut: %v", err)
	}
}

func TestAllowedNames(t *testing.T) {
	p := newPKI(t)
	right, wrong := p.ca.Issue("etcd-a", "127.0.0.1", "a.example"), p.ca.Issue("etcd-b", "127.0.0.1", "b.example")
	for name, restrict := range map[string]func(*TLS){
		"common name": func(s *TLS) { s.AllowedCNs = []string{"etcd-x", "etcd-a"} },
		"host":        func(s *TLS) { s.AllowedHostnames = []string{"x.example", "a.example"} },
	} {
		set := p.set
		restrict(&set)
		addr, _ := servePeerGate(t, set, func(*gate) {}, io.Discard)
		if err := overBytes(addr, as(t, &right, p.ca)); err != nil {
			t.Errorf("%s: the right one: %v", name, err)
		}
		if err := overBytes(addr, as(t, &wrong, p.ca)); err == nil {
			t.Errorf("%s: the wrong one gets in", name)
		}
	}
}

// TestPeersAddresses: a certificate that names other addresses is refused,
// unless told otherwise; one that names none is not.
func TestPeersAddresses(t *testing.T) {
	p := newPKI(t)
	elsewhere, nowhere := p.ca.Issue("peer", "192.0.2.1"), p.ca.Issue("peer")
	byName, wrongName := p.ca.Issue("peer", "localhost"), p.ca.Issue("peer", "member.invalid")
	var log logBuffer
	addr, _ := servePeerGate(t, p.set, func(*gate) {}, &log)
	for who, c := range map[string]struct {
		pair certtest.Pair
		want bool
	}{"elsewhere": {elsewhere, false}, "nowhere": {nowhere, true}, "localhost": {byName, true}, "wrong name": {wrongName, false}} {
		if err := overBytes(addr, as(t, &c.pair, p.ca)); (err == nil) != c.want {
			t.Errorf("%s: %v", who, err)
		}
	}
	if log.count("does not match any of DNSNames") != 1 || log.count("not 127.0.0.1") != 1 {
		t.Errorf("the log does not say why:\n%s", log.b.String())
	}
	addr, _ = servePeerGate(t, p.set, func(g *gate) { g.checkSAN = false }, io.Discard)
	if err := overBytes(addr, as(t, &elsewhere, p.ca)); err != nil {
		t.Errorf("addresses are not to be compared: %v", err)
	}
}

// TestDialPeer: the member itself refuses what it connects to.
func TestDialPeer(t *testing.T) {
	p := newPKI(t)
	dial := func(set TLS, server TLS) error {
		t.Helper()
		set.CRLFile = p.set.CRLFile
		addr, _ := servePeerGate(t, server, func(*gate) {}, io.Discard)
		cfg := DefaultConfig()
		cfg.Clock, cfg.Logger, cfg.PeerTLS = clock.System(), slog.New(slog.DiscardHandler), set
		s, err := openSecurity(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
		defer cancel()
		conn, err := s.dialPeer(ctx, securedPrefix+"https://"+addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(probeTimeout))
		_, err = io.ReadFull(conn, make([]byte, 2))
		return err
	}
	served := func(pair certtest.Pair) TLS {
		set := p.set
		set.CertFile, set.KeyFile = pair.Write(t, t.TempDir(), "server")
		return set
	}
	if err := dial(p.set, p.set); err != nil {
		t.Errorf("as it should be: %v", err)
	}
	other := newPKI(t)
	revoked := p.ca.Issue("revoked", "127.0.0.1")
	certtest.Write(t, p.dir, "crl", p.ca.Revoke(revoked))
	named := p.set
	named.AllowedCNs = []string{"someone"}
	for _, c := range []struct {
		name, want string
		own, there TLS
	}{
		{"another CA", "unknown authority", p.set, other.set},
		{"no address in it", "doesn't contain any IP SANs", p.set, served(p.ca.Issue("member"))},
		{"another address", "valid for 192.0.2.1, not 127.0.0.1", p.set, served(p.ca.Issue("member", "192.0.2.1"))},
		{"expired", "has expired", p.set, served(p.ca.IssueUntil(time.Now().Add(-time.Minute), "member", "127.0.0.1"))},
		{"revoked", "revoked", p.set, served(revoked)},
		{"another common name", "client certificate authentication failed", named, p.set},
		{"nothing to show", "certificate required", TLS{TrustedCAFile: p.set.TrustedCAFile}, p.set},
	} {
		if err := dial(c.own, c.there); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
