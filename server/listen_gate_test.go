package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/server/certtest"
)

// TestStalledHandshakes: connections that say nothing end by themselves, and
// while as many as allowed are stalled, an honest one still gets in.
// GHSA-6vch-q96h-7gc3 was a handshake without an end.
func TestStalledHandshakes(t *testing.T) {
	p := newPKI(t)
	good := p.ca.Issue("good", "127.0.0.1")
	var log logBuffer
	var g *gate
	addr, _ := servePeerGate(t, p.set, func(one *gate) {
		g = one
		g.limits = openingLimits{timeout: time.Minute, most: 4, grace: 20 * time.Millisecond}
	}, &log)
	var stalled []net.Conn
	for range 8 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		stalled = append(stalled, conn)
	}
	if err := overBytes(addr, as(t, &good, p.ca)); err != nil {
		t.Errorf("among stalled handshakes: %v", err)
	}
	g.mu.Lock()
	if n := g.mu.opening.Len(); n > g.limits.most {
		t.Errorf("%d connections are opening, %d may", n, g.limits.most)
	}
	g.mu.Unlock()
	stalled[0].SetReadDeadline(time.Now().Add(probeTimeout))
	if _, err := stalled[0].Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the oldest stalled connection did not give way")
	}

	addr, _ = servePeerGate(t, p.set, func(g *gate) { g.limits.timeout = 30 * time.Millisecond }, &log)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "\x16\x03\x01\x00\xf0") // a handshake begins, and stays so
	conn.SetReadDeadline(time.Now().Add(probeTimeout))
	if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a stalled handshake never ends")
	}
	eventually(t, "a line says so", func() bool { return log.count("did not open in time") == 1 })
}

