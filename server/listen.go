package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/keelson-io/keelson/server/lane"
	"github.com/keelson-io/keelson/server/resource"
)

// This file is where sockets enter: binding the listeners of a member and
// dialling peers. listen_gate.go lets connections in.

// ErrListen is wrapped when an address cannot be bound.
var ErrListen = errors.New("cannot listen")

// listeners are the bound sockets of one member, each behind its gate. They are
// bound before anything else starts, so that a taken port is found before the
// log is touched; the kernel queues connections until someone accepts.
type listeners struct {
	peer    []*gate
	client  []*gate // gRPC, and HTTP unless there are HTTP URLs
	http    []*gate // --listen-client-http-urls
	metrics []*gate // --listen-metrics-urls
	objects []*gate // --listen-resource-urls
}

// Bounds of connections that are open at once, for each kind of listener: no
// kind can take the others' file descriptors, nor the store's.
const (
	peerPlaces    = 128
	metricsPlaces = 64
	// reservedFiles are kept for the log, the store and outgoing connections, as
	// in etcd.
	reservedFiles = 150
	minPlaces     = 16
	maxPlaces     = 1 << 20
)

// bind binds every listen URL, or none.
func bind(cfg *Config) (_ *listeners, err error) {
	files := fileLimit()
	places := files - reservedFiles - peerPlaces - metricsPlaces
	if places < minPlaces {
		return nil, fmt.Errorf("%w: a process may open only %d files; at least %d are needed", ErrConfig, files, files-places+minPlaces)
	}
	l := &listeners{}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	clients := make(chan struct{}, places)
	for _, group := range []struct {
		name, flag string
		urls       []url.URL
		into       *[]*gate
		places     chan struct{}
	}{
		{"peer", "--listen-peer-urls", cfg.ListenPeerURLs, &l.peer, make(chan struct{}, peerPlaces)},
		{"client", "--listen-client-urls", cfg.ListenClientURLs, &l.client, clients},
		{"http", "--listen-client-http-urls", cfg.ListenClientHTTPURLs, &l.http, clients},
		{"metrics", "--listen-metrics-urls", cfg.ListenMetricsURLs, &l.metrics, make(chan struct{}, metricsPlaces)},
		{"resource", "--listen-resource-urls", cfg.ListenResourceURLs, &l.objects, clients},
	} {
		for _, u := range group.urls {
			one, err := listenOn(cfg.network(), u)
			if err != nil {
				return nil, fmt.Errorf("%w on %s (%s): %w", ErrListen, u.String(), group.flag, err)
			}
			g := newGate(one, group.name, cfg.Clock, cfg.Logger)
			g.places, g.isSecure = group.places, isSecure(u)
			*group.into = append(*group.into, g)
		}
	}
	l.chooseProtocols()
	return l, nil
}

// chooseProtocols says what each gate serves. On a port that serves both,
// HTTP/1.1 comes first: whoever can speak it and is no gRPC client gets it.
func (l *listeners) chooseProtocols() {
	for _, g := range l.peer {
		g.http, g.protocols = nil, []string{protocolH2}
	}
	for _, g := range l.client {
		g.protocols = []string{protocolHTTP1, protocolH2}
		if len(l.http) > 0 {
			g.http, g.protocols = nil, []string{protocolH2}
		}
	}
	for _, g := range slices.Concat(l.http, l.metrics) {
		g.grpc, g.protocols = nil, []string{protocolHTTP1}
	}
	for _, g := range l.objects {
		g.grpc, g.protocols = nil, []string{protocolH2, protocolHTTP1} // a client's watches share a connection
		g.tokens, g.lingers, g.stall = true, true, resource.StallTimeout
	}
}

// arm gives the gates their certificates. Nothing has been accepted yet.
func (l *listeners) arm(s *security) {
	all := slices.Concat(l.peer, l.client, l.http, l.metrics, l.objects)
	for _, g := range all {
		if g.isSecure {
			g.keys = s.client
		}
	}
	for _, g := range l.peer {
		if g.isSecure {
			g.keys, g.checkSAN = s.peer, !s.peer.rules.set.SkipClientSANVerify
		}
	}
	s.gates = all
}

// fileLimit is how many files the process may have open.
func fileLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > maxPlaces {
		return maxPlaces
	}
	return int(limit.Cur)
}

// openFiles is how many files the process has open; 0 where the system does not
// say.
func openFiles() int {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	return max(len(names)-1, 0) // dir itself is one of them
}

// Close closes what is still open.
func (l *listeners) Close() {
	l.closeClients()
	for _, one := range l.peer {
		one.Close()
	}
}

// closeClients leaves the peers' listeners open: a member that stops hands
// leadership over and must be heard until then.
func (l *listeners) closeClients() {
	for _, one := range slices.Concat(l.client, l.http, l.metrics, l.objects) {
		one.Close()
	}
}

// Network is where a member's sockets come from.
type Network interface {
	Listen(network, address string) (net.Listener, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

func (c *Config) network() Network {
	if c.Net != nil {
		return c.Net
	}
	return kernel{}
}

// kernel is the operating system's network.
type kernel struct{}

func (kernel) Listen(network, address string) (net.Listener, error) {
	return net.Listen(network, address)
}

func (kernel) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1, Control: giveUpAfter(unackedTimeout)} // gRPC has its own keep-alive
	return d.DialContext(ctx, network, address)
}

