package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/topk"
)

// TopPath shows what is hot, as JSON, on the client URLs. Keys are data: while
// authentication is on, the role root is needed, as for a snapshot. ?n= says how
// many of each kind.
const TopPath = "/keelson/top"

const (
	defaultTop = 10
	// MaxTop is the most that can be asked for.
	MaxTop = hotRoom
)

// TopReport is the answer. Counts are estimates: what was seen in the sample,
// times the sample's rate.
type TopReport struct {
	Member   string     `json:"member"`
	Seconds  float64    `json:"seconds"` // that the counts are of
	Sample   int        `json:"sample"`  // one request of so many was looked at
	Keys     []TopEntry `json:"keys"`
	Prefixes []TopEntry `json:"prefixes"`
	Clients  []TopEntry `json:"clients"`
}

// TopEntry is one key, prefix or client.
type TopEntry struct {
	Name    string `json:"name"` // hexadecimal with 0x when it is no text
	Count   uint64 `json:"count"`
	Error   uint64 `json:"error"` // by which count may be too high, beside the sample's own error
	Reads   uint64 `json:"reads"`
	Writes  uint64 `json:"writes"`
	Watches uint64 `json:"watches"`
	Bytes   uint64 `json:"bytes"`
}

// report lists the n hottest of each kind.
func (h *hotSpots) report(n int) TopReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	windows := []*hotWindow{h.mu.now}
	if h.mu.before != nil {
		windows = append(windows, h.mu.before)
	}
	of := func(pick func(*hotWindow) *topk.Sketch[heat]) []TopEntry {
		sum := map[string]*TopEntry{}
		for _, w := range windows {
			for _, e := range pick(w).Entries() {
				t := sum[e.Key]
				if t == nil {
					t = &TopEntry{Name: keyText([]byte(e.Key))}
					sum[e.Key] = t
				}
				t.Count += e.Count * sampleEvery
				t.Error += e.Over * sampleEvery
				t.Reads += e.Note.reads * sampleEvery
				t.Writes += e.Note.writes * sampleEvery
				t.Watches += e.Note.watches * sampleEvery
				t.Bytes += e.Note.bytes * sampleEvery
			}
		}
		all := make([]TopEntry, 0, len(sum))
		for _, t := range sum {
			all = append(all, *t)
		}
		slices.SortFunc(all, func(a, b TopEntry) int {
			return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
		})
		return all[:min(n, len(all))]
	}
	return TopReport{
		Seconds: h.clock.Now().Sub(windows[len(windows)-1].since).Seconds(), Sample: sampleEvery,
		Keys:     of(func(w *hotWindow) *topk.Sketch[heat] { return w.keys }),
		Prefixes: of(func(w *hotWindow) *topk.Sketch[heat] { return w.prefixes }),
		Clients:  of(func(w *hotWindow) *topk.Sketch[heat] { return w.clients }),
	}
}

// top answers TopPath.
func (h *httpEndpoints) top(w http.ResponseWriter, r *http.Request) {
	if !onlyGet(w, r) {
		return
	}
	s := h.view.upkeep.s
	ctx, cancel := context.WithTimeout(rpcContext(r), h.timeout)
	defer cancel()
	if _, err := s.permit(ctx, (*auth.State).MayAdminister); err != nil {
		code := status.Convert(rpcError(err))
		http.Error(w, code.Message(), runtime.HTTPStatusFromCode(code.Code()))
		return
	}
	n := defaultTop
	if text := r.URL.Query().Get("n"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 || n > MaxTop {
			http.Error(w, fmt.Sprintf("n must be a number from 1 to %d", MaxTop), http.StatusBadRequest)
			return
		}
	}
	report := s.hot.report(n)
	report.Member = h.view.id.String()
	w.Header().Set("Content-Type", "application/json")
	h.writeJSON(w, report)
}

// rpcContext is the context of an HTTP request as an RPC of its client would have
// it: with the token of the Authorization header and the client's certificate.
func rpcContext(r *http.Request) context.Context {
	p := &peer.Peer{Addr: remoteAddr(r.RemoteAddr)}
	if r.TLS != nil {
		p.AuthInfo = credentials.TLSInfo{State: *r.TLS}
	}
	ctx := peer.NewContext(r.Context(), p)
	if token := r.Header.Get("Authorization"); token != "" {
		ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(rpctypes.TokenFieldNameSwagger, token))
	}
	return ctx
}

// remoteAddr is an address that is only shown.
type remoteAddr string

func (a remoteAddr) Network() string { return "tcp" }
func (a remoteAddr) String() string  { return string(a) }
