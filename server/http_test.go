package server

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft"
)

// stubNode is a member's consensus that says what a test wants.
type stubNode struct {
	mu struct {
		sync.Mutex
		status  raft.Status
		barrier error
		changed chan struct{}
	}
}

func newStubNode(status raft.Status) *stubNode {
	n := &stubNode{}
	n.mu.status, n.mu.changed = status, make(chan struct{})
	return n
}

func (n *stubNode) Status() raft.Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.status
}

func (n *stubNode) ReadBarrier(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.barrier
}

func (n *stubNode) LeaderChanges() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.changed
}

func (n *stubNode) set(status raft.Status, barrier error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.status, n.mu.barrier = status, barrier
	close(n.mu.changed)
	n.mu.changed = make(chan struct{})
}

type stubStore struct{}

func (stubStore) WatchStats() mvcc.HubStats     { return mvcc.HubStats{} }
func (stubStore) Revision() api.Revision        { return 7 }
func (stubStore) CompactRevision() api.Revision { return -1 }
func (stubStore) Stats() mvcc.Stats {
	return mvcc.Stats{Keys: 3, Engine: engine.Stats{Allocated: 4096, InUse: 1024}}
}

// healthyStatus is member 1 of a cluster that it leads.
var healthyStatus = raft.Status{ID: 1, Leader: 1, Role: raft.Leader, Term: 2, Committed: 9, Applied: 8}

func stubView(node consensus) *view {
	cfg := DefaultConfig()
	return &view{
		cfg: &cfg, id: 1, cluster: 5, node: node, store: func() storeState { return stubStore{} },
		members: newMembers([]Member{{ID: 1, Name: "a", PeerURLs: []string{"http://127.0.0.1:1"}}, {ID: 2, PeerURLs: []string{"http://127.0.0.1:2"}}}),
	}
}

func stubEndpoints(node consensus) *httpEndpoints {
	v := stubView(node)
	m := newMetrics(clock.System())
	m.observe(v)
	return &httpEndpoints{view: v, metrics: m, log: slog.New(slog.NewTextHandler(io.Discard, nil)), timeout: v.cfg.requestTimeout()}
}

// TestHTTPBodies holds the answers equal to those of etcd 3.7, byte for byte.
func TestHTTPBodies(t *testing.T) {
	noLeader := healthyStatus
	noLeader.Leader = 0
	learner := healthyStatus
	learner.Learner = true
	type answer struct {
		path string
		code int
		body string
	}
	for _, c := range []struct {
		name    string
		status  raft.Status
		barrier error
		want    []answer
	}{
		{"healthy", healthyStatus, nil, []answer{
			{"/health", 200, `{"health":"true","reason":""}`},
			{"/health?serializable=true", 200, `{"health":"true","reason":""}`},
			{"/livez", 200, "ok\n"},
			{"/livez?verbose", 200, "[+]serializable_read ok\nok\n"},
			{"/livez/serializable_read", 200, "ok\n"},
			{"/readyz", 200, "ok\n"},
			{"/readyz?verbose&exclude=non_learner&exclude=none", 200, "[+]data_corruption ok\n[+]linearizable_read ok\n[+]serializable_read ok\nok\n"},
			{"/readyz/linearizable_read?verbose", 200, "[+]linearizable_read ok\nok\n"},
			{"/version", 200, `{"etcdserver":"3.7.3","etcdcluster":"3.7.0","storage":"3.7.0"}`},
			{"/nothing", 404, "404 page not found\n"},
			{"/debug/pprof/", 404, "404 page not found\n"},
		}},
		{"no leader", noLeader, api.ErrNoLeader, []answer{
			{"/health", 503, `{"health":"false","reason":"RAFT NO LEADER"}` + "\n"},
			{"/health?serializable=true", 200, `{"health":"true","reason":""}`},
			{"/livez", 200, "ok\n"},
			{"/readyz", 503, "[+]data_corruption ok\n[-]linearizable_read failed: etcdserver: no leader\n[+]non_learner ok\n[+]serializable_read ok\n\n"},
			{"/readyz?exclude=linearizable_read", 200, "ok\n"},
		}},
		{"no quorum", healthyStatus, api.ErrTimeout, []answer{
			{"/health", 503, `{"health":"false","reason":"RANGE ERROR:etcdserver: request timed out"}` + "\n"},
		}},
		{"learner", learner, nil, []answer{
			{"/readyz/non_learner", 503, "[-]non_learner failed: not supported for learner\n\n"},
		}},
	} {
		node := newStubNode(c.status)
		node.set(c.status, c.barrier)
		handler := stubEndpoints(node).clientHandler()
		for _, want := range c.want {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, want.path, nil))
			if w.Code != want.code || w.Body.String() != want.body {
				t.Errorf("%s: %s: got %d %q, want %d %q", c.name, want.path, w.Code, w.Body, want.code, want.body)
			}
		}
		for _, path := range []string{"/health", "/livez", "/readyz", "/version"} {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
			if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET" || w.Body.String() != "Method Not Allowed\n" {
				t.Errorf("POST %s: %d %q", path, w.Code, w.Body)
			}
		}
	}
}

