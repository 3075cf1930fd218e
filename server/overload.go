package server

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/server/admission"
)

// Overload: which requests wait when there are too many. Package admission has
// the rules; here is which class a request belongs to, what it costs, and whose
// it is (client.go).
//
// RPCs that wait by their nature (Watch, Lock, Campaign, Observe, keep-alives,
// snapshots, physical compactions) pass no gate: they would hold a slot while
// nothing happens, and in a probe there is a single one for heavy requests. The
// steps of Lock and Campaign are few, and the log's own queue bounds them.

// shortRead is what an answer may have to count as a read rather than a list.
const shortRead = chunkBytes

// queueBounds are the bounds of each class. Slots are far beyond what makes a
// member faster: what protects others is the share of heavy requests, which the
// pacer changes. Queues hold what clients wait for anyway.
func queueBounds(c admission.Class) admission.Bounds {
	b := admission.Bounds{Slots: 4096, Heavy: 4096, Waiting: 16_384, Light: 2, Quantum: 16 << 10}
	switch c {
	case admission.Lease, admission.Election:
		b.Light = 0 // short, and what others' lives hang on
	case admission.List:
		// Building takes a processor each. Large ones wait for each other and, within
		// answerPatience, for clients that read slowly; small ones do not wait for them.
		b = admission.Bounds{Slots: 2 + runtime.GOMAXPROCS(0), Heavy: 2, Waiting: 4096, LightCost: smallAnswer, Quantum: smallAnswer}
	}
	return b
}

// overload is a member's gate for requests.
type overload struct {
	gate  *admission.Gate
	store func() *mvcc.Store
	// keyBytes is what a key adds to a list: an average over the last ones, which
	// tells how much an answer will be before it is built.
	keyBytes atomic.Int64
	unknown  admission.Flow // of RPCs without a connection: tests'
}

func newOverload(cfg *Config, store func() *mvcc.Store) *overload {
	o := &overload{gate: admission.NewGate(cfg.Clock, cfg.PaceHeavyClients, queueBounds), store: store}
	o.keyBytes.Store(1 << 10)
	return o
}

// Describe sends nothing: the collector is unchecked.
func (*overload) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (o *overload) Collect(out chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("keelson_admission_"+name, help, nil, constLabels(labels)), kind, value)
	}
	heavy, bulk := o.gate.States(func(c admission.Class, s admission.State) {
		class := c.String()
		send(prometheus.GaugeValue, "running", "Requests that have a slot of their class.", float64(s.Running), "class", class)
		send(prometheus.GaugeValue, "waiting", "Requests that wait for a slot of their class.", float64(s.Waiting), "class", class)
		send(prometheus.CounterValue, "waited_total", "Requests that had to wait.", float64(s.Waited), "class", class)
		send(prometheus.CounterValue, "wait_seconds_total", "Time that requests waited.", s.WaitTime.Seconds(), "class", class)
		send(prometheus.CounterValue, "refused_total", "Requests that were refused with too many requests.", float64(s.Refused), "class", class)
	})
	send(prometheus.GaugeValue, "level", "How much heavy clients may do: 1 is all they ask for, 0 is a few requests at a time.", heavy)
	send(prometheus.GaugeValue, "bulk_level", "How fast large answers may leave: 1 is as fast as they can, 0 is 80 MiB a second.", bulk)
}

// retryHeader is gRPC's own hint (gRFC A6): milliseconds after which a call may be
// tried again. Clients with a retry policy heed it by themselves.
const retryHeader = "grpc-retry-pushback-ms"

// enter waits until a request may begin, or refuses it.
func (o *overload) enter(ctx context.Context, req any, now time.Time) (admission.Pass, error) {
	return o.enterAs(ctx, o.classify(req), now)
}

func (o *overload) enterAs(ctx context.Context, r admission.Request, now time.Time) (admission.Pass, error) {
	if r.Class == admission.None {
		return admission.Pass{}, nil
	}
	pass, err := o.gate.Enter(ctx, o.flow(ctx), r, now)
	if err == nil {
		return pass, nil
	}
	var refusal *admission.Refusal
	if errors.As(err, &refusal) {
		hint := strconv.FormatInt(refusal.RetryAfter.Milliseconds(), 10)
		_ = grpc.SetTrailer(ctx, metadata.Pairs(retryHeader, hint)) // without a stream there is nobody to tell
	}
	return pass, rpcError(err)
}

