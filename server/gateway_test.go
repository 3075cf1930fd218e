package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

// web is a member's HTTP side, guard and all.
type web struct {
	t *testing.T
	*solo
	url string
}

func newWeb(t *testing.T, change ...func(*Config)) *web {
	t.Helper()
	s := newSolo(t, change...)
	g := s.services()
	h := &httpEndpoints{view: s.view(), metrics: s.metrics, log: s.Server.log, timeout: s.requestTimeout(),
		gateway: newGateway(g, clock.System(), time.Second)}
	server := httptest.NewServer(newHTTPGuard(&s.cfg, s.Server.log).wrap(h.clientHandler()))
	t.Cleanup(func() {
		server.CloseClientConnections()
		g.Stop()
		server.Close()
	})
	return &web{t, s, server.URL}
}

func (w *web) post(path, body string) (int, string) {
	w.t.Helper()
	return w.send(http.MethodPost, path, strings.NewReader(body))
}

func (w *web) send(method, path string, body io.Reader) (int, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(callContext(w.t), method, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

const headerJSON = `"header":{"cluster_id":"34","member_id":"17","revision":"%d","raft_term":"1"}`

func squeezed(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestGatewayUnary(t *testing.T) {
	w := newWeb(t)
	for _, c := range []struct {
		path, body string
		code       int
		want       string // {H n} stands for the header of revision n
	}{
		{"/v3/kv/put", `{"key":"Zm9v","value":"YmFy"}`, 200, `{` + fmt.Sprintf(headerJSON, 2) + `}`},
		{"/v3beta/kv/range", `{"key":"Zm9v"}`, 200, `{"count":"1",` + fmt.Sprintf(headerJSON, 2) +
			`,"kvs":[{"create_revision":"2","key":"Zm9v","mod_revision":"2","value":"YmFy","version":"1"}]}`},
		{"/v3/kv/txn", `{"compare":[{"key":"Zm9v","target":"CREATE","create_revision":"2"}],"success":[{"request_put":{"key":"Zm9v","value":"eA=="}}]}`, 200,
			`{` + fmt.Sprintf(headerJSON, 3) + `,"responses":[{"response_put":{"header":{"revision":"3"}}}],"succeeded":true}`},
		{"/v3/lease/grant", `{"ID":"7","TTL":"60"}`, 200, `{"ID":"7","TTL":"60",` + fmt.Sprintf(headerJSON, 3) + `}`},
		{"/v3/lock/lock", `{"name":"bA==","lease":"7"}`, 200, `{` + fmt.Sprintf(headerJSON, 4) + `,"key":"bC83","token":"4"}`},
		{"/v3/election/leader", `{"name":"bA=="}`, 200, `{` + fmt.Sprintf(headerJSON, 4) +
			`,"kv":{"create_revision":"4","key":"bC83","lease":"7","mod_revision":"4","version":"1"}}`},
		{"/v3/election/leader", `{"name":"eA=="}`, 500, `{"code":2,"message":"election: no leader"}`},
		{"/v3/kv/put", `{}`, 400, `{"code":3,"message":"etcdserver: key is not provided"}`},
		{"/v3/nothing", `{}`, 404, `{"code":5,"message":"Not Found"}`},
	} {
		code, body := w.post(c.path, c.body)
		if want := squeezed(t, c.want); code != c.code || squeezed(t, body) != want {
			t.Errorf("%s %s: %d %s\nwant %d %s", c.path, c.body, code, body, c.code, want)
		}
	}
	if code, _ := w.post("/v3/kv/put", "{"); code != http.StatusBadRequest {
		t.Error("half a body:", code)
	}
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		if code, _ := w.send(method, "/v3/kv/put", nil); code != http.StatusMethodNotAllowed && code != http.StatusNotImplemented {
			t.Error(method, code)
		}
	}
}

// TestGatewayBodies: the largest request fits, however JSON blows it up; more
// is refused before it is read to the end.
func TestGatewayBodies(t *testing.T) {
	w := newWeb(t)
	value := make([]byte, api.DefaultMaxRequestBytes-100)
	if code, body := w.post("/v3/kv/put", `{"key":"Zm9v","value":"`+base64.StdEncoding.EncodeToString(value)+`"}`); code != 200 {
		t.Error(code, body)
	}
	value = make([]byte, api.DefaultMaxRequestBytes+1)
	if code, body := w.post("/v3/kv/put", `{"key":"Zm9v","value":"`+base64.StdEncoding.EncodeToString(value)+`"}`); code != 400 || !strings.Contains(body, "too large") {
		t.Error(code, body)
	}
	for _, path := range []string{"/v3/kv/put", "/v3/lock/lock"} {
		if code, _ := w.post(path, strings.Repeat(" ", 1<<22+1)); code != http.StatusRequestEntityTooLarge {
			t.Error(path, code)
		}
	}
	// Amplified in memory, refused by its number of operations.
	if code, body := w.post("/v3/kv/txn", `{"success":[{}`+strings.Repeat(",{}", 1<<18)+`]}`); code != 400 {
		t.Error(code, body)
	}
}

func (w *web) stream(ctx context.Context, path string, body io.Reader) *bufio.Reader {
	w.t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { resp.Body.Close() })
	return bufio.NewReader(resp.Body)
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	text, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return squeezed(t, text)
}

// TestGatewayStreams: a watch whose body is over, one that goes on, keep-alive,
// observe.
func TestGatewayStreams(t *testing.T) {
	w := newWeb(t)
	ctx, cancel := context.WithCancel(callContext(t))
	defer cancel()
	watch := w.stream(ctx, "/v3/watch", strings.NewReader(`{"create_request":{"key":"Zm9v"}}`))
	if got := line(t, watch); !strings.Contains(got, `"created":true`) {
		t.Fatal(got)
	}
	in, out := io.Pipe()
	defer out.Close()
	go io.WriteString(out, `{"create_request":{"key":"Zm9v"}}`)
	open := w.stream(ctx, "/v3/watch", in)
	if got := line(t, open); !strings.Contains(got, `"created":true`) {
		t.Fatal(got)
	}
	w.post("/v3/kv/put", `{"key":"Zm9v","value":"YmFy"}`)
	for _, r := range []*bufio.Reader{watch, open} {
		if got := line(t, r); !strings.Contains(got, `"key":"Zm9v"`) {
			t.Fatal(got)
		}
	}
	if _, err := io.WriteString(out, `{"cancel_request":{"watch_id":"0"}}`); err != nil {
		t.Fatal(err)
	}
	if got := line(t, open); !strings.Contains(got, `"canceled":true`) {
		t.Fatal(got)
	}
	w.post("/v3/lease/grant", `{"ID":"7","TTL":"60"}`)
	if got := line(t, w.stream(ctx, "/v3/lease/keepalive", strings.NewReader(`{"ID":"7"}`))); !strings.Contains(got, `"TTL":"60"`) {
		t.Fatal(got)
	}
	w.post("/v3/election/campaign", `{"name":"ZQ==","lease":"7","value":"dg=="}`)
	if got := line(t, w.stream(ctx, "/v3/election/observe", strings.NewReader(`{"name":"ZQ=="}`))); !strings.Contains(got, `"value":"dg=="`) {
		t.Fatal(got)
	}
}

// TestGatewayLeaves: an HTTP client that hangs up ends its RPC.
func TestGatewayLeaves(t *testing.T) {
	w := newWeb(t)
	r := recipes{t, w.solo}
	if _, _, err := r.lock(callContext(t), "l", r.grant(1)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(callContext(t))
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/v3/lock/lock", strings.NewReader(`{"name":"bA=="}`))
	done := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	r.queued("l/", 2)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	r.queued("l/", 1)
}

// whoServer tells who called.
type whoServer struct {
	pb.UnimplementedKVServer
	peer *peer.Peer
	md   metadata.MD
}

func (w *whoServer) Range(ctx context.Context, _ *pb.RangeRequest) (*pb.RangeResponse, error) {
	w.peer, _ = peer.FromContext(ctx)
	w.md, _ = metadata.FromIncomingContext(ctx)
	return &pb.RangeResponse{}, nil
}

// TestGatewayIdentity (GHSA-h6xx-pmxh-3wgp): an RPC through the gateway has the
// HTTP client's certificate, or none, whatever headers say, and its token.
func TestGatewayIdentity(t *testing.T) {
	g := grpc.NewServer()
	defer g.Stop()
	who := &whoServer{}
	pb.RegisterKVServer(g, who)
	w := newGateway(g, clock.System(), time.Second)
	ask := func(state *tls.ConnectionState, headers ...string) {
		t.Helper()
		r := httptest.NewRequest(http.MethodPost, "/v3/kv/range", strings.NewReader(`{"key":"Zm9v"}`))
		r.TLS, r.RemoteAddr = state, "192.0.2.1:99"
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		if rec.Code != 200 || who.peer.Addr.String() != "192.0.2.1:99" {
			t.Fatal(rec.Code, rec.Body, who.peer)
		}
	}
	ask(nil, "Authorization", "token", "Grpc-Metadata-Content-Type", "text/plain", "X-Client-Cn", "root")
	if who.peer.AuthInfo != nil {
		t.Error("a plain caller got an identity:", who.peer.AuthInfo)
	}
	if got := who.md.Get("authorization"); len(got) != 1 || got[0] != "token" {
		t.Error("the token was lost:", who.md)
	}
	alice := &x509.Certificate{Subject: pkix.Name{CommonName: "alice"}}
	ask(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{alice}, VerifiedChains: [][]*x509.Certificate{{alice}}})
	info, ok := who.peer.AuthInfo.(credentials.TLSInfo)
	if !ok || info.State.VerifiedChains[0][0] != alice {
		t.Error("the certificate was lost:", who.peer.AuthInfo)
	}
	ask(nil)
	if who.peer.AuthInfo != nil || len(who.md.Get("authorization")) != 0 {
		t.Error("one caller got another's identity")
	}
}

// TestGatewayBudget: no more is lent than there is, in order, and all of it
// comes back.
func TestGatewayBudget(t *testing.T) {
	fake := clock.NewFake(time.Unix(0, 0))
	b := newBudget(10, fake, time.Second)
	ctx := context.Background()
	if err := b.take(ctx, 8); err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() { got <- b.take(ctx, 9) }()
	waiting := func(n int) func() bool {
		return func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.mu.waiting.Len() == n
		}
	}
	waitFor(t, "the first in the queue", waiting(1))
	go func() { got <- b.take(ctx, 1) }() // would fit, but it is not its turn
	waitFor(t, "the second in the queue", waiting(2))
	fake.Advance(time.Second)
	for range 2 {
		if err := <-got; err != nil && !errors.Is(err, api.ErrTooManyRequests) {
			t.Fatal(err)
		}
	}
	c := &caller{budget: newBudget(10, fake, time.Second)}
	if err := c.hold(ctx, 99); err != nil { // more than there is: all of it
		t.Fatal(err)
	}
	if err := c.hold(ctx, 3); err != nil {
		t.Fatal(err)
	}
	c.release()
	if err := c.hold(ctx, 3); err == nil || c.budget.mu.free != 10 {
		t.Error("a request that is over holds something:", err, c.budget.mu.free)
	}
}
