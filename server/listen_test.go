package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft"
)

// eventually waits for a condition, with a deadline that only a hang reaches.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// serveFront runs a front for the stub member on free sockets.
func serveFront(t *testing.T, node consensus, change func(*Config)) (cfg *Config, f *front) {
	t.Helper()
	h := stubEndpoints(node)
	cfg = h.view.cfg
	cfg.Logger, cfg.Clock = h.log, clock.System()
	cfg.ListenPeerURLs, _ = ParseURLs("http://127.0.0.1:0")
	cfg.ListenClientURLs, _ = ParseURLs("http://127.0.0.1:0")
	change(cfg)
	sockets, err := bind(cfg)
	if err != nil {
		t.Fatal(err)
	}
	security, err := openSecurity(cfg)
	if err != nil {
		t.Fatal(err)
	}
	sockets.arm(security)
	h.metrics.registry.MustRegister(tlsMetrics{security})
	h.guard = newHTTPGuard(cfg, h.log)
	g := grpc.NewServer(grpcOptions(cfg, &interceptors{
		cfg: cfg, metrics: h.metrics, node: node, load: newOverload(cfg, nil),
		admit: func(context.Context, string, any) error { return nil },
		ended: func(context.Context, string, any, any, error, time.Duration) {},
	})...)
	pb.RegisterMaintenanceServer(g, &maintenanceService{view: h.view})
	h.metrics.countMethods(g, true)
	f = &front{cfg: cfg, sockets: sockets, grpc: g, http: h, metrics: h.metrics, log: h.log}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	close(ready)
	go func() { done <- f.Run(ctx, ready) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("front: %v", err)
		}
		sockets.Close()
	})
	return cfg, f
}

func addrOf(l net.Listener) string { return l.Addr().String() }

func getHTTP(t *testing.T, network, addr, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		},
	}}
	resp, err := client.Get("http://member" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func askStatus(t *testing.T, target string, pairs ...string) (*pb.StatusResponse, error) {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), pairs...), time.Minute)
	defer cancel()
	return pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{}, grpc.WaitForReady(true))
}

func TestClientPortServesBothProtocols(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	_, f := serveFront(t, newStubNode(healthyStatus), func(c *Config) {
		c.ListenClientURLs, _ = ParseURLs("http://127.0.0.1:0,unix://" + socket)
		c.ListenMetricsURLs, _ = ParseURLs("http://127.0.0.1:0")
	})
	for _, l := range f.sockets.client {
		network, target := "tcp", addrOf(l)
		if l.Addr().Network() == "unix" {
			network, target = "unix", "unix:"+socket
		}
		if code, body := getHTTP(t, network, addrOf(l), "/health"); code != 200 || body != `{"health":"true","reason":""}` {
			t.Errorf("%s: HTTP: %d %q", target, code, body)
		}
		if resp, err := askStatus(t, target); err != nil || resp.Version != apiVersion {
			t.Errorf("%s: gRPC: %v, %v", target, resp, err)
		}
	}
	if code, _ := getHTTP(t, "tcp", addrOf(f.sockets.metrics[0]), "/metrics"); code != 200 {
		t.Errorf("metrics: %d", code)
	}
	if f.metrics.traffic.received.Load() == 0 || f.metrics.traffic.sent.Load() == 0 {
		t.Error("traffic is not counted")
	}
}

func TestHTTPOnItsOwnURLs(t *testing.T) {
	_, f := serveFront(t, newStubNode(healthyStatus), func(c *Config) {
		c.ListenClientHTTPURLs, _ = ParseURLs("http://127.0.0.1:0")
	})
	if code, _ := getHTTP(t, "tcp", addrOf(f.sockets.http[0]), "/health"); code != 200 {
		t.Errorf("HTTP on its own URL: %d", code)
	}
	if _, err := askStatus(t, addrOf(f.sockets.client[0])); err != nil {
		t.Errorf("gRPC: %v", err)
	}
	client := http.Client{Timeout: 10 * time.Second}
	if resp, err := client.Get("http://" + addrOf(f.sockets.client[0]) + "/health"); err == nil {
		resp.Body.Close()
		t.Errorf("HTTP is still served on the client URL: %s", resp.Status)
	}
}

// TestNoiseOnTheClientPort sends what no client sends. The member must go on
// serving, and every noisy connection must end.
func TestNoiseOnTheClientPort(t *testing.T) {
	_, f := serveFront(t, newStubNode(healthyStatus), func(*Config) {})
	addr := addrOf(f.sockets.client[0])
	rng := rand.New(rand.NewPCG(1, 2))
	noise := []string{"", "P", "PR", "PRI", "PRI ", preface, preface[:20] + "garbage", "GET", "GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"}
	for range 200 {
		b := make([]byte, rng.IntN(300))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		noise = append(noise, string(b), preface+string(b), preface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"+string(b))
	}
	var wait sync.WaitGroup
	limit := make(chan struct{}, 50)
	for _, n := range noise {
		limit <- struct{}{}
		wait.Go(func() {
			defer func() { <-limit }()
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, n)
			conn.(*net.TCPConn).CloseWrite()
			conn.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection that sent %q was left open", n)
			}
		})
	}
	wait.Wait()
	if _, err := askStatus(t, addr); err != nil {
		t.Errorf("after the noise: %v", err)
	}
	if code, _ := getHTTP(t, "tcp", addr, "/health"); code != 200 {
		t.Errorf("after the noise: %d", code)
	}
}

