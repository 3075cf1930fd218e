package server

import (
	"bytes"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/server/direct"
	"github.com/keelson-io/keelson/server/lane"
)

// openingLimits bound what strangers can hold before they have shown who they
// are (GHSA-6vch-q96h-7gc3).
type openingLimits struct {
	// timeout bounds a connection's opening: the TLS handshake, and the first
	// bytes that tell gRPC from HTTP/1.1.
	timeout time.Duration
	// most is how many connections of one gate may be opening at once.
	most int
	// grace: when that many are, the oldest gives way to the next one after it
	// has had this long. A handshake takes milliseconds.
	grace time.Duration
}

var defaultOpening = openingLimits{timeout: openTimeout, most: 1024, grace: time.Second}

const (
	openTimeout = 10 * time.Second
	// acceptPause is how long a gate rests after an error that may pass.
	acceptPause = 50 * time.Millisecond
	// drainTimeout is how long a client that leaves may take for its last bytes.
	drainTimeout = time.Second
)

// What ALPN calls the two protocols.
const (
	protocolH2    = "h2"
	protocolHTTP1 = "http/1.1"
)

// preface is how every HTTP/2 connection begins (RFC 9113, 3.4). Its first four
// bytes cannot begin an HTTP/1.1 request.
const (
	preface      = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	prefaceMatch = 4
	// recordHandshake is the first byte of every TLS connection.
	recordHandshake = 0x16
)

// gate stands between one bound socket and the servers behind it. It makes TLS
// connections of those that come in, if its URL says so, tells gRPC from
// HTTP/1.1 (by ALPN, or else by the HTTP/2 preface), and bounds everything that
// a stranger can hold up: each connection opens in a goroutine of its own, and
// all of them end at Close.
//
//	accepted -> opening (bounded, with a deadline) -> grpc or http branch
//
// TLS never turns into plain text, nor the other way round: who speaks the
// wrong one is refused, with one line in the log.
type gate struct {
	net.Listener
	name      string   // client, http, metrics or peer
	isSecure  bool     // its URL asks for TLS
	keys      *keyring // of a secure gate; set before the first connection
	protocols []string // what ALPN offers, best first
	limits    openingLimits
	lingers   bool          // small writes that follow each other are gathered
	tokens    bool          // who shows no certificate may have a bearer token
	checkSAN  bool          // a certificate with addresses must name the one that connects
	stall     time.Duration // ends a connection that takes nothing; 0: nothing does
	places    chan struct{}
	traffic   *traffic
	clock     clock.Clock
	log       *slog.Logger

	grpc, http *branch // one may be nil: that protocol is not served

	start    sync.Once
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	wait     sync.WaitGroup
	freed    chan struct{} // a pulse whenever an opening ends
	refused  atomic.Uint64
	refusals refusalLog

	mu struct {
		sync.Mutex
		closed  bool
		opening *list.List           // of *opening, the oldest first
		secured map[*opened]struct{} // open connections that showed a certificate
	}
}

// opening is one connection that has not yet shown who it is.
type opening struct {
	conn  net.Conn
	since time.Time
}

func newGate(l net.Listener, name string, c clock.Clock, log *slog.Logger) *gate {
	g := &gate{
		Listener: l, name: name, clock: c, log: log, traffic: &traffic{}, limits: defaultOpening,
		places: make(chan struct{}, defaultOpening.most),
		grpc:   newBranch(l.Addr()), http: newBranch(l.Addr()),
		freed: make(chan struct{}, 1),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.mu.opening, g.mu.secured = list.New(), map[*opened]struct{}{}
	return g
}

// Accept implements net.Listener for a gate with one protocol: it gives out
// what the gate lets in. The gate runs from the first call on.
func (g *gate) Accept() (net.Conn, error) {
	g.start.Do(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.mu.closed {
			g.only().Close()
			return
		}
		g.wait.Add(1)
		go func() {
			defer g.wait.Done()
			if err := g.Run(); err != nil {
				g.log.Error("a listener failed", "listener", g.name, "error", err)
			}
		}()
	})
	return g.only().Accept()
}