func TestMetricsHandlerServesNoData(t *testing.T) {
	handler := stubEndpoints(newStubNode(healthyStatus)).metricsHandler()
	for path, code := range map[string]int{"/metrics": 200, "/health": 200, "/livez": 200, "/readyz": 200, "/version": 404} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != code {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// etcdNames are what etcd's own dashboard and alerts ask for, as far as it
// exists here.
var etcdNames = []string{
	"etcd_server_has_leader 1", "etcd_server_is_leader 1", "etcd_server_leader_changes_seen_total 0",
	"etcd_server_proposals_committed_total 9", "etcd_server_proposals_applied_total 8", "etcd_server_proposals_pending 0",
	"etcd_server_proposals_failed_total 0", "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 0",
	"etcd_disk_backend_commit_duration_seconds_count 0", "etcd_mvcc_db_total_size_in_bytes 4096",
	"etcd_mvcc_db_total_size_in_use_in_bytes 1024", "etcd_network_client_grpc_received_bytes_total 0",
	"etcd_network_client_grpc_sent_bytes_total 0", "etcd_debugging_mvcc_keys_total 3", "etcd_server_quota_backend_bytes 2.147483648e+09",
	"etcd_server_version{server_version=\"3.7.3\"} 1", "etcd_server_id{server_id=\"1\"} 1", "etcd_cluster_version{cluster_version=\"3.7\"} 1",
	"etcd_network_known_peers{Local=\"1\",Remote=\"2\"} 1", "etcd_debugging_mvcc_compact_revision 0", "process_resident_memory_bytes", "go_goroutines",
	"grpc_server_started_total{grpc_method=\"Status\",grpc_service=\"etcdserverpb.Maintenance\",grpc_type=\"unary\"} 0",
	"grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Snapshot\",grpc_service=\"etcdserverpb.Maintenance\",grpc_type=\"server_stream\"} 0",
}

func TestMetricsHaveEtcdsNames(t *testing.T) {
	h := stubEndpoints(newStubNode(healthyStatus))
	g := grpc.NewServer()
	pb.RegisterMaintenanceServer(g, &maintenanceService{view: h.view})
	h.metrics.countMethods(g, true)
	w := httptest.NewRecorder()
	h.clientHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, name := range etcdNames {
		if !strings.Contains(w.Body.String(), "\n"+name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
	problems, err := testutil.GatherAndLint(h.metrics.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "etcd_") { // etcd's names break some rules
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestStatus(t *testing.T) {
	node := newStubNode(healthyStatus)
	s := &maintenanceService{view: stubView(node)}
	got, err := s.Status(context.Background(), &pb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(got)
	want := `{"header":{"cluster_id":5,"member_id":1,"revision":7,"raft_term":2},"version":"3.7.3","dbSize":4096,"leader":1,"raftIndex":9,"raftTerm":2,"raftAppliedIndex":8,"dbSizeInUse":1024,"storageVersion":"3.7.0","dbSizeQuota":2147483648,"downgradeInfo":{}}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	node.set(raft.Status{ID: 1, Term: 3}, nil)
	if got, err = s.Status(context.Background(), nil); err != nil || len(got.Errors) != 1 || got.Errors[0] != "etcdserver: no leader" {
		t.Errorf("without a leader: %v, %v", got, err)
	}
}

func TestMemberList(t *testing.T) {
	node := newStubNode(healthyStatus)
	s := &clusterService{view: stubView(node)}
	got, err := s.MemberList(context.Background(), &pb.MemberListRequest{Linearizable: true})
	if err != nil || len(got.Members) != 2 || got.Members[0].Name != "a" || got.Header.Revision != 0 || got.Header.RaftTerm != 2 {
		t.Errorf("got %v, %v", got, err)
	}
	node.set(healthyStatus, api.ErrNoLeader)
	if _, err := s.MemberList(context.Background(), &pb.MemberListRequest{Linearizable: true}); err != api.ErrNoLeader {
		t.Errorf("a linearizable list without a leader: %v", err)
	}
	if _, err := s.MemberList(context.Background(), &pb.MemberListRequest{}); err != nil {
		t.Errorf("a local list needs nobody: %v", err)
	}
}

func TestFollowLeaderCountsChanges(t *testing.T) {
	m, node := newMetrics(clock.System()), newStubNode(raft.Status{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.followLeader(ctx, node)
	}()
	for i, leader := range []api.MemberID{1, 2, 1} {
		node.set(raft.Status{}, nil)
		node.set(raft.Status{Leader: leader}, nil)
		eventually(t, "the leader's change is counted", func() bool { return m.leaderChanges.Load() == uint64(i+1) })
	}
	cancel()
	<-done
}