// endStalled makes the kernel end a connection whose other end, the network or the program,
// has taken nothing for d of what waits for it.
func endStalled(conn net.Conn, d time.Duration) error {
	tcp, ok := conn.(*net.TCPConn)
	set := giveUpAfter(d)
	if !ok || set == nil || d == 0 {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	return set("tcp", "", raw)
}

func listenOn(n Network, u url.URL) (net.Listener, error) {
	if !isSocket(u) {
		return n.Listen("tcp", u.Host)
	}
	path := socketPath(u)
	if err := removeStaleSocket(path); err != nil {
		return nil, err
	}
	return n.Listen("unix", path)
}

// isSocket reports whether a URL names a unix socket.
func isSocket(u url.URL) bool { return u.Scheme == "unix" || u.Scheme == "unixs" }

// socketPath is the file of a unix URL: unix:///abs, unix://rel, unix:rel.
func socketPath(u url.URL) string {
	if u.Opaque != "" {
		return u.Opaque
	}
	return u.Host + u.Path
}

// removeStaleSocket clears the way for a bind: a socket file outlives a killed
// process. One that still answers is in use.
func removeStaleSocket(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return fmt.Errorf("%s: %w", path, syscall.EADDRINUSE)
	}
	return os.Remove(path)
}

// unackedTimeout ends connections to peers that are gone, as soon as there is
// something to tell them.
const unackedTimeout = 5 * time.Second

// dialPeer connects to a peer URL, with TLS if its scheme asks for it. There is
// no way back to plain text: a handshake that fails ends the connection.
func (s *security) dialPeer(ctx context.Context, raw string) (net.Conn, error) {
	u, err := ParseURL(strings.TrimPrefix(raw, securedPrefix))
	if err != nil {
		return nil, err
	}
	network, address, host := "tcp", u.Host, u.Hostname()
	if isSocket(u) {
		// A path is no name that a certificate could have.
		network, address, host = "unix", socketPath(u), "localhost"
	}
	conn, err := s.network.DialContext(ctx, network, address)
	if err != nil || !isSecure(u) {
		return conn, err
	}
	secured := tls.Client(conn, s.peer.rules.client(s.peer.fresh(), host))
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS with %s: %w", u.String(), err)
	}
	return secured, nil
}

// checkBind refuses URLs on which nobody can listen: a domain name other than
// localhost, or a missing port.
func checkBind(u url.URL) error {
	if isSocket(u) {
		return nil
	}
	host, _, err := net.SplitHostPort(u.Host)
	if err != nil {
		return err
	}
	if host == "localhost" || host == "" || net.ParseIP(host) != nil {
		return nil
	}
	return fmt.Errorf("expected IP in URL for binding (%s)", u.String())
}

// checkHost refuses URLs that nobody can reach.
func checkHost(u url.URL) error {
	if isSocket(u) {
		return nil
	}
	host, _, err := net.SplitHostPort(u.Host)
	if err != nil {
		return err
	}
	if host == "" {
		return fmt.Errorf("unexpected empty host (%s)", u.String())
	}
	return nil
}

// resolveTimeout bounds the name lookups of sameEndpoints.
const resolveTimeout = 5 * time.Second

// sameEndpoints reports whether two lists of URLs name the same endpoints, as
// they are written or after resolving their hosts, as etcd compares them.
func sameEndpoints(a, b []string) bool {
	if equalSets(a, b) {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	return equalSets(resolved(ctx, a), resolved(ctx, b))
}

func equalSets(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func resolved(ctx context.Context, urls []string) []string {
	out := make([]string, 0, len(urls))
	for _, raw := range urls {
		if u, err := url.Parse(raw); err == nil && u.Host != "" {
			if addrs, err := net.DefaultResolver.LookupIPAddr(ctx, u.Hostname()); err == nil && len(addrs) > 0 {
				first := slices.MinFunc(addrs, func(x, y net.IPAddr) int { return len(x.String()) - len(y.String()) })
				u.Host = net.JoinHostPort(first.String(), u.Port())
				raw = u.String()
			}
		}
		out = append(out, raw)
	}
	return out
}

// objectServer serves the resource layer, in HTTP/2 for who speaks it: TLS is the
// gate's business, so to net/http all connections are plain. Its requests end
// with ctx, because watches would go on for an hour.
func (f *front) objectServer(ctx context.Context) *http.Server {
	s := f.httpServer(f.objects)
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxObjectStreams}
	s.BaseContext = func(net.Listener) context.Context { return ctx }
	return s
}

// laned gives connections out with a lane, for the watches on them.
type laned struct{ *gate }

// Accept implements net.Listener.
func (l laned) Accept() (net.Conn, error) {
	conn, err := l.gate.Accept()
	if err != nil {
		return nil, err
	}
	return lane.New(conn), nil
}

// maxObjectStreams is how many requests and watches a connection may carry; a
// controller manager has a watch for each kind on one.
const maxObjectStreams = 1000