// TestSlowFirstBytes sends a request byte by byte: the splitter must give back
// each byte it looked at.
func TestSlowFirstBytes(t *testing.T) {
	_, f := serveFront(t, newStubNode(healthyStatus), func(*Config) {})
	conn, err := net.Dial("tcp", addrOf(f.sockets.client[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, b := range []byte("GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") {
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 200") {
		t.Errorf("got %q, %v", line, err)
	}
}

func TestSilentConnectionsEndWithTheFront(t *testing.T) {
	h := stubEndpoints(newStubNode(healthyStatus))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(l, "client", h.metrics.clock, h.log)
	done := make(chan error, 1)
	go func() { done <- g.Run() }()
	conn, err := net.Dial("tcp", addrOf(l))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, "the gate has the connection", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.mu.opening.Len() == 1
	})
	g.Close()
	if err := <-done; err != nil {
		t.Errorf("gate: %v", err)
	}
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the silent connection is still open: %v", err)
	}
	if _, err := g.grpc.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a branch outlives its gate: %v", err)
	}
}

func TestHasLeaderMetadata(t *testing.T) {
	node := newStubNode(raft.Status{ID: 1})
	_, f := serveFront(t, node, func(*Config) {})
	addr := addrOf(f.sockets.client[0])
	if _, err := askStatus(t, addr); err != nil {
		t.Errorf("without hasleader: %v", err)
	}
	_, err := askStatus(t, addr, "hasleader", "true")
	if status.Code(err) != codes.Unavailable || status.Convert(err).Message() != api.ErrNoLeader.Text {
		t.Errorf("with hasleader: %v", err)
	}
	node.set(healthyStatus, nil)
	if _, err := askStatus(t, addr, "hasleader", "true"); err != nil {
		t.Errorf("with a leader: %v", err)
	}
}

func TestBindRefusals(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{"http://" + addrOf(taken), "unix://" + file} {
		cfg := DefaultConfig()
		cfg.ListenPeerURLs, _ = ParseURLs("http://127.0.0.1:0")
		cfg.ListenClientURLs, _ = ParseURLs(raw)
		if _, err := bind(&cfg); !errors.Is(err, ErrListen) || !strings.Contains(fmt.Sprint(err), "--listen-client-urls") {
			t.Errorf("%s: %v", raw, err)
		}
	}
	for raw, ok := range map[string]bool{
		"http://127.0.0.1:1": true, "http://[::1]:1": true, "http://localhost:1": true, "http://0.0.0.0:1": true, "unix:///a": true,
		"https://127.0.0.1:1": true, "unixs:///a": true, "http://example.com:1": false, "https://example.com:1": false,
	} {
		urls, err := ParseURLs(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkBind(urls[0]); (err == nil) != ok {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	urls, err := ParseURLs("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	first, err := listenOn(kernel{}, urls[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenOn(kernel{}, urls[0]); err == nil {
		t.Error("a socket that answers was taken over")
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false) // as after a kill
	first.Close()
	second, err := listenOn(kernel{}, urls[0])
	if err != nil {
		t.Fatalf("a stale socket stands in the way: %v", err)
	}
	second.Close()
}

func TestSameEndpoints(t *testing.T) {
	for _, c := range []struct {
		a, b []string
		want bool
	}{
		{[]string{"http://a.invalid:1", "http://127.0.0.1:2"}, []string{"http://127.0.0.1:2", "http://a.invalid:1"}, true},
		{[]string{"http://127.0.0.1:1"}, []string{"http://127.0.0.1:2"}, false},
		{[]string{"http://127.0.0.1:1"}, []string{"http://127.0.0.1:1", "http://127.0.0.1:2"}, false},
		{[]string{"http://localhost:1"}, []string{"http://127.0.0.1:1"}, true},
	} {
		if got := sameEndpoints(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %v", c.a, c.b, got)
		}
	}
}

// TestWriteBuffers: buffers arrive in order and are counted, and only a connection without TLS
// asks for them.
func TestWriteBuffers(t *testing.T) {
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	o := &opened{Conn: near, gate: &gate{traffic: &traffic{}}, client: newClientAddr(near.RemoteAddr())}
	got := make(chan string, 1)
	go func() {
		b := make([]byte, 11)
		n, _ := io.ReadFull(far, b)
		got <- string(b[:n])
	}()
	n, err := o.WriteBuffers(&net.Buffers{[]byte("one "), []byte("two "), []byte("six")})
	if text := <-got; err != nil || n != 11 || text != "one two six" || o.gate.traffic.sent.Load() != 11 {
		t.Errorf("%d bytes (%v), %q came, %d are counted", n, err, text, o.gate.traffic.sent.Load())
	}
	if !o.Vectored() || (&opened{secure: &tls.ConnectionState{}}).Vectored() {
		t.Error("without TLS and with it:", o.Vectored())
	}
}