// TestConnectionsAreBounded: when all places are taken the next connection
// waits, unaccepted, until one ends.
func TestConnectionsAreBounded(t *testing.T) {
	var log logBuffer
	_, f := serveFront(t, newStubNode(healthyStatus), func(cfg *Config) { cfg.Logger = log.logger() })
	g := f.sockets.client[0]
	for range cap(g.places) - 1 { // the gate itself holds one, for who comes next
		select {
		case g.places <- struct{}{}:
		case <-time.After(probeTimeout):
			t.Fatal("places are missing")
		}
		if len(g.places) == cap(g.places) {
			break
		}
	}
	first, err := net.Dial("tcp", addrOf(g))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	reader := bufio.NewReader(first)
	request := func(conn net.Conn, r *bufio.Reader) error {
		io.WriteString(conn, "GET /version HTTP/1.1\r\nHost: a\r\n\r\n")
		conn.SetReadDeadline(time.Now().Add(probeTimeout))
		resp, err := http.ReadResponse(r, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		return err
	}
	if err := request(first, reader); err != nil {
		t.Fatal(err)
	}
	second, err := net.Dial("tcp", addrOf(g))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	answered := make(chan error, 1)
	go func() { answered <- request(second, bufio.NewReader(second)) }()
	select {
	case err := <-answered:
		t.Fatalf("a connection too many is served: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	eventually(t, "a line says so", func() bool { return log.count("cannot accept connections until others end") == 1 })
	first.Close()
	if err := <-answered; err != nil {
		t.Errorf("after a place was left: %v", err)
	}
}

// TestWrongTongue: plain text on a TLS port and TLS on a plain port give one
// clear line, however often it is tried, and never an answer.
func TestWrongTongue(t *testing.T) {
	p := newPKI(t)
	good := p.ca.Issue("good", "127.0.0.1")
	var log logBuffer
	f := secureFront(t, p, func(c *Config) {
		c.Logger = log.logger()
		c.ListenClientURLs, _ = ParseURLs("https://127.0.0.1:0,http://127.0.0.2:0")
	})
	secure, plain := f.sockets.client[0], f.sockets.client[1]
	if !secure.isSecure {
		secure, plain = plain, secure
	}
	for range 3 {
		resp, err := http.Get("http://" + addrOf(secure) + "/health")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "use https") {
			t.Errorf("plain HTTP on the TLS port: %s %q", resp.Status, body)
		}
		if err := overHTTP(addrOf(plain), as(t, &good, p.ca)); err == nil {
			t.Error("TLS on the plain port")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	conn := plainConn(t, addrOf(secure))
	if _, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{}, grpc.WaitForReady(true)); err == nil {
		t.Error("plain gRPC on the TLS port")
	}
	for _, line := range []string{"plain text on a TLS port", "TLS on a port that is served without TLS"} {
		eventually(t, line, func() bool { return log.count(line) > 0 })
		if n := log.count(line); n != 1 {
			t.Errorf("%d lines say %q", n, line)
		}
	}
	if f.sockets.client[0].refused.Load() < 3 || f.sockets.client[1].refused.Load() < 3 {
		t.Error("refusals are not counted")
	}
	if log.count("127.0.0.1") == 0 {
		t.Error("the lines do not say who")
	}
}

func plainConn(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(newGateCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestProtocolsUnderTLS: one port tells its two protocols apart after the
// handshake, by ALPN, and by the first bytes of who does not speak ALPN.
func TestProtocolsUnderTLS(t *testing.T) {
	p := newPKI(t)
	good := p.ca.Issue("good", "127.0.0.1")
	socket := filepath.Join(t.TempDir(), "s")
	f := secureFront(t, p, func(c *Config) { c.ListenClientURLs, _ = ParseURLs("https://127.0.0.1:0,unixs://" + socket) })
	for _, g := range f.sockets.client {
		for offered, want := range map[string]string{"h2": "h2", "http/1.1": "http/1.1", "h2,http/1.1": "http/1.1", "": ""} {
			cfg := as(t, &good, p.ca)
			cfg.ServerName, cfg.NextProtos = "localhost", strings.FieldsFunc(offered, func(r rune) bool { return r == ',' })
			raw, err := net.Dial(g.Addr().Network(), addrOf(g))
			if err != nil {
				t.Fatal(err)
			}
			conn := tls.Client(raw, cfg)
			if err := conn.Handshake(); err != nil || conn.ConnectionState().NegotiatedProtocol != want {
				t.Errorf("%s: offered %q, got %q, %v", g.Addr(), offered, conn.ConnectionState().NegotiatedProtocol, err)
			}
			conn.Close()
		}
		for _, hello := range []struct{ say, want string }{
			{"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200"},
			{preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00"}, // answered with a SETTINGS frame
		} {
			cfg := as(t, &good, p.ca)
			cfg.ServerName = "localhost"
			raw, err := net.Dial(g.Addr().Network(), addrOf(g))
			if err != nil {
				t.Fatal(err)
			}
			conn := tls.Client(raw, cfg)
			io.WriteString(conn, hello.say)
			conn.SetReadDeadline(time.Now().Add(probeTimeout))
			got := make([]byte, len(hello.want))
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != hello.want {
				t.Errorf("%s without ALPN: said %q, heard %q, %v", g.Addr(), hello.say[:5], got, err)
			}
			conn.Close()
		}
	}
}

// TestHandlersSeeTheCertificate: identity comes from the connection itself.
func TestHandlersSeeTheCertificate(t *testing.T) {
	p := newPKI(t)
	good := p.ca.Issue("alice", "127.0.0.1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(l, "client", clock.System(), stubEndpoints(newStubNode(healthyStatus)).log)
	cfg := DefaultConfig()
	cfg.Clock, cfg.ClientTLS = clock.System(), p.set
	g.isSecure, g.protocols = true, []string{protocolHTTP1, protocolH2}
	if g.keys, err = openKeyring(&cfg, "client", &p.set); err != nil {
		t.Fatal(err)
	}
	names := make(chan string, 2)
	server := grpc.NewServer(grpc.Creds(newGateCredentials()), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		who, _ := peer.FromContext(s.Context())
		info, ok := who.AuthInfo.(credentials.TLSInfo)
		if !ok {
			return fmt.Errorf("no TLS in %T", who.AuthInfo)
		}
		names <- info.State.VerifiedChains[0][0].Subject.CommonName
		return errors.New("seen")
	}))
	guarded := newHTTPGuard(&cfg, g.log).wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		names <- r.TLS.VerifiedChains[0][0].Subject.CommonName
	}))
	web := &http.Server{Handler: guarded, ConnContext: rememberConn}
	go g.Run()
	go server.Serve(g.grpc)
	go web.Serve(g.http)
	defer func() { g.Close(); server.Stop(); web.Close() }()
	if err := overGRPC(addrOf(l), as(t, &good, p.ca)); err == nil || !strings.Contains(err.Error(), "seen") {
		t.Fatal(err)
	}
	if err := overHTTP(addrOf(l), as(t, &good, p.ca)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if name := <-names; name != "alice" {
			t.Errorf("the client is %q", name)
		}
	}
}

func TestHTTPGuard(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxRequestBytes = 1000
	var seen int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if seen = n; err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	})
	var log logBuffer
	for _, c := range []struct {
		name         string
		hosts, cors  []string
		method, host string
		origin       string
		secure       bool
		body         int
		code         int
		allowed      string
	}{
		{name: "any host by default", hosts: []string{"*"}, host: "evil.example:2379", code: 200},
		{name: "a known host", hosts: []string{"a", "b"}, host: "b:2379", code: 200},
		{name: "a known IPv6 host", hosts: []string{"::1"}, host: "[::1]:2379", code: 200},
		{name: "an unknown host", hosts: []string{"a", "b"}, host: "evil.example:2379", code: 421},
		{name: "an unknown host under TLS", hosts: []string{"a"}, host: "evil.example", secure: true, code: 200},
		{name: "a page reads", origin: "https://evil.example", code: 200},
		{name: "a page writes", method: "POST", origin: "https://evil.example", code: 403},
		{name: "the member's own page writes", method: "POST", host: "a:1", origin: "http://a:1", code: 200},
		{name: "no page writes", method: "POST", code: 200},
		{name: "an allowed page writes", method: "POST", cors: []string{"https://good.example"}, origin: "https://good.example", code: 200, allowed: "https://good.example"},
		{name: "another page writes", method: "POST", cors: []string{"https://good.example"}, origin: "https://evil.example", code: 403},
		{name: "every page is allowed", method: "POST", cors: []string{"*"}, origin: "https://evil.example", code: 200, allowed: "*"},
		{name: "asking first, allowed", method: "OPTIONS", cors: []string{"https://good.example"}, origin: "https://good.example", code: 200, allowed: "https://good.example"},
		{name: "asking first, refused", method: "OPTIONS", origin: "https://evil.example", code: 200},
		{name: "a large body", method: "POST", body: 2 << 20, code: 413},
	} {
		cfg.HostWhitelist, cfg.CORS = c.hosts, c.cors
		if err := checkOrigins(c.cors); err != nil {
			t.Fatal(err)
		}
		method := c.method
		if method == "" {
			method = "GET"
		}
		r := httptest.NewRequest(method, "/x", strings.NewReader(strings.Repeat("x", c.body)))
		if r.Host = "a:2379"; c.host != "" {
			r.Host = c.host
		}
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if c.secure {
			r.TLS = &tls.ConnectionState{}
		}
		w := httptest.NewRecorder()
		newHTTPGuard(&cfg, log.logger()).wrap(handler).ServeHTTP(w, r)
		if w.Code != c.code || w.Header().Get("Access-Control-Allow-Origin") != c.allowed {
			t.Errorf("%s: %d, allowed %q", c.name, w.Code, w.Header().Get("Access-Control-Allow-Origin"))
		}
	}
	if seen > 2000+1<<20 {
		t.Errorf("%d bytes of a body were read", seen)
	}
}