// tryEnter lets a request begin that need not wait.
func (o *overload) tryEnter(ctx context.Context, req any, now time.Time) (admission.Pass, bool) {
	r := o.classify(req)
	if r.Class == admission.None {
		return admission.Pass{}, true
	}
	return o.gate.TryEnter(o.flow(ctx), r, now)
}

// requestOverhead is added to the bytes of each request: what even an empty one costs.
const requestOverhead = 512

// classify says what a request is. It looks at few fields: this is on everybody's way.
func (o *overload) classify(req any) admission.Request {
	switch r := req.(type) {
	case *putRequest:
		return command(admission.Write, len(r.body))
	case *rangeRequest:
		return o.classifyRange(r)
	case *txnRequest:
		switch {
		case r.readOnly():
			return o.classifyReads(r)
		case electsLeader(r):
			return command(admission.Election, len(r.body))
		}
		return command(admission.Write, len(r.body))
	case *deleteRequest:
		return command(admission.Write, len(r.body))
	case *compactRequest:
		if !r.physical { // the others wait for the flusher
			return command(admission.Write, len(r.body))
		}
	case *grantRequest, *revokeRequest, *ttlRequest:
		return command(admission.Lease, 0)
	case *listRequest:
		return admission.Request{Class: admission.Read, Cost: requestOverhead}
	}
	return admission.Request{Class: admission.None}
}

func command(c admission.Class, size int) admission.Request {
	return admission.Request{Class: c, Cost: int64(requestOverhead + size), Timed: size <= shortRead}
}

func (o *overload) classifyRange(r *rangeRequest) admission.Request {
	return reading(o.rangeBytes(r), !r.serializable)
}

func (o *overload) classifyReads(r *txnRequest) admission.Request {
	var size int64
	for _, ops := range [][]op{r.success, r.failure} {
		for i := range ops {
			size += o.rangeBytes(ops[i].rng)
		}
	}
	return reading(size, false)
}

func reading(size int64, timed bool) admission.Request {
	if size > shortRead {
		return admission.Request{Class: admission.List, Cost: size}
	}
	return admission.Request{Class: admission.Read, Cost: requestOverhead + size, Timed: timed && size == 0}
}

// rangeBytes estimates what an answer will be that is more than a key or a count.
func (o *overload) rangeBytes(r *rangeRequest) int64 {
	if r.single() || r.countOnly {
		return 0
	}
	tx, err := o.store().Read(0)
	if err != nil {
		return 0 // the handler will say why
	}
	defer tx.Release()
	keys := int64(tx.Count(r.key, r.end))
	if r.limit > 0 && !r.sorts() && !r.filtered() {
		keys = min(keys, r.limit)
	}
	return keys * o.keyBytes.Load()
}

// listed learns from an answer what a key adds to one.
func (o *overload) listed(keys, size int) {
	if keys == 0 {
		return
	}
	mean := o.keyBytes.Load() // two that learn at once may forget one of them
	o.keyBytes.Store(max(1, mean+(int64(size/keys)-mean)/8))
}

// electsLeader reports whether a transaction decides who leads or holds a lock:
// it writes the key of a Kubernetes Lease object, or a key that ends in the id of
// its own lease, as etcd's recipes name theirs.
func electsLeader(r *txnRequest) bool {
	if len(r.success) == 0 || len(r.success) > 2 || r.success[0].put == nil {
		return false
	}
	p := r.success[0].put
	return isLeaseObject(p.key) || p.lease != 0 && endsInLease(p.key, p.lease)
}

// isLeaseObject reports whether a key is <prefix>/leases/<namespace>/<name> or the
// lease of an API server, <prefix>/masterleases/<address>, where the prefix is one
// element, as /registry is.
func isLeaseObject(key []byte) bool {
	if len(key) < 2 || key[0] != '/' {
		return false
	}
	for i := 1; i < len(key); i++ {
		if key[i] == '/' {
			rest := key[i:]
			return hasPrefix(rest, "/leases/") || hasPrefix(rest, "/masterleases/")
		}
	}
	return false
}

func hasPrefix(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
}

func endsInLease(key []byte, lease api.LeaseID) bool {
	var buf [17]byte
	id := strconv.AppendInt(buf[:0], int64(lease), 16)
	n := len(key) - len(id)
	return n > 0 && key[n-1] == '/' && string(key[n:]) == string(id)
}
