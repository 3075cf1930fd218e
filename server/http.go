package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/version"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft"
)

// httpEndpoints are what a member answers over HTTP/1.1. Paths and bodies are
// etcd's: load balancers, kubelets and dashboards look for them.
type httpEndpoints struct {
	view    *view
	metrics *metrics
	guard   *httpGuard
	log     *slog.Logger
	timeout time.Duration // of the read that proves health
	gateway http.Handler  // nil: not served
}

// clientHandler serves the client URLs.
func (h *httpEndpoints) clientHandler() http.Handler {
	mux := http.NewServeMux()
	h.handleHealth(mux)
	mux.HandleFunc("/version", h.version)
	mux.HandleFunc(TopPath, h.top)
	if h.gateway != nil {
		mux.Handle(gatewayPath, h.gateway)
		mux.Handle(gatewayBetaPath, h.gateway)
	}
	if h.view.cfg.EnablePprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// metricsHandler serves the metrics URLs: monitoring, no data.
func (h *httpEndpoints) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	h.handleHealth(mux)
	return mux
}

func (h *httpEndpoints) handleHealth(mux *http.ServeMux) {
	mux.Handle("/metrics", h.metrics.page)
	mux.HandleFunc("/health", h.health)
	serializable := healthCheck{"serializable_read", func(context.Context) error { return h.readOwn() }}
	h.handleChecks(mux, "livez", []healthCheck{serializable})
	h.handleChecks(mux, "readyz", []healthCheck{
		{"data_corruption", h.notCorrupt},
		{"linearizable_read", h.readAgreed},
		{"non_learner", func(context.Context) error { return h.nonLearner() }},
		serializable,
	})
}

// readOwn proves that this member can read its own state.
func (h *httpEndpoints) readOwn() error {
	h.view.store().Revision()
	return nil
}

// readAgreed proves that this member can read the cluster's state.
func (h *httpEndpoints) readAgreed(ctx context.Context) error {
	if err := h.view.node.ReadBarrier(ctx); err != nil {
		return proposalError(err) // the same text, whoever's patience ends first
	}
	return h.readOwn()
}

func (h *httpEndpoints) notCorrupt(context.Context) error {
	for _, m := range h.view.alarms() {
		if m.Alarm == pb.AlarmType_CORRUPT {
			return fmt.Errorf("alarm activated: %s", m.Alarm)
		}
	}
	return nil
}

func (h *httpEndpoints) nonLearner() error {
	if h.view.node.Status().Learner {
		return fmt.Errorf("not supported for learner")
	}
	return nil
}

// version answers /version.
func (h *httpEndpoints) version(w http.ResponseWriter, r *http.Request) {
	if !onlyGet(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	h.writeJSON(w, version.Versions{Server: apiVersion, Cluster: h.view.versions().cluster.String(), Storage: h.view.versions().storage})
}

func (h *httpEndpoints) writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("http: cannot encode %T: %v", v, err)) // strings only
	}
	if _, err := w.Write(b); err != nil {
		h.log.Debug("an HTTP answer was not read", "error", err)
	}
}

// verdict is the body of /health.
type verdict struct {
	Health string `json:"health"` // "true" or "false"
	Reason string `json:"reason"`
}

// health answers /health: 200 when there is a leader and a linearizable read
// succeeds; with ?serializable=true, when this member alone can read.
func (h *httpEndpoints) health(w http.ResponseWriter, r *http.Request) {
	if !onlyGet(w, r) {
		return
	}
	v := h.judgeAlarms(r.URL.Query()["exclude"])
	if v.Health == "true" {
		v = h.judge(r.Context(), r.URL.Query().Get("serializable") == "true")
	}
	h.metrics.health(v.Health == "true")
	if v.Health == "true" {
		h.writeJSON(w, v)
		return
	}
	h.log.Warn("serving /health false", "reason", v.Reason)
	b, _ := json.Marshal(v) // strings only
	http.Error(w, string(b), http.StatusServiceUnavailable)
}

// judgeAlarms finds the first alarm that is not excluded by its name.
func (h *httpEndpoints) judgeAlarms(excluded []string) verdict {
	for _, m := range h.view.alarms() {
		if slices.Contains(excluded, m.Alarm.String()) {
			continue
		}
		switch m.Alarm {
		case pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT:
			return verdict{"false", "ALARM " + m.Alarm.String()}
		}
		return verdict{"false", "ALARM UNKNOWN"}
	}
	return verdict{Health: "true"}
}

func (h *httpEndpoints) judge(ctx context.Context, serializable bool) verdict {
	read := func(context.Context) error { return h.readOwn() }
	if !serializable {
		if h.view.node.Status().Leader == 0 {
			return verdict{"false", "RAFT NO LEADER"}
		}
		read = h.readAgreed
	}
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	if err := read(ctx); err != nil {
		return verdict{"false", "RANGE ERROR:" + err.Error()}
	}
	return verdict{Health: "true"}
}

// healthCheck is one line of /livez or /readyz.
type healthCheck struct {
	name string
	run  func(ctx context.Context) error
}

// handleChecks serves /kind, which runs all checks but those of ?exclude=, and
// /kind/name, which runs one. ?verbose lists the checks.
func (h *httpEndpoints) handleChecks(mux *http.ServeMux, kind string, checks []healthCheck) {
	mux.HandleFunc("/"+kind, func(w http.ResponseWriter, r *http.Request) {
		excluded := r.URL.Query()["exclude"]
		h.runChecks(w, r, kind, slices.DeleteFunc(slices.Clone(checks), func(c healthCheck) bool {
			return slices.Contains(excluded, c.name)
		}))
	})
	for _, c := range checks {
		mux.HandleFunc("/"+kind+"/"+c.name, func(w http.ResponseWriter, r *http.Request) {
			h.runChecks(w, r, kind, []healthCheck{c})
		})
	}
}

func (h *httpEndpoints) runChecks(w http.ResponseWriter, r *http.Request, kind string, checks []healthCheck) {
	if !onlyGet(w, r) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.timeout)
	defer cancel()
	var lines strings.Builder
	failed := false
	for _, c := range checks {
		err := c.run(ctx)
		h.metrics.check(kind, c.name, err == nil)
		if err != nil {
			failed = true
			fmt.Fprintf(&lines, "[-]%s failed: %v\n", c.name, err)
			continue
		}
		fmt.Fprintf(&lines, "[+]%s ok\n", c.name)
	}
	if failed {
		h.log.Warn("health check failed", "path", r.URL.Path, "reason", lines.String())
		http.Error(w, lines.String(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	body := "ok\n"
	if _, verbose := r.URL.Query()["verbose"]; verbose {
		body = lines.String() + body
	}
	if _, err := w.Write([]byte(body)); err != nil {
		h.log.Debug("an HTTP answer was not read", "error", err)
	}
}

func onlyGet(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet {
		return true
	}
	w.Header().Set("Allow", http.MethodGet)
	http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	return false
}

// requestTimeout is how long a request may wait for consensus, by etcd's rule.
func (c *Config) requestTimeout() time.Duration {
	return api.RequestTimeout + 2*c.ElectionTimeout
}

var _ consensus = (*raft.Node)(nil)
