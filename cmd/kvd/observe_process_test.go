package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// spanNames is a collector that keeps the names of spans.
type spanNames struct {
	collector.UnimplementedTraceServiceServer
	mu    sync.Mutex
	names map[string]bool
}

func (s *spanNames) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range r.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, span := range scope.Spans {
				s.names[span.Name] = true
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// TestObserved runs a member with all that can watch it: traces arrive, requests
// are audited without their values, profiles are served.
func TestObserved(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	spans := &spanNames{names: map[string]bool{}}
	g := grpc.NewServer()
	collector.RegisterTraceServiceServer(g, spans)
	go g.Serve(l)
	defer g.Stop()

	s := newSite(t)
	audit := filepath.Join(t.TempDir(), "audit.log")
	p := start(t, t.TempDir(), s.args("--enable-distributed-tracing", "--distributed-tracing-address="+l.Addr().String(),
		"--distributed-tracing-sampling-rate=1000000", "--audit-log-path="+audit, "--audit-log-reads=1", "--enable-pprof", "--metrics=extensive")...)
	p.says("ready to serve client requests")
	kv := pb.NewKVClient(dial(t, s.client))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("/a"), Value: []byte("hidden")}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("/a")}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/debug/pprof/": "goroutine", "/keelson/top": `"sample":16`, "/metrics": "grpc_server_handling_seconds_count",
	} {
		if body, err := fetch(s.client, path); err != nil || !strings.Contains(body, want) {
			t.Errorf("%s: %v %.200s", path, err, body)
		}
	}
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	text, err := os.ReadFile(audit)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range", `"key":"/a"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the audit log lacks %s:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "hidden") {
		t.Error("the audit log holds a value")
	}
	spans.mu.Lock()
	defer spans.mu.Unlock()
	for _, want := range []string{"etcdserverpb.KV/Put", "etcdserverpb.KV/Range", "propose"} {
		if !spans.names[want] {
			t.Errorf("no span %q; there are %v", want, spans.names)
		}
	}
}

func TestObserveOptions(t *testing.T) {
	s := mustLoad(t, []string{"--warning-apply-duration=1s", "--metrics=extensive", "--distributed-tracing-service-name=x",
		"--distributed-tracing-sampling-rate=7", "--audit-log-reads=0"}, nil, "")
	if s.server.WarnApplyDuration != time.Second || !s.server.ExtensiveMetrics || s.traces || s.tracing.Service != "x" || s.tracing.PerMillion != 7 || s.server.Audit.Reads != 0 {
		t.Errorf("not read as given: %+v %+v", s.tracing, s.server.Audit)
	}
	if s = mustLoad(t, nil, nil, ""); s.server.Audit.Reads != 100 || s.auditPath != "" || s.server.WarnApplyDuration != 100*time.Millisecond {
		t.Errorf("defaults: %+v", s.server.Audit)
	}
	for flag, want := range map[string]string{
		"--metrics=all": `"all" is neither basic nor extensive`, "--distributed-tracing-sampling-rate=-1": "is not a number",
	} {
		if _, err := load([]string{flag}, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", flag, err)
		}
	}
	if _, err := load([]string{"--enable-distributed-tracing", "--distributed-tracing-sampling-rate=1000001"}, nil, nil); err == nil ||
		!strings.Contains(err.Error(), "tracing sampling rate must be less than 1000000") {
		t.Errorf("too high a rate: %v", err)
	}
}
