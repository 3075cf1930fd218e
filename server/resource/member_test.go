package resource_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/server"
	"github.com/keelson-io/keelson/server/porttest"
	"github.com/keelson-io/keelson/server/resource/object"
)

// member is one member with its resource layer, as clients meet it.
type member struct {
	t   testing.TB
	url string
	hdr http.Header // of every request

	client *http.Client // nil: the usual one
}

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

func freeURL(t testing.TB) url.URL {
	t.Helper()
	port, err := porttest.Claim()
	if err != nil {
		t.Fatal(err)
	}
	return url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
}

// newMember starts a member, which ends with the test.
func newMember(t testing.TB, change ...func(*server.Config)) *member {
	t.Helper()
	var last error
	for range 5 { // another process may take a free port first
		m, err := startMember(t, change...)
		if err == nil {
			return m
		}
		last = err
	}
	t.Fatal(last)
	return nil
}

func startMember(t testing.TB, change ...func(*server.Config)) (*member, error) {
	cfg := server.DefaultConfig()
	cfg.Name, cfg.DataDir = "m0", t.TempDir()
	client, peer, objects := freeURL(t), freeURL(t), freeURL(t)
	cfg.ListenClientURLs, cfg.AdvertiseClientURLs = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerURLs, cfg.AdvertisePeerURLs = []url.URL{peer}, []url.URL{peer}
	cfg.ListenResourceURLs = []url.URL{objects}
	cfg.HeartbeatInterval, cfg.ElectionTimeout = 10*time.Millisecond, 100*time.Millisecond
	cfg.Clock, cfg.FS, cfg.Seed = clock.System(), server.WithoutSync(vfs.OS()), uint64(time.Now().UnixNano())
	cfg.UnsafeNoSync = true
	cfg.Logger = slog.New(slog.DiscardHandler)
	ready := make(chan struct{})
	cfg.OnReady = func() { close(ready) }
	for _, c := range change {
		c(&cfg)
	}
	cfg.Complete()
	s, err := server.New(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the member stopped: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		return nil, err
	case <-time.After(patience):
		t.Fatal("the member is not ready")
	}
	m := &member{t: t, url: objects.String(), hdr: http.Header{}}
	// The last of what a cluster begins with: nothing else is written from here on.
	m.eventually("the namespaces", func() bool { return m.do("GET", "/api/v1/namespaces/kube-system", nil).code != 404 })
	return m, nil
}

// answer is what a request came to.
type answer struct {
	code int
	body object.Object
	raw  []byte
	hdr  http.Header
}

func (a answer) str(path ...string) string { return object.String(a.body, path...) }
func (a answer) rv() string                { return a.str("metadata", "resourceVersion") }

// reason is a failure's.
func (a answer) reason() string { return a.str("reason") }

func (a answer) items() []string {
	var names []string
	for _, v := range object.List(a.body, "items") {
		names = append(names, object.String(v.(object.Object), "metadata", "name"))
	}
	return names
}

// typed is a body with a content type of its own.
type typed struct {
	media string
	bytes []byte
}

// do sends a request; body is nil, an object, JSON text or typed.
func (m *member) do(method, path string, body any, headers ...string) answer {
	m.t.Helper()
	resp := m.open(context.Background(), method, path, body, headers...)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	a := answer{code: resp.StatusCode, raw: raw, hdr: resp.Header}
	if o, _, err := object.Decode(raw); err == nil {
		a.body = o
	}
	return a
}

func (m *member) open(ctx context.Context, method, path string, body any, headers ...string) *http.Response {
	m.t.Helper()
	media, b := "application/json", []byte(nil)
	switch v := body.(type) {
	case nil:
	case string:
		b = []byte(v)
	case typed:
		media, b = v.media, v.bytes
	default:
		var err error
		if b, err = json.Marshal(v); err != nil {
			m.t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, m.url+path, bytes.NewReader(b))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header = m.hdr.Clone()
	req.Header.Set("Content-Type", media)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := cmp.Or(m.client, http.DefaultClient).Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	return resp
}

// must is do for a request that has to succeed.
func (m *member) must(method, path string, body any, headers ...string) answer {
	m.t.Helper()
	a := m.do(method, path, body, headers...)
	if a.code >= 300 {
		m.t.Fatalf("%s %s: %d %s", method, path, a.code, a.raw)
	}
	return a
}

// refused is do for a request that has to fail in this way.
func (m *member) refused(code int, reason, method, path string, body any, headers ...string) answer {
	m.t.Helper()
	a := m.do(method, path, body, headers...)
	if a.code != code || a.reason() != reason {
		m.t.Fatalf("%s %s: %d %s, want %d %s", method, path, a.code, a.raw, code, reason)
	}
	return a
}

func (m *member) eventually(what string, cond func() bool) {
	m.t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("not in time: %s", what)
		}
	}
}

// watching is an open watch; its events come one by one.
type watching struct {
	t      testing.TB
	events chan event
	cancel context.CancelFunc
}

type event struct {
	Type   string        `json:"type"`
	Object object.Object `json:"object"`
}

func (e event) String() string {
	if e.Type == "ERROR" {
		return fmt.Sprint("ERROR ", object.String(e.Object, "reason"))
	}
	return strings.TrimSpace(e.Type + " " + object.String(e.Object, "metadata", "name"))
}

func (m *member) watch(path string, headers ...string) *watching {
	m.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	resp := m.open(ctx, "GET", path, nil, headers...)
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		m.t.Fatalf("watch %s: %d %s", path, resp.StatusCode, b)
	}
	w := &watching{m.t, make(chan event, 1024), cancel}
	m.t.Cleanup(cancel)
	go func() {
		defer close(w.events)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 8<<20)
		for lines.Scan() {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) != nil {
				return
			}
			w.events <- e
		}
	}()
	return w
}

// expect waits for these events, in this order.
func (w *watching) expect(want ...string) (last event) {
	w.t.Helper()
	for _, s := range want {
		select {
		case e, ok := <-w.events:
			if !ok {
				w.t.Fatalf("the watch ended; wanted %s", s)
			}
			if e.String() != s {
				w.t.Fatalf("got %s, want %s", e, s)
			}
			last = e
		case <-time.After(patience):
			w.t.Fatalf("%s did not come", s)
		}
	}
	return last
}

// ends waits for the end of the watch, with nothing more in it.
func (w *watching) ends() {
	w.t.Helper()
	select {
	case e, ok := <-w.events:
		if ok {
			w.t.Fatalf("got %s, want the end", e)
		}
	case <-time.After(patience):
		w.t.Fatal("the watch did not end")
	}
}

const configmaps = "/api/v1/namespaces/default/configmaps"

func configmap(name string, labels ...string) object.Object {
	l := object.Object{}
	for i := 0; i+1 < len(labels); i += 2 {
		l[labels[i]] = labels[i+1]
	}
	return object.Object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object.Object{"name": name, "labels": l}}
}

// str2 is what is at a path, as text; true and numbers, too.
func (a answer) str2(path ...string) string { return object.Text(object.Get(a.body, path...)) }
