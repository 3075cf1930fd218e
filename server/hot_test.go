package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/clock"
)

func TestPrefixOf(t *testing.T) {
	for key, want := range map[string]string{
		"/registry/pods/default/a": "/registry/pods/", "/registry/pods/": "/registry/pods/", "/registry/pods": "/registry/",
		"a/b/c": "a/b/", "a/b": "a/", "/": "/", "": "", "\x00": "\x00", "flat-key-of-an-app": "flat-key", "short": "short", "//x/y": "//x/",
	} {
		if got := string(prefixOf([]byte(key))); got != want {
			t.Errorf("%q: %q, want %q", key, got, want)
		}
	}
}

// TestHotSpots: what is hot is found among much that is not, counted by kind, and
// forgotten after two windows.
func TestHotSpots(t *testing.T) {
	fake := clock.NewFake(time.Unix(1, 0))
	h := newHotSpots(fake, func() uint64 { return 0 })
	for i := range 10_000 {
		h.note("10.0.0.1", &putRequest{key: fmt.Appendf(nil, "/cold/%d/x", i)}, false, 1)
		if i%4 == 0 {
			h.note("10.0.0.2", &rangeRequest{key: []byte("/hot/one/key")}, false, 100)
		}
		if i%8 == 0 {
			h.note("10.0.0.3", &rangeRequest{key: []byte("/list/"), end: []byte("/list0")}, false, 0)
			h.note("10.0.0.3", watchRange{[]byte("/list/"), []byte("/list0")}, true, 0)
		}
	}
	r := h.report(3)
	if k := r.Keys[0]; k.Name != "/hot/one/key" || k.Count-k.Error > 2500*sampleEvery || k.Count < 2500*sampleEvery || k.Reads == 0 || k.Writes != 0 || k.Bytes != 100*k.Reads {
		t.Errorf("the hottest key: %+v", k)
	}
	if len(r.Keys) != 3 || r.Prefixes[0].Name != "/hot/one/" || r.Prefixes[1].Name != "/list/" || r.Prefixes[1].Watches == 0 {
		t.Errorf("prefixes: %+v", r.Prefixes)
	}
	if c := r.Clients[0]; c.Name != "10.0.0.1" || c.Count != 10_000*sampleEvery || c.Writes != c.Count || len(r.Clients) != 3 {
		t.Errorf("clients: %+v", r.Clients)
	}
	for _, e := range r.Keys {
		if strings.HasPrefix(e.Name, "/list/") {
			t.Error("a range counts as a key")
		}
	}
	fake.Advance(hotSpan)
	h.note("10.0.0.4", &putRequest{key: []byte("/new")}, false, 0)
	if r = h.report(1); r.Keys[0].Name != "/hot/one/key" || r.Seconds != 60 {
		t.Errorf("after one window: %+v", r)
	}
	fake.Advance(hotSpan)
	h.note("10.0.0.4", &putRequest{key: []byte("/new")}, false, 0)
	if r = h.report(9); len(r.Keys) != 1 || r.Keys[0].Name != "/new" || r.Keys[0].Count != 2*sampleEvery {
		t.Errorf("after two windows: %+v", r)
	}
}

// TestTransactionTouchesAKeyOnce: a compare, a read and a write of one key are
// one request for it.
func TestTransactionTouchesAKeyOnce(t *testing.T) {
	var r txnRequest
	if err := r.decode(encode(t, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("/a")}},
		Success: ops(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("/a")}}}),
		Failure: ops(rangeOp(&pb.RangeRequest{Key: []byte("/a")})),
	})); err != nil {
		t.Fatal(err)
	}
	list := touches(&r, false)
	if len(list) != 1 || list[0].reads != 1 || list[0].writes != 1 {
		t.Errorf("%+v", list)
	}
}

// TestTopEndpoint: whoever may read everything may see what is hot; nobody else.
func TestTopEndpoint(t *testing.T) {
	s := newSecured(t)
	ctx := callContext(t)
	s.Server.hot.random = func() uint64 { return 0 } // every request is looked at
	root := withToken(ctx, login(ctx, t, s.auth, "root"))
	for range 3 {
		if _, err := s.kv.Put(root, &pb.PutRequest{Key: []byte("/app/x/1")}); err != nil {
			t.Fatal(err)
		}
	}
	h := &httpEndpoints{view: s.view(), metrics: s.metrics, log: s.Server.log, timeout: s.requestTimeout(), guard: newHTTPGuard(&s.cfg, s.Server.log)}
	get := func(handler http.Handler, path, token string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		if token != "" {
			r.Header.Set("Authorization", token)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	for _, bad := range []struct {
		path, token string
		code        int
	}{
		{TopPath, "", http.StatusBadRequest}, // etcd's "user name is empty"
		{TopPath, "nonsense", http.StatusUnauthorized},
		{TopPath, login(ctx, t, s.auth, "ann"), http.StatusForbidden},
		{TopPath + "?n=0", login(ctx, t, s.auth, "root"), http.StatusBadRequest},
		{TopPath + "?n=100000", login(ctx, t, s.auth, "root"), http.StatusBadRequest},
	} {
		if w := get(h.clientHandler(), bad.path, bad.token); w.Code != bad.code {
			t.Errorf("%s as %q: %d %s", bad.path, bad.token, w.Code, w.Body)
		}
	}
	if w := get(h.metricsHandler(), TopPath, login(ctx, t, s.auth, "root")); w.Code != http.StatusNotFound {
		t.Errorf("keys are shown at the metrics URLs: %d", w.Code)
	}
	w := get(h.clientHandler(), TopPath+"?n=5", login(ctx, t, s.auth, "root"))
	var r TopReport
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if r.Member != soloMember.String() || len(r.Keys) == 0 || r.Keys[0].Name != "/app/x/1" || r.Keys[0].Writes != 3*sampleEvery ||
		r.Prefixes[0].Name != "/app/x/" || !strings.HasPrefix(r.Clients[0].Name, "root@") {
		t.Errorf("%+v", r)
	}
}

// TestSlowRequests: lines are few however many requests are slow, and hold no
// values.
func TestSlowRequests(t *testing.T) {
	var out strings.Builder
	s := newSolo(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&out, nil))
		c.WarnApplyDuration = -1 // everything is slow
	})
	ctx := callContext(t)
	for range 50 {
		if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("/a"), Value: []byte("secret")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Range(context.Background(), &rangeRequest{key: []byte("/a")}); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if n := strings.Count(text, "apply request took too long"); n != slowLines {
		t.Errorf("%d lines for 51 slow requests of one second", n)
	}
	if strings.Contains(text, "secret") || !strings.Contains(text, "request=Put") || !strings.Contains(text, "/a") {
		t.Errorf("the lines: %s", text)
	}
	if got := figure(t, s.metrics.store.slow); got != 51 {
		t.Errorf("slow_apply_total is %v", got)
	}
	out.Reset()
	s.clock.Advance(2 * time.Second)
	if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("/a")}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "unsaid=41") {
		t.Errorf("what went unsaid is not told: %s", out.String())
	}
}

// BenchmarkHeat is what the search for hot spots costs a request, on average.
func BenchmarkHeat(b *testing.B) {
	s := newSolo(b)
	ctx := context.Background()
	reqs := make([]any, 1024)
	for i := range reqs {
		reqs[i] = &putRequest{key: fmt.Appendf(nil, "/registry/pods/default/pod-%d", i*i%997)}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.heatOf(ctx, reqs[i%len(reqs)], 100)
	}
}
