package server

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/raft/transport"
)

// fakePeers stands in for the transport between processes.
type fakePeers struct{}

func (fakePeers) Stats() []transport.PeerStats {
	return []transport.PeerStats{{ID: otherMember, UpSince: time.Unix(1, 0), Broken: 1}}
}

// metricShape is what of a metric a dashboard relies on.
type metricShape struct{ kind, labels string }

// shown is everything that a member can show, rare things included.
func shown(t *testing.T) map[string]metricShape {
	t.Helper()
	s := newSolo(t, func(c *Config) { c.ExtensiveMetrics = true })
	ctx := callContext(t)
	if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	if _, err := pb.NewMaintenanceClient(s.conn).Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}); err != nil {
		t.Fatal(err)
	}
	m := s.metrics
	for _, sends := range []bool{true, false} {
		m.transfer(otherMember, sends)(nil)
		m.transfer(otherMember, sends)(errors.New("broken"))
	}
	m.peers.rtt.WithLabelValues(otherMember.String()).Observe(1)
	m.promotion(api.ErrLearnerNotReady)
	m.check("livez", "serializable_read", true)
	page := httptest.NewRecorder() // also counts itself
	m.page.ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	peers := prometheus.NewRegistry()
	v := s.view()
	v.peers = fakePeers{}
	peers.MustRegister(&stateMetrics{view: v, m: m})
	out := map[string]metricShape{}
	families, err := prometheus.Gatherers{m.registry}.Gather()
	if err != nil {
		t.Fatal(err)
	}
	more, err := peers.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range slices.Concat(families, more) {
		labels := map[string]bool{}
		for _, one := range f.Metric {
			for _, l := range one.Label {
				labels[l.GetName()] = true
			}
		}
		names := strings.Join(slices.Sorted(maps.Keys(labels)), ",")
		if names == "" {
			names = "-"
		}
		out[f.GetName()] = metricShape{strings.ToLower(f.GetType().String()), names}
	}
	return out
}

// listLines splits the lines of a list in testdata into n fields.
func listLines(t *testing.T, name string, n int) (out [][]string) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		f := strings.SplitN(line, " ", n)
		if len(f) != n {
			t.Fatalf("%s: %q has no %d fields", name, line, n)
		}
		out = append(out, f)
	}
	return out
}

// TestMetricsAreEtcds holds /metrics against the list of etcd's metrics, which
// compat/metrics holds against etcd itself.
func TestMetricsAreEtcds(t *testing.T) {
	have := shown(t)
	absent := map[string]bool{}
	for _, f := range listLines(t, "etcd_metrics_absent.txt", 2) {
		absent[f[0]] = true
	}
	asked := 0
	for _, f := range listLines(t, "etcd_metrics.txt", 5) {
		name, want := f[0], metricShape{f[1], f[2]}
		got, ok := have[name]
		switch {
		case !ok && !absent[name]:
			t.Errorf("%s, asked for by %s, is missing", name, f[3])
		case ok && absent[name]:
			t.Errorf("%s stands among the absent ones and is here", name)
		case ok && got != want:
			t.Errorf("%s: %v, etcd has %v", name, got, want)
		}
		if f[3] == "mixin" {
			asked++
			if absent[name] {
				t.Errorf("%s is asked for by etcd's own alerts or dashboard and must not be absent", name)
			}
		}
	}
	if asked < 20 {
		t.Errorf("only %d metrics of etcd's mixin are listed", asked)
	}
	for name := range have {
		if strings.HasPrefix(name, "etcd_") && !slices.ContainsFunc(listLines(t, "etcd_metrics.txt", 5), func(f []string) bool { return f[0] == name }) {
			t.Errorf("%s has etcd's prefix and is not a metric of etcd's: ours begin with keelson_", name)
		}
	}
}

func TestCountedLog(t *testing.T) {
	s := newSolo(t)
	m := &s.metrics.log
	for err, want := range map[error]float64{
		api.ErrTimeout: 1, context.DeadlineExceeded: 1, api.ErrPermissionDenied: 0, api.ErrLeaseNotFound: 0, errors.New("disk"): 1,
	} {
		before := figure(t, m.failed)
		s.log.mu.Lock()
		s.log.mu.fail = err
		s.log.mu.Unlock()
		s.node.Propose(context.Background(), commandPut, "", nil)
		if got := figure(t, m.failed) - before; got != want {
			t.Errorf("%v: %v failed proposals, want %v", err, got, want)
		}
	}
	s.log.mu.Lock()
	s.log.mu.fail = api.ErrTimeout
	s.log.mu.Unlock()
	s.node.ReadBarrier(context.Background())
	if slow, failed := figure(t, m.readsSlow), figure(t, m.readsFailed); slow != 1 || failed != 1 {
		t.Errorf("a barrier that timed out: %v slow, %v failed", slow, failed)
	}
}

func figure(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil || len(families) != 1 {
		t.Fatal(families, err)
	}
	one := families[0].Metric[0]
	return one.GetCounter().GetValue() + one.GetGauge().GetValue()
}

// TestClientVersions: the first RPC of a connection decides, the number of
// versions is bounded, and what is no text is refused.
func TestClientVersions(t *testing.T) {
	m := newMetrics(newSolo(t).clock)
	call := func(conn *clientAddr, version string) error {
		ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs(rpctypes.MetadataClientAPIVersionKey, version))
		if conn != nil {
			ctx = peer.NewContext(ctx, &peer.Peer{Addr: conn})
		}
		return m.countClient(ctx, unaryRPC)
	}
	conn := &clientAddr{}
	for range 3 {
		if err := call(conn, "3.7"); err != nil {
			t.Fatal(err)
		}
	}
	if err := call(nil, "3.7"); err != nil {
		t.Fatal(err)
	}
	if got := figure(t, m.rpc.requests); got != 4 {
		t.Errorf("counted %v RPCs of one version", got)
	}
	if err := call(nil, "\xff"); err != error(api.ErrInvalidClientAPIVersion) {
		t.Errorf("a version that is no text: %v", err)
	}
	for i := range 10 * maxVersionNames {
		if err := call(&clientAddr{}, strings.Repeat("x", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(m.rpc.versions.known); n != maxVersionNames {
		t.Errorf("%d versions are known", n)
	}
}

func TestCompactionIsCounted(t *testing.T) {
	m := newMetrics(newSolo(t).clock)
	m.store.compaction(mvcc.CompactionStep{Took: time.Millisecond})
	m.store.compaction(mvcc.CompactionStep{Deletes: true, Deleted: 7, Took: time.Millisecond, Done: true, Since: time.Second})
	if keys, last := figure(t, m.store.compactedKeys), figure(t, m.store.compactedLast); keys != 7 || last != 1_700_000_000 {
		t.Errorf("%v keys, last at %v", keys, last)
	}
}

// BenchmarkCountRPC is what the interceptors' figures cost an RPC.
func BenchmarkCountRPC(b *testing.B) {
	s := newSolo(b)
	m := s.metrics
	method, req := m.rpc.methods["/etcdserverpb.KV/Put"], &putRequest{}
	ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: &clientAddr{}})
	b.ReportAllocs()
	for b.Loop() {
		method.started.Inc()
		method.received.Inc()
		begin := m.clock.Now()
		if err := m.countClient(ctx, unaryRPC); err != nil {
			b.Fatal(err)
		}
		m.answered(method, req, codes.OK, m.clock.Now().Sub(begin))
	}
}