// Close closes the socket and what is opening, and waits for it. Connections
// that were given out belong to their servers.
func (g *gate) Close() error {
	g.cancel()
	err := g.Listener.Close()
	g.closeOpening()
	g.wait.Wait()
	return err
}

// Run accepts until the gate closes; then both branches have ended.
func (g *gate) Run() error {
	defer g.grpc.Close()
	defer g.http.Close()
	for {
		if !g.makeRoom() {
			return nil
		}
		conn, err := g.Listener.Accept()
		if isPassing(err) {
			// Too many open files: other connections must end first.
			if !errors.Is(err, syscall.ECONNABORTED) {
				g.sayFull(err)
			}
			<-g.places
			<-g.clock.NewTimer(acceptPause).C()
			continue
		}
		if err != nil {
			<-g.places
			g.closeOpening()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		g.begin(conn)
	}
}

func isPassing(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED)
}

// makeRoom waits for a place and for an opening to become free; the oldest
// opening is ended when it had its time. It returns false once the gate closes.
func (g *gate) makeRoom() bool {
	select {
	case g.places <- struct{}{}:
	default:
		g.sayFull(errFull)
		select {
		case g.places <- struct{}{}:
		case <-g.ctx.Done():
			return false
		}
	}
	for {
		patience, full := g.crowded()
		if !full {
			return true
		}
		timer := g.clock.NewTimer(patience)
		select {
		case <-g.freed:
		case <-timer.C():
		case <-g.ctx.Done():
			timer.Stop()
			<-g.places
			return false
		}
		timer.Stop()
	}
}

// crowded reports whether too many are opening, and how long the oldest of them
// may go on. One that had its time is closed.
func (g *gate) crowded() (patience time.Duration, full bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.opening.Len() < g.limits.most {
		return 0, false
	}
	oldest := g.mu.opening.Front().Value.(*opening)
	if patience = g.limits.grace - g.clock.Now().Sub(oldest.since); patience <= 0 {
		oldest.conn.Close() // its goroutine removes it and frees what it has
		patience = g.limits.grace
	}
	return patience, true
}

// begin opens a connection in its own goroutine.
func (g *gate) begin(conn net.Conn) {
	o := &opening{conn, g.clock.Now()}
	g.mu.Lock()
	if g.mu.closed {
		g.mu.Unlock()
		conn.Close()
		<-g.places
		return
	}
	element := g.mu.opening.PushBack(o)
	g.wait.Add(1)
	g.mu.Unlock()
	go func() {
		defer g.wait.Done()
		ready, to, err := g.open(conn)
		g.mu.Lock()
		g.mu.opening.Remove(element)
		if err == nil && ready.secure != nil && len(ready.secure.PeerCertificates) > 0 {
			g.mu.secured[ready] = struct{}{}
		}
		g.mu.Unlock()
		select {
		case g.freed <- struct{}{}:
		default:
		}
		if err != nil {
			g.refuse(conn, err)
			conn.Close()
			<-g.places
			return
		}
		to.give(ready)
	}()
}

func (g *gate) closeOpening() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.closed = true
	for e := g.mu.opening.Front(); e != nil; e = e.Next() {
		e.Value.(*opening).conn.Close()
	}
}

// open brings a connection to where its server can take it.
func (g *gate) open(conn net.Conn) (*opened, *branch, error) {
	if err := errors.Join(conn.SetDeadline(g.clock.Now().Add(g.limits.timeout)), endStalled(conn, g.stall)); err != nil {
		return nil, nil, err
	}
	o := &opened{Conn: conn, gate: g, client: newClientAddr(conn.RemoteAddr())}
	to := g.only()
	if g.isSecure {
		if err := g.secure(o); err != nil {
			return nil, nil, err
		}
		switch chosen := o.secure.NegotiatedProtocol; {
		case to != nil:
		case chosen == protocolH2:
			to = g.grpc
		case chosen == protocolHTTP1:
			to = g.http
		}
	}
	// On a plain port the first bytes are looked at even if there is one
	// protocol only: they show whether it is TLS.
	if to == nil || !g.isSecure {
		first, err := sniff(o.Conn)
		if err != nil {
			return nil, nil, err
		}
		o.first = first
		switch {
		case !g.isSecure && first[0] == recordHandshake:
			return nil, nil, errTLSOnPlain
		case to != nil:
		case bytes.HasPrefix(first, []byte(preface[:prefaceMatch])):
			to = g.grpc
		default:
			to = g.http
		}
	}
	return o, to, conn.SetDeadline(time.Time{})
}

