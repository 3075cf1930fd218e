// Package tracing sends spans of requests to an OpenTelemetry collector, over
// OTLP on gRPC, as etcd's --enable-distributed-tracing does.
//
// A request that comes with a trace of its caller's (W3C traceparent in its
// metadata) is part of that trace and sampled as the caller decided. Any other
// begins a trace of its own, by the sampling rate. Spans wait in a bounded queue
// and are sent by a goroutine of the SDK's; when the collector is away they are
// dropped, and requests go on.
//
// The SDK was made for global state. Here nothing is global but the place where
// its errors go: a Tracer is handed to those who need it.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Config says what is traced and where spans go. Its fields are etcd's flags.
type Config struct {
	Address     string // of the collector, host:port, without TLS
	Service     string // service.name, the same for all members
	Instance    string // service.instance.id, one for each member; empty: none
	PerMillion  int    // of the requests whose callers do not say
	SendTimeout time.Duration
	Logger      *slog.Logger
}

// perMillion is the rate at which everything is sampled.
const perMillion = 1_000_000

// Check refuses what cannot work. The texts are etcd's.
func (c *Config) Check() error {
	switch {
	case c.PerMillion < 0:
		return errors.New("tracing sampling rate must be positive")
	case c.PerMillion > perMillion:
		return fmt.Errorf("tracing sampling rate must be less than %d", perMillion)
	}
	return nil
}

// Tracer makes spans. It is safe for concurrent use.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	carrier  propagation.TextMapPropagator
}

// New starts the sending goroutine, which lives until Close. Nobody listening at
// the address is no error: a collector may come later.
func New(ctx context.Context, cfg Config) (*Tracer, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	opts := []otlptracegrpc.Option{otlptracegrpc.WithInsecure(), otlptracegrpc.WithEndpoint(cfg.Address)}
	if cfg.SendTimeout > 0 {
		opts = append(opts, otlptracegrpc.WithTimeout(cfg.SendTimeout))
	}
	exporter, err := otlptracegrpc.New(ctx, opts...)
	if err != nil {
		return nil, err
	}
	about := []attribute.KeyValue{attribute.String("service.name", cfg.Service)}
	if cfg.Instance != "" {
		about = append(about, attribute.String("service.instance.id", cfg.Instance))
	}
	sampler := sdk.NeverSample()
	if cfg.PerMillion > 0 {
		sampler = sdk.TraceIDRatioBased(float64(cfg.PerMillion) / perMillion)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		cfg.Logger.Warn("tracing", "error", err)
	}))
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(resource.NewSchemaless(about...)),
		sdk.WithSampler(sdk.ParentBased(sampler)))
	return &Tracer{
		provider: provider, tracer: provider.Tracer("github.com/keelson-io/keelson"),
		carrier: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	}, nil
}

// Close sends what waits, as long as ctx allows, and ends the goroutine.
func (t *Tracer) Close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// RPC begins the span of an RPC, in the trace of its caller if that has one. End
// it with the RPC's error.
func (t *Tracer) RPC(ctx context.Context, service, method string) (context.Context, func(error)) {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = t.carrier.Extract(ctx, incoming(md))
	}
	ctx, span := t.tracer.Start(ctx, service+"/"+method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("rpc.system", "grpc"), attribute.String("rpc.service", service), attribute.String("rpc.method", method)))
	return ctx, func(err error) {
		span.SetAttributes(attribute.Int("rpc.grpc.status_code", int(status.Code(err))))
		end(span, err)
	}
}

// Step begins a span inside that of ctx. Without one there is nothing to do.
func (t *Tracer) Step(ctx context.Context, name string) (context.Context, func(error)) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, nothing
	}
	ctx, span := t.tracer.Start(ctx, name)
	return ctx, func(err error) { end(span, err) }
}

func nothing(error) {}

// Note adds texts to the span of ctx: names and values in turn.
func (t *Tracer) Note(ctx context.Context, texts func() []string) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	list := texts()
	for i := 0; i+1 < len(list); i += 2 {
		span.SetAttributes(attribute.String(list[i], list[i+1]))
	}
}

func end(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// incoming lets the propagator read an RPC's metadata.
type incoming metadata.MD

func (m incoming) Get(key string) string {
	if values := metadata.MD(m).Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

func (m incoming) Set(string, string) {}

func (m incoming) Keys() []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	return keys
}
