package tracing

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// sink is a collector that keeps what it is sent.
type sink struct {
	collector.UnimplementedTraceServiceServer
	address string
	mu      struct {
		sync.Mutex
		resource string
		spans    map[string]*otlp.Span // by name
	}
}

func newSink(t *testing.T) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{address: l.Addr().String()}
	s.mu.spans = map[string]*otlp.Span{}
	g := grpc.NewServer()
	collector.RegisterTraceServiceServer(g, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.Serve(l); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return s
}

func (s *sink) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range r.ResourceSpans {
		s.mu.resource = resource.Resource.String()
		for _, scope := range resource.ScopeSpans {
			for _, span := range scope.Spans {
				s.mu.spans[span.Name] = span
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func newTracer(t *testing.T, address string, perMillion int) (tracer *Tracer, flush func()) {
	t.Helper()
	tracer, err := New(context.Background(), Config{
		Address: address, Service: "etcd", Instance: "m1", PerMillion: perMillion, SendTimeout: time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return tracer, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := tracer.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

const (
	callersTrace = "0af7651916cd43dd8448eb211c80319c"
	callersSpan  = "b7ad6b7169203331"
)

// asked is the context of an RPC whose caller traces, and samples or not.
func asked(sampled string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.Pairs("traceparent", "00-"+callersTrace+"-"+callersSpan+"-"+sampled))
}

// request is an RPC with one step in it.
func request(ctx context.Context, tracer *Tracer, method string, err error) {
	ctx, end := tracer.RPC(ctx, "etcdserverpb.KV", method)
	tracer.Note(ctx, func() []string { return []string{"key", "/a"} })
	_, endStep := tracer.Step(ctx, "propose "+method)
	endStep(err)
	end(err)
}

func TestSpans(t *testing.T) {
	s := newSink(t)
	tracer, flush := newTracer(t, s.address, 0)
	request(asked("01"), tracer, "Put", errors.New("no leader"))
	request(asked("00"), tracer, "Range", nil)
	request(context.Background(), tracer, "Txn", nil)
	flush()
	s.mu.Lock()
	defer s.mu.Unlock()
	rpc, step := s.mu.spans["etcdserverpb.KV/Put"], s.mu.spans["propose Put"]
	if len(s.mu.spans) != 2 || rpc == nil || step == nil {
		t.Fatalf("only the caller who samples is traced at a rate of 0; there are %v", s.mu.spans)
	}
	if hex.EncodeToString(rpc.TraceId) != callersTrace || hex.EncodeToString(rpc.ParentSpanId) != callersSpan || rpc.Kind != otlp.Span_SPAN_KIND_SERVER {
		t.Errorf("the RPC's span is not in its caller's trace: %v", rpc)
	}
	if string(step.ParentSpanId) != string(rpc.SpanId) || string(step.TraceId) != string(rpc.TraceId) {
		t.Errorf("the step is not in the RPC: %v", step)
	}
	if text := rpc.String(); rpc.Status.GetMessage() != "no leader" || !strings.Contains(text, "/a") || !strings.Contains(text, "rpc.grpc.status_code") {
		t.Errorf("the RPC's span: %s", text)
	}
	if !strings.Contains(s.mu.resource, "m1") || !strings.Contains(s.mu.resource, "etcd") {
		t.Errorf("who sent it: %s", s.mu.resource)
	}
}

func TestEverythingIsSampled(t *testing.T) {
	s := newSink(t)
	tracer, flush := newTracer(t, s.address, perMillion)
	request(context.Background(), tracer, "Txn", nil)
	flush()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.spans) != 2 {
		t.Errorf("spans: %v", s.mu.spans)
	}
}

// TestNoCollector: requests do not notice that nobody listens.
func TestNoCollector(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	tracer, err := New(context.Background(), Config{Address: l.Addr().String(), PerMillion: perMillion, SendTimeout: time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for range 10_000 {
		request(context.Background(), tracer, "Put", nil)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := tracer.Close(ctx); err == nil {
		t.Log("the last spans were given up silently")
	}
}

func TestCheck(t *testing.T) {
	for rate, want := range map[int]string{-1: "tracing sampling rate must be positive", perMillion + 1: "tracing sampling rate must be less than 1000000"} {
		if _, err := New(context.Background(), Config{PerMillion: rate}); err == nil || err.Error() != want {
			t.Errorf("%d: %v", rate, err)
		}
	}
}
