package main

import (
	"fmt"
	"math"
	"net/url"
	"time"
)

// observeOptions are about what a member tells of itself. Those about the audit
// log are kvd's own.
var observeOptions = []option{
	urls("Monitoring", "listen-metrics-urls", "", "List of URLs to listen on for /metrics, /health, /livez and /readyz alone.",
		func(s *settings) *[]url.URL { return &s.server.ListenMetricsURLs }),
	{group: "Monitoring", name: "metrics", def: "basic", help: "basic, or extensive: with a histogram of each method's durations.",
		set: func(s *settings, v string) error {
			if v != "basic" && v != "extensive" {
				return fmt.Errorf("%q is neither basic nor extensive", v)
			}
			s.server.ExtensiveMetrics = v == "extensive"
			return nil
		}},
	toggle("Monitoring", "enable-pprof", "Serve runtime profiles at client URL + \"/debug/pprof/\".",
		func(s *settings) *bool { return &s.server.EnablePprof }),
	duration("Monitoring", "warning-unary-request-duration", "300ms", "A unary request that takes longer is logged.",
		func(s *settings) *time.Duration { return &s.server.WarnUnaryDuration }),
	duration("Monitoring", "warning-apply-duration", "100ms", "A command or range that takes this member longer to evaluate is logged.",
		func(s *settings) *time.Duration { return &s.server.WarnApplyDuration }),

	toggle("Monitoring", "enable-distributed-tracing", "Send traces of requests to an OpenTelemetry collector.",
		func(s *settings) *bool { return &s.traces }),
	text("Monitoring", "distributed-tracing-address", "localhost:4317", "The collector's address, OTLP over gRPC without TLS.",
		func(s *settings) *string { return &s.tracing.Address }),
	text("Monitoring", "distributed-tracing-service-name", "etcd", "The service's name in traces, the same for all members.",
		func(s *settings) *string { return &s.tracing.Service }),
	text("Monitoring", "distributed-tracing-instance-id", "", "This member's own name in traces.",
		func(s *settings) *string { return &s.tracing.Instance }),
	number("Monitoring", "distributed-tracing-sampling-rate", "0", "Of a million requests whose clients do not decide it, how many are traced.", math.MaxInt32,
		func(s *settings, n uint64) { s.tracing.PerMillion = int(n) }),

	text("Logging", "audit-log-path", "", "Where to write who asked for what, one JSON record a line: a file, stderr or stdout. Empty: nowhere. kvd's own.",
		func(s *settings) *string { return &s.auditPath }),
	number("Logging", "audit-log-reads", "100", "One of so many reads is recorded; 1: all; 0: none. Everything else always is. kvd's own.", math.MaxInt32,
		func(s *settings, n uint64) { s.server.Audit.Reads = int(n) }),
}
