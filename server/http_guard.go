package server

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/keelson-io/keelson/api"
)

// Bounds of HTTP requests, and of the metadata of RPCs.
const (
	// readHeaderTimeout is how long an HTTP client may take to send its headers.
	readHeaderTimeout = 30 * time.Second
	// idleTimeout ends connections that nobody uses: each holds a place.
	idleTimeout = 5 * time.Minute
	// maxHeaderBytes bounds a request's headers. Tokens and cookies are far below.
	maxHeaderBytes = 64 << 10
)

// httpGuard stands before every HTTP handler.
//
// It refuses what a web page may make a browser send here: a request to a name
// that the page's owner pointed at this member (DNS rebinding, CVE-2018-1099),
// and a request from another origin that changes something (CVE-2018-1098).
// Origins of --cors are let through. It also bounds bodies.
type httpGuard struct {
	hosts   []string // --host-whitelist
	origins []string // --cors
	cross   *http.CrossOriginProtection
	body    int64
	log     *slog.Logger
}

func newHTTPGuard(cfg *Config, log *slog.Logger) *httpGuard {
	g := &httpGuard{
		hosts: cfg.HostWhitelist, origins: cfg.CORS, log: log,
		body: bodyBytes(cfg), cross: http.NewCrossOriginProtection(),
	}
	for _, origin := range cfg.CORS {
		if origin != "*" {
			g.cross.AddTrustedOrigin(origin) // Check has seen that it is one
		}
	}
	return g
}

// bodyBytes is the longest body: the largest request as JSON, whose base64 takes
// four bytes for three, with room for what stands around it.
func bodyBytes(cfg *Config) int64 { return 2 * (int64(cfg.MaxRequestBytes) + api.RequestOverheadBytes) }

// checkOrigins refuses --cors values that no browser would send.
func checkOrigins(origins []string) error {
	for _, o := range origins {
		if o == "*" {
			continue
		}
		u, err := url.Parse(o)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Path != "" || u.RawQuery != "" {
			return fmt.Errorf("--cors: %q is not an origin such as https://example.com, nor *", o)
		}
	}
	return nil
}

// wrap returns next behind the guard.
func (g *httpGuard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if state, ok := r.Context().Value(tlsKey{}).(*tls.ConnectionState); ok {
			r.TLS = state
		}
		if r.TLS == nil && !g.knowsHost(r) {
			g.refuseHost(w, r)
			return
		}
		allowed := g.allowOrigin(w, r)
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusOK)
			return
		}
		if err := g.cross.Check(r); err != nil && !allowed {
			g.log.Warn("refused an HTTP request from another origin", "origin", r.Header.Get("Origin"), "remote", r.RemoteAddr, "path", r.URL.Path)
			http.Error(w, "requests from other origins are refused; see --cors", http.StatusForbidden)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, g.body)
		next.ServeHTTP(w, r)
	})
}

// knowsHost reports whether a request calls this member by a name that it is
// known by. TLS needs no such check: a page cannot make up a certificate.
func (g *httpGuard) knowsHost(r *http.Request) bool {
	if len(g.hosts) == 0 || slices.Contains(g.hosts, "*") {
		return true
	}
	u := url.URL{Host: r.Host}
	return slices.Contains(g.hosts, u.Hostname()) || slices.Contains(g.hosts, r.Host)
}

func (g *httpGuard) refuseHost(w http.ResponseWriter, r *http.Request) {
	g.log.Warn("refused an HTTP request to an unknown host name", "host", r.Host, "remote", r.RemoteAddr)
	http.Error(w, fmt.Sprintf("The host name %q is not one by which this member may be called without TLS.\n"+
		"Serve clients with TLS, or add the name to --host-whitelist.", r.Host), http.StatusMisdirectedRequest)
}

// allowOrigin tells the browser that a script of an allowed origin may read the
// answer.
func (g *httpGuard) allowOrigin(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	switch {
	case slices.Contains(g.origins, "*"):
		origin = "*"
	case origin != "" && slices.ContainsFunc(g.origins, func(o string) bool { return strings.EqualFold(o, origin) }):
		w.Header().Add("Vary", "Origin")
	default:
		return false
	}
	w.Header().Set("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
	w.Header().Set("Access-Control-Allow-Origin", origin)
	w.Header().Set("Access-Control-Allow-Headers", "accept, content-type, authorization")
	return true
}

// tlsKey is where an HTTP connection's context has its *tls.ConnectionState.
type tlsKey struct{}