func TestHTTPHeadersAreBounded(t *testing.T) {
	_, f := serveFront(t, newStubNode(healthyStatus), func(*Config) {})
	r, err := http.NewRequest("GET", "http://"+addrOf(f.sockets.client[0])+"/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Large", strings.Repeat("x", 2*maxHeaderBytes))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("large headers: %s", resp.Status)
	}
}

// TestAutoTLS: certificates are made once, kept private, and made anew before
// they end.
func TestAutoTLS(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fixtures", "client")
	now := time.Now()
	cert, key, err := makeAutoCert(dir, []string{"127.0.0.1", "a.example"}, 1, now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "a.example"} {
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if left := pair.Leaf.NotAfter.Sub(now); left < 364*24*time.Hour || left > 366*24*time.Hour {
		t.Errorf("it lasts %v", left)
	}
	for _, name := range []string{cert, key} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	serialAt := func(at time.Time) string {
		t.Helper()
		if _, _, err := makeAutoCert(dir, nil, 1, at); err != nil {
			t.Fatal(err)
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.SerialNumber.String()
	}
	if serialAt(now) != pair.Leaf.SerialNumber.String() {
		t.Error("a good certificate is made anew")
	}
	if serialAt(now.Add(350*24*time.Hour)) == pair.Leaf.SerialNumber.String() {
		t.Error("a certificate that ends soon is kept")
	}
	before := serialAt(now)
	if err := os.WriteFile(key, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if serialAt(now) == before {
		t.Error("a damaged pair is kept")
	}

	_, f := serveFront(t, newStubNode(healthyStatus), func(c *Config) {
		c.ListenClientURLs, _ = ParseURLs("https://127.0.0.1:0")
		c.DataDir, c.ClientTLS.Auto = t.TempDir(), true
	})
	if err := overGRPC(addrOf(f.sockets.client[0]), &tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Errorf("auto TLS: %v", err)
	}
}

func TestExpiryMetrics(t *testing.T) {
	p := newPKI(t)
	f := secureFront(t, p, func(*Config) {})
	families, err := f.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, family := range families {
		if family.GetName() != "keelson_tls_expiry_timestamp_seconds" {
			continue
		}
		for _, m := range family.Metric {
			at := time.Unix(int64(m.GetGauge().GetValue()), 0)
			if at.Before(time.Now()) || at.After(time.Now().Add(25*time.Hour)) {
				t.Errorf("%v ends at %v", m.Label, at)
			}
			parts = append(parts, m.Label[1].GetValue()+"/"+m.Label[0].GetValue())
		}
	}
	slices.Sort(parts)
	if want := []string{"client/certificate", "client/revocation_list", "client/trusted_ca"}; !slices.Equal(parts, want) {
		t.Errorf("expiry is told of %q, want %q", parts, want)
	}
}

// TestKeyringRefusesAtStart: what is broken at the start stops it, with the
// file's name.
func TestKeyringRefusesAtStart(t *testing.T) {
	for name, breakIt := range map[string]func(*pki){
		"absent certificate": func(p *pki) { os.Remove(p.set.CertFile) },
		"foreign key":        func(p *pki) { _, p.set.KeyFile = p.ca.Issue("x").Write(t, p.dir, "x") },
		"empty CA":           func(p *pki) { os.WriteFile(p.set.TrustedCAFile, nil, 0o600) },
		"damaged list":       func(p *pki) { os.WriteFile(p.set.CRLFile, []byte("x"), 0o600) },
		"a directory":        func(p *pki) { p.set.CRLFile = p.dir },
	} {
		p := newPKI(t)
		breakIt(p)
		cfg := DefaultConfig()
		cfg.Clock, cfg.ClientTLS, cfg.Logger = clock.System(), p.set, stubEndpoints(newStubNode(healthyStatus)).log
		if _, err := openSecurity(&cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), p.dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRevocationLists: DER and PEM, several at once, and whose certificates a
// list counts for.
func TestRevocationLists(t *testing.T) {
	a, b := certtest.New(t, "a"), certtest.New(t, "b")
	first, second := a.Issue("first"), b.Issue("second")
	if first.Serial.Cmp(second.Serial) != 0 {
		t.Fatal("the test needs equal serial numbers")
	}
	other := a.Issue("other")
	shown := func(p certtest.Pair) *tls.ConnectionState {
		pair, err := tls.X509KeyPair(p.Cert, p.Key)
		if err != nil {
			t.Fatal(err)
		}
		chain := []*x509.Certificate{pair.Leaf}
		return &tls.ConnectionState{PeerCertificates: chain, VerifiedChains: [][]*x509.Certificate{chain}}
	}
	_, cas, err := parseCAs(append(a.PEM(), b.PEM()...))
	if err != nil {
		t.Fatal(err)
	}
	ofA := a.Revoke(first)
	inPEM := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: ofA})
	both := append(inPEM, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: b.Revoke(second)})...)
	for _, c := range []struct {
		name          string
		list          []byte
		cas           []*x509.Certificate
		first, second bool // revoked
	}{
		{"of one CA", ofA, cas, true, false},
		{"in PEM", inPEM, cas, true, false},
		{"of both CAs", both, cas, true, true},
		{"of a CA that is not ours", ofA, cas[1:], true, true},
		{"without CAs", ofA, nil, true, true},
	} {
		r, err := parseRevocations(c.list, c.cas)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := errors.Is(r.check(shown(first)), ErrRevoked); got != c.first {
			t.Errorf("%s: the first is revoked: %v", c.name, got)
		}
		if got := errors.Is(r.check(shown(second)), ErrRevoked); got != c.second {
			t.Errorf("%s: the second is revoked: %v", c.name, got)
		}
		if err := r.check(shown(other)); err != nil {
			t.Errorf("%s: another one: %v", c.name, err)
		}
		// Another way to a CA does not help a certificate that was shown.
		mixed := shown(first)
		mixed.VerifiedChains = append(mixed.VerifiedChains, shown(other).VerifiedChains...)
		if r.check(mixed) == nil {
			t.Errorf("%s: a second chain hides a revoked certificate", c.name)
		}
	}
	if _, err := parseRevocations(a.PEM(), nil); err == nil {
		t.Error("a certificate passes for a list")
	}
}

func FuzzRevocations(f *testing.F) {
	a := certtest.New(f, "a")
	list := a.Revoke(a.Issue("x"))
	f.Add(list)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRevocations(b, nil); err == nil && len(r.byIssuer) > 0 {
			t.Error("a list of nobody's counts for somebody")
		}
	})
}