// only returns the branch of a gate with one protocol.
func (g *gate) only() *branch {
	switch {
	case g.grpc == nil:
		return g.http
	case g.http == nil:
		return g.grpc
	}
	return nil
}

// secure performs the handshake and judges the certificate, if one was asked for.
func (g *gate) secure(o *opened) error {
	cork := &cork{Conn: o.Conn, lingers: g.lingers}
	conn := tls.Server(cork, g.keys.rules.server(g.keys.fresh(), g.protocols, g.tokens))
	if err := conn.Handshake(); err != nil { // the socket has a deadline
		return err
	}
	state := conn.ConnectionState()
	o.Conn, o.cork, o.secure = conn, cork, &state
	if !g.checkSAN || len(state.PeerCertificates) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	timer := g.clock.AfterFunc(g.limits.timeout, cancel)
	defer timer.Stop()
	return checkAddress(ctx, state.PeerCertificates[0], conn.RemoteAddr())
}

// cutRevoked closes connections whose certificate has been revoked since they
// were opened.
func (g *gate) cutRevoked() {
	if !g.isSecure {
		return
	}
	revoked := g.keys.current.Load().revoked
	g.mu.Lock()
	var cut []*opened
	for o := range g.mu.secured {
		if revoked.check(o.secure) != nil {
			cut = append(cut, o)
		}
	}
	g.mu.Unlock()
	for _, o := range cut {
		g.log.Warn("closing a connection: its certificate was revoked", "listener", g.name, "remote", o.RemoteAddr().String(),
			"common-name", o.secure.PeerCertificates[0].Subject.CommonName)
		o.Conn.(*tls.Conn).NetConn().Close() // at once: TLS would wait for a writer
	}
}

// collect sends the gate's figures.
func (g *gate) collect(send func(kind prometheus.ValueType, name, help string, value float64, labels ...string)) {
	g.mu.Lock()
	opening := g.mu.opening.Len()
	g.mu.Unlock()
	address := g.Addr().String()
	send(prometheus.GaugeValue, "keelson_connections_opening", "Connections that have not yet shown who they are.", float64(opening), "listener", g.name, "address", address)
	send(prometheus.CounterValue, "keelson_connections_refused_total", "Connections that were not let in.", float64(g.refused.Load()), "listener", g.name, "address", address)
}

// sniff reads until the bytes either differ from the preface or match enough.
func sniff(conn net.Conn) ([]byte, error) {
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
	return buf[:n], nil
}

// traffic counts the bytes of connections, without TLS's share.
type traffic struct{ sent, received atomic.Uint64 }

// opened is a connection that got through a gate. It gives back the bytes that
// were looked at, and counts all bytes.
type opened struct {
	net.Conn
	gate   *gate
	first  []byte               // owned by the reader
	secure *tls.ConnectionState // nil: plain
	cork   *cork                // below TLS
	client *clientAddr
	left   atomic.Bool
}

// RemoteAddr returns what the connection's RPCs have in common.
func (c *opened) RemoteAddr() net.Addr { return c.client }

// clientAddr is the address at the other end of a connection, with what would
// else be looked up for each RPC on it.
type clientAddr struct {
	net.Addr
	host     string
	versions clientVersions
	load     clientLoad
}

func newClientAddr(a net.Addr) *clientAddr {
	c := &clientAddr{Addr: a, host: hostOf(a)}
	c.load.own.Name = a.String()
	return c
}

