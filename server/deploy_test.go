package server

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// everyMetric is the names of all that a member can show, TLS and audit included.
func everyMetric(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{"up": true}
	for name := range shown(t) {
		names[name] = true
	}
	files := newPKI(t)
	_, f := serveFront(t, newStubNode(healthyStatus), func(c *Config) { c.ClientTLS = files.set })
	families, err := f.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families {
		names[m.GetName()] = true
	}
	audited, _ := auditedSolo(t, 1)
	if families, err = audited.metrics.registry.Gather(); err != nil {
		t.Fatal(err)
	}
	for _, m := range families {
		names[m.GetName()] = true
	}
	return names
}

var (
	// What may stand in an expression beside metrics.
	quoted   = regexp.MustCompile(`"[^"]*"`)
	inBraces = regexp.MustCompile(`\{[^}]*\}`)
	grouping = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	inSquare = regexp.MustCompile(`\[[^\]]*\]`)
	metric   = regexp.MustCompile(`\b(up|(?:etcd|keelson|grpc|process|go|os|promhttp)_[a-z0-9_]+)\b`)
	part     = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// asksFor lists the metrics of a PromQL expression.
func asksFor(expr string) []string {
	for _, other := range []*regexp.Regexp{quoted, inBraces, grouping, inSquare} {
		expr = other.ReplaceAllString(expr, " ")
	}
	return metric.FindAllString(expr, -1)
}

func checkExpression(t *testing.T, have map[string]bool, where, expr string) {
	t.Helper()
	names := asksFor(expr)
	if len(names) == 0 {
		t.Errorf("%s: no metric in %s", where, expr)
	}
	for _, name := range names {
		if !have[name] && !have[part.ReplaceAllString(name, "")] {
			t.Errorf("%s asks for %s, which no member shows", where, name)
		}
	}
	for _, pair := range []string{"()", "{}", "[]"} {
		if strings.Count(expr, pair[:1]) != strings.Count(expr, pair[1:]) {
			t.Errorf("%s: %s does not close in %s", where, pair, expr)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestDashboard: every metric that the dashboard asks for exists.
func TestDashboard(t *testing.T) {
	var board struct {
		Panels []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(read(t, "../deploy/grafana/keelson.json"), &board); err != nil {
		t.Fatal(err)
	}
	have, ids := everyMetric(t), map[int]bool{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s: the id is not its own, or it is too wide", p.Title)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s is empty", p.Title)
		}
		for _, target := range p.Targets {
			checkExpression(t, have, "panel "+p.Title, target.Expr)
		}
	}
	if len(board.Panels) < 30 {
		t.Errorf("there are only %d panels", len(board.Panels))
	}
}

// TestAlerts: every metric that an alert asks for exists, and each alert says
// what is wrong and how bad it is.
func TestAlerts(t *testing.T) {
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalStrict(read(t, "../deploy/prometheus/keelson.rules.yml"), &file); err != nil {
		t.Fatal(err)
	}
	have, seen := everyMetric(t), map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			checkExpression(t, have, "alert "+r.Alert, r.Expr)
			if seen[r.Alert] || !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) || r.Annotations["summary"] == "" {
				t.Errorf("alert %s lacks a name of its own, a severity or a summary", r.Alert)
			}
			seen[r.Alert] = true
		}
	}
	if len(seen) < 15 {
		t.Errorf("there are only %d alerts: %v", len(seen), slices.Sorted(maps.Keys(seen)))
	}
}

func TestAsksFor(t *testing.T) {
	for expr, want := range map[string]string{
		`sum by (grpc_method) (rate(grpc_server_started_total{grpc_type="unary"}[5m])) / up`: "grpc_server_started_total up",
		`a{b="etcd_x"} > etcd_y_bucket offset 1h`:                                            "etcd_y_bucket",
	} {
		if got := strings.Join(asksFor(expr), " "); got != want {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}
