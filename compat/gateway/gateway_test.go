package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-io/keelson/compat/cluster"
)

func storeName() string {
	if v := os.Getenv("STORE"); v != "" {
		return v
	}
	return "kvd"
}

func start(t *testing.T, name string, members int) *cluster.Cluster {
	t.Helper()
	return startWith(t, name, cluster.Options{Members: members})
}

func startWith(t *testing.T, name string, opt cluster.Options) *cluster.Cluster {
	t.Helper()
	sys, err := cluster.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	opt.Dir, opt.NoSync = t.TempDir(), true
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, sys, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// request is one HTTP request; lines says how many lines of a stream to read.
type request struct {
	method, path, body string
	lines              int
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func post(path, format string, args ...any) request {
	return request{method: http.MethodPost, path: path, body: fmt.Sprintf(format, args...)}
}

func stream(path string, lines int, format string, args ...any) request {
	r := post(path, format, args...)
	r.lines = lines
	return r
}

var requests = []request{
	post("/v3/kv/put", `{"key":"%s","value":"%s"}`, b64("foo"), b64("bar")),
	post("/v3/kv/put", `{"key":"%s","value":"%s","prev_kv":true}`, b64("foo"), b64("baz")),
	post("/v3/kv/range", `{"key":"%s"}`, b64("foo")),
	post("/v3/kv/range", `{"key":"%s","range_end":"%s","sort_order":"DESCEND","sort_target":"MOD"}`, b64("\x00"), b64("\x00")),
	post("/v3/kv/range", `{"key":"%s","count_only":true,"serializable":true,"no_such_field":1}`, b64("foo")),
	post("/v3/kv/range", `{"key":"%s","revision":"99"}`, b64("foo")),
	post("/v3beta/kv/range", `{"key":"%s"}`, b64("foo")),
	post("/v3/kv/range", ``),
	post("/v3/kv/range", `{`),
	post("/v3/kv/range", `{"key":5}`),
	post("/v3/kv/range", `[]`),
	post("/v3/kv/put", `{"key":"%s","lease":"77"}`, b64("foo")),
	post("/v3/kv/txn", `{"compare":[{"result":"EQUAL","target":"VERSION","key":"%[1]s","version":"2"}],
		"success":[{"request_put":{"key":"%[1]s","value":"%[2]s"}},{"request_range":{"key":"%[1]s"}}],
		"failure":[{"request_delete_range":{"key":"%[1]s"}}]}`, b64("foo"), b64("txn")),
	post("/v3/kv/txn", `{"success":[{"requestPut":{"key":"%[1]s"}},{"requestPut":{"key":"%[1]s"}}]}`, b64("foo")),
	post("/v3/kv/deleterange", `{"key":"%s","prev_kv":true}`, b64("foo")),
	post("/v3/kv/compaction", `{"revision":"3","physical":true}`),
	post("/v3/kv/range", `{"key":"%s","revision":"2"}`, b64("foo")),
	post("/v3/lease/grant", `{"ID":"7","TTL":"600"}`),
	post("/v3/lease/grant", `{"ID":"7","TTL":"600"}`),
	post("/v3/lease/timetolive", `{"ID":"8"}`),
	post("/v3/lease/leases", `{}`),
	stream("/v3/lease/keepalive", 1, `{"ID":"7"}`),
	stream("/v3/lease/keepalive", 1, `{"ID":"9"}`),
	post("/v3/kv/put", `{"key":"%s","value":"%s"}`, b64("w"), b64("one")),
	stream("/v3/watch", 2, `{"create_request":{"key":"%s","start_revision":"4"}}`, b64("w")),
	stream("/v3/watch", 2, `{"create_request":{"key":"%s","start_revision":"2"}}`, b64("w")),
	post("/v3/lock/lock", `{"name":"%s","lease":"7"}`, b64("lock")),
	post("/v3/lock/lock", `{"name":"%s","lease":"7"}`, b64("lock")),
	post("/v3/lock/lock", `{"name":"%s","lease":"99"}`, b64("lock")),
	post("/v3/lock/unlock", `{"key":"%s"}`, b64("lock/7")),
	post("/v3/lock/unlock", `{}`),
	post("/v3/election/leader", `{"name":"%s"}`, b64("e")),
	post("/v3/election/campaign", `{"name":"%s","lease":"7","value":"%s"}`, b64("e"), b64("me")),
	post("/v3/election/campaign", `{"name":"%s","lease":"7","value":"%s"}`, b64("e"), b64("you")),
	post("/v3/election/leader", `{"name":"%s"}`, b64("e")),
	stream("/v3/election/observe", 1, `{"name":"%s"}`, b64("e")),
	post("/v3/election/proclaim", `{"leader":{"name":"%s","key":"%s","rev":"1","lease":"7"},"value":"%s"}`, b64("e"), b64("e/7"), b64("x")),
	post("/v3/election/proclaim", `{"value":"eA=="}`),
	post("/v3/election/resign", `{}`),
	post("/v3/election/resign", `{"leader":{"name":"%s","key":"%s","rev":"1","lease":"7"}}`, b64("e"), b64("e/7")),
	post("/v3/lease/revoke", `{"ID":"7"}`),
	post("/v3/lease/revoke", `{"ID":"7"}`),
	post("/v3/kv/lease/revoke", `{"ID":"7"}`),
	post("/v3/cluster/member/list", `{}`),
	post("/v3/nothing", `{}`),
	post("/v3/", `{}`),
	{method: http.MethodGet, path: "/v3/kv/range"},
	{method: http.MethodPut, path: "/v3/kv/put", body: "{}"},
	{method: http.MethodDelete, path: "/v3/lock/lock"},
	{method: http.MethodOptions, path: "/v3/kv/put"},
}

// answer is what of a response is compared.
type answer struct {
	Code   int
	Header map[string]string
	Body   string
}

// masks hide what differs from cluster to cluster.
var masks = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`"(cluster_id|member_id|raft_term|ID)":"\d{6,}"`), `"$1":"*"`},
	{regexp.MustCompile(`"raft_term":"\d+"`), `"raft_term":"*"`},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "host"},
	{regexp.MustCompile(`,"token":"\d+"`), ""},
}

