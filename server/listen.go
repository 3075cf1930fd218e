package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keelson-io/keelson/clock"
)

// This file is where sockets enter: binding the listeners of a member, telling
// gRPC from HTTP/1.1 on the client port, and dialling peers.

// ErrListen is wrapped when an address cannot be bound.
var ErrListen = errors.New("cannot listen")

// listeners are the bound sockets of one member. They are bound before anything
// else starts, so that a taken port is found before the log is touched; the
// kernel queues connections until someone accepts.
type listeners struct {
	peer    []net.Listener
	client  []net.Listener // gRPC, and HTTP unless clientHTTP has some
	http    []net.Listener // --listen-client-http-urls
	metrics []net.Listener // --listen-metrics-urls
}

// bind binds every listen URL, or none.
func bind(cfg *Config) (_ *listeners, err error) {
	l := &listeners{}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	for _, group := range []struct {
		flag string
		urls []url.URL
		into *[]net.Listener
	}{
		{"--listen-peer-urls", cfg.ListenPeerURLs, &l.peer},
		{"--listen-client-urls", cfg.ListenClientURLs, &l.client},
		{"--listen-client-http-urls", cfg.ListenClientHTTPURLs, &l.http},
		{"--listen-metrics-urls", cfg.ListenMetricsURLs, &l.metrics},
	} {
		for _, u := range group.urls {
			one, err := listenOn(u)
			if err != nil {
				return nil, fmt.Errorf("%w on %s (%s): %w", ErrListen, u.String(), group.flag, err)
			}
			*group.into = append(*group.into, one)
		}
	}
	return l, nil
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
	for _, group := range [][]net.Listener{l.client, l.http, l.metrics} {
		for _, one := range group {
			one.Close()
		}
	}
}

func listenOn(u url.URL) (net.Listener, error) {
	if u.Scheme != "unix" {
		return net.Listen("tcp", u.Host)
	}
	path := socketPath(u)
	if err := removeStaleSocket(path); err != nil {
		return nil, err
	}
	return net.Listen("unix", path)
}

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

// DialPeer connects to a peer URL.
func DialPeer(ctx context.Context, raw string) (net.Conn, error) {
	u, err := ParseURL(raw)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	if u.Scheme == "unix" {
		return d.DialContext(ctx, "unix", socketPath(u))
	}
	return d.DialContext(ctx, "tcp", u.Host)
}

// checkBind refuses URLs on which nobody can listen: a domain name other than
// localhost, a missing port, a scheme that is not served.
func checkBind(u url.URL) error {
	switch u.Scheme {
	case "unix":
		return nil
	case "http":
	default:
		return fmt.Errorf("TLS is not served yet: %s", u.String())
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
	if u.Scheme == "unix" || u.Scheme == "unixs" {
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

// preface is how every HTTP/2 connection begins (RFC 9113, 3.4). Its first four
// bytes cannot begin an HTTP/1.1 request.
const (
	preface      = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	prefaceMatch = 4
	// sniffTimeout is how long a connection may stay silent before it has said
	// what it is.
	sniffTimeout = 30 * time.Second
)

// splitter tells gRPC from HTTP/1.1 on one listener: what begins with the
// HTTP/2 preface goes to grpc, everything else to http, where net/http answers
// noise with 400. Each connection is looked at in a goroutine of its own, so a
// silent one holds up nobody; all of them end at Close.
type splitter struct {
	net.Listener
	clock      clock.Clock
	grpc, http *branch
	traffic    *traffic
	wait       sync.WaitGroup
	mu         struct {
		sync.Mutex
		sniffing map[net.Conn]struct{} // closed by Close
		closed   bool
	}
}

func newSplitter(l net.Listener, c clock.Clock, t *traffic) *splitter {
	s := &splitter{Listener: l, clock: c, traffic: t}
	s.grpc, s.http = newBranch(l.Addr()), newBranch(l.Addr())
	s.mu.sniffing = map[net.Conn]struct{}{}
	return s
}

// Run accepts until the listener closes; then both branches have ended.
func (s *splitter) Run() error {
	defer s.grpc.Close()
	defer s.http.Close()
	defer s.wait.Wait()
	for {
		conn, err := s.Accept()
		if isPassing(err) {
			// Too many open files: other connections must end first.
			<-s.clock.NewTimer(acceptPause).C()
			continue
		}
		if err != nil {
			s.closeSniffing()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		if !s.track(conn) {
			conn.Close()
			continue
		}
		s.wait.Add(1)
		go s.sort(conn)
	}
}

// acceptPause is how long a splitter rests after an error that may pass.
const acceptPause = 50 * time.Millisecond

func isPassing(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED)
}

func (s *splitter) track(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.closed {
		s.mu.sniffing[conn] = struct{}{}
	}
	return !s.mu.closed
}

func (s *splitter) closeSniffing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.closed = true
	for conn := range s.mu.sniffing {
		conn.Close()
	}
}

// sort reads the first bytes of a connection and hands it to its branch.
func (s *splitter) sort(conn net.Conn) {
	defer s.wait.Done()
	first, err := sniff(conn, s.clock.Now().Add(sniffTimeout))
	s.mu.Lock()
	delete(s.mu.sniffing, conn)
	s.mu.Unlock()
	if err != nil {
		conn.Close()
		return
	}
	to := s.http
	if bytes.HasPrefix(first, []byte(preface[:prefaceMatch])) {
		to = s.grpc
	}
	to.give(&sniffed{Conn: conn, first: first, traffic: s.traffic})
}

// sniff reads until the bytes either differ from the preface or match enough.
func sniff(conn net.Conn, deadline time.Time) ([]byte, error) {
	if err := conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	buf := make([]byte, prefaceMatch)
	n := 0
	for n < len(buf) {
		m, err := conn.Read(buf[n:])
		n += m
		if n > 0 && !bytes.HasPrefix([]byte(preface), buf[:n]) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return buf[:n], conn.SetReadDeadline(time.Time{})
}

// traffic counts the bytes of client connections.
type traffic struct{ sent, received atomic.Uint64 }

// sniffed gives back the bytes that were looked at, and counts all bytes.
type sniffed struct {
	net.Conn
	first   []byte // owned by the reader
	traffic *traffic
}

func (c *sniffed) Read(p []byte) (n int, err error) {
	if len(c.first) > 0 {
		n = copy(p, c.first)
		c.first = c.first[n:]
	} else {
		n, err = c.Conn.Read(p)
	}
	c.traffic.received.Add(uint64(n))
	return n, err
}

func (c *sniffed) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.traffic.sent.Add(uint64(n))
	return n, err
}

// branch is the listener that one protocol's server accepts from.
type branch struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newBranch(addr net.Addr) *branch {
	return &branch{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (b *branch) give(conn net.Conn) {
	select {
	case b.conns <- conn:
	case <-b.done:
		conn.Close()
	}
}

// Accept implements net.Listener.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case conn := <-b.conns:
		return conn, nil
	case <-b.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The socket itself belongs to the splitter.
func (b *branch) Close() error {
	b.once.Do(func() { close(b.done) })
	return nil
}

// Addr implements net.Listener.
func (b *branch) Addr() net.Addr { return b.addr }