// hostOf is the part of an address that names a machine.
func hostOf(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.IP.String()
	}
	return a.Network()
}

func (c *opened) Read(p []byte) (n int, err error) {
	if len(c.first) > 0 {
		n = copy(p, c.first)
		c.first = c.first[n:]
	} else {
		n, err = c.Conn.Read(p)
	}
	c.gate.traffic.received.Add(uint64(n))
	return n, err
}

func (c *opened) Write(p []byte) (int, error) { return c.send(p, false) }

// WriteBatch is Write of what has been gathered: nothing will follow it at once.
func (c *opened) WriteBatch(p []byte) (int, error) { return c.send(p, true) }

func (c *opened) send(p []byte, isBatch bool) (n int, err error) {
	c.client.load.paceSending(len(p))
	defer func() { c.gate.traffic.sent.Add(uint64(n)) }()
	if c.cork == nil || isBatch && len(p) <= recordBytes || !isBatch && c.cork.alone(len(p), c.gate.clock.Now()) {
		return c.Conn.Write(p)
	}
	c.cork.hold()
	n, err = c.Conn.Write(p)
	if failed := c.cork.release(isBatch); err == nil && failed != nil {
		return 0, failed
	}
	return n, err
}

// Vectored tells package direct whether WriteBuffers saves a copy.
func (c *opened) Vectored() bool { return c.secure == nil }

// WriteBuffers is WriteBatch of several buffers.
func (c *opened) WriteBuffers(all *net.Buffers) (n int64, err error) {
	for _, b := range *all {
		c.client.load.paceSending(len(b))
	}
	defer func() { c.gate.traffic.sent.Add(uint64(n)) }()
	return all.WriteTo(c.Conn)
}

// Close gives the connection's place to another one.
func (c *opened) Close() error {
	if c.cork != nil {
		c.cork.drain(c.gate.clock.Now().Add(drainTimeout))
	}
	err := c.Conn.Close()
	if c.left.CompareAndSwap(false, true) {
		c.client.load.leave()
		c.gate.mu.Lock()
		delete(c.gate.mu.secured, c)
		c.gate.mu.Unlock()
		<-c.gate.places
	}
	return err
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

// Close implements net.Listener. The socket itself belongs to the gate.
func (b *branch) Close() error {
	if b != nil {
		b.once.Do(func() { close(b.done) })
	}
	return nil
}

// Addr implements net.Listener.
func (b *branch) Addr() net.Addr { return b.addr }

var errTLSOnPlain = errors.New("TLS on a plain port")

var _ io.Closer = (*gate)(nil)

// rememberConn gives HTTP handlers what the gate knows of a connection; net/http
// sees no TLS in it.
func rememberConn(ctx context.Context, conn net.Conn) context.Context {
	if l, ok := conn.(*lane.Conn); ok {
		ctx, conn = lane.With(ctx, l), l.Conn
	}
	o, ok := conn.(*opened)
	if !ok {
		return ctx
	}
	ctx = context.WithValue(ctx, clientKey{}, &o.client.load)
	if o.secure != nil {
		ctx = context.WithValue(ctx, tlsKey{}, o.secure)
	}
	return ctx
}

// gateCredentials tell gRPC what the gate found out: the handshake is over
// before gRPC sees a connection. RPC handlers find their client's certificate
// in the AuthInfo of peer.FromContext, which then is a credentials.TLSInfo.
type gateCredentials struct {
	credentials.TransportCredentials
}

func newGateCredentials() credentials.TransportCredentials {
	return gateCredentials{insecure.NewCredentials()}
}

// ServerHandshake implements credentials.TransportCredentials.
func (c gateCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	below := conn
	if d, ok := conn.(*direct.Conn); ok {
		below = d.Conn
	}
	o, ok := below.(*opened)
	if !ok || o.secure == nil {
		return c.TransportCredentials.ServerHandshake(conn)
	}
	return conn, credentials.TLSInfo{
		State:          *o.secure,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

// Clone implements credentials.TransportCredentials.
func (c gateCredentials) Clone() credentials.TransportCredentials { return c }