func (q request) send(t *testing.T, base string) answer {
	t.Helper()
	return q.sendBy(t, http.DefaultClient, base, "")
}

// sendBy is send by a client of its own, with the token of a login if there is one.
func (q request) sendBy(t *testing.T, client *http.Client, base, token string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, q.method, base+q.path, strings.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	r.Header.Set("Accept", "*/*") // as curl does; see TestNobodyWithoutAccept
	resp, err := client.Do(r)
	if err != nil {
		t.Fatalf("%s %s %s: %v", q.method, q.path, q.body, err)
	}
	defer resp.Body.Close()
	a := answer{Code: resp.StatusCode, Header: map[string]string{}}
	for _, name := range []string{"Content-Type", "Grpc-Metadata-Content-Type", "Allow"} {
		a.Header[name] = resp.Header.Get(name)
	}
	if q.lines == 0 || resp.StatusCode != http.StatusOK {
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		a.Body = plain(b)
		return a
	}
	d := json.NewDecoder(resp.Body)
	for range q.lines {
		var m json.RawMessage
		if err := d.Decode(&m); err != nil {
			a.Body += "end: " + err.Error()
			break
		}
		a.Body += plain(m) + "\n"
	}
	return a
}

// plain removes the spaces that protojson scatters on purpose, and masks.
func plain(b []byte) string {
	var out bytes.Buffer
	if json.Compact(&out, b) != nil {
		return string(b)
	}
	s := out.String()
	for _, m := range masks {
		s = m.pattern.ReplaceAllString(s, m.by)
	}
	return s
}

// TestSameAnswers plays the requests against both.
func TestSameAnswers(t *testing.T) {
	left, right := start(t, "etcd", 1), start(t, storeName(), 1)
	for _, q := range requests {
		same(t, q, q.send(t, left.Members[0].ClientURL()), q.send(t, right.Members[0].ClientURL()))
	}
}

func same(t *testing.T, q request, want, got answer) {
	t.Helper()
	// Words of the JSON library's errors are shuffled between builds.
	want.Body, got.Body = strings.ReplaceAll(want.Body, "\u00a0", " "), strings.ReplaceAll(got.Body, "\u00a0", " ")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s %s %s (-etcd +%s)\n%s", q.method, q.path, q.body, storeName(), diff)
	}
}
