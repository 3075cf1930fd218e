package sim

import (
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/chaos/workload"
)

// calmRun is a run without faults, with some of everything.
func calmRun(t *testing.T) Result {
	t.Helper()
	cfg := Draw(3)
	cfg.Members, cfg.Safety, cfg.FaultEvery, cfg.Watchers, cfg.Drift = 3, 6*time.Second, 0, 3, 0
	cfg.Mix = workload.Mix{Put: 10, Get: 10, List: 3, Delete: 2, Swap: 5, Count: 5, Txn: 3, ReadTxn: 2, Grant: 3, LeasedPut: 3}
	r := Run(cfg, nil, nil)
	if r.Failure != nil {
		t.Fatal(r.Line("now"))
	}
	return r
}

func complaints(h *history.History) (names []string) {
	c := oracle.NewCase(h)
	for _, o := range oracle.All() {
		if len(o.Check(c)) > 0 {
			names = append(names, o.Name)
		}
	}
	return names
}

// broken is a good history with something wrong, and the oracle that must notice.
type broken struct {
	by     string
	breaks func(h *history.History)
}

func find(t *testing.T, h *history.History, what string, fits func(*history.Op) bool) *history.Op {
	t.Helper()
	for _, op := range slices.Backward(h.Ops) {
		if op.Outcome == history.OK && fits(op) {
			return op
		}
	}
	t.Fatalf("the run has no %s", what)
	return nil
}

func isPut(op *history.Op) bool { _, ok := op.Request.(*pb.PutRequest); return ok }

// TestOraclesSee breaks a good history in many ways; each oracle must notice what
// it is there for.
func TestOraclesSee(t *testing.T) {
	for _, x := range append(brokenAnswers(t), brokenLogs(t)...) {
		r := calmRun(t)
		if names := complaints(r.History); len(names) > 0 {
			t.Fatalf("a good history is blamed by %v", names)
		}
		x.breaks(r.History)
		if names := complaints(r.History); !slices.Contains(names, x.by) {
			t.Errorf("%s does not see what was broken; %v do", x.by, names)
		}
	}
}

func brokenAnswers(t *testing.T) []broken {
	return []broken{
		{"O1", func(h *history.History) { // a read that shows another value
			op := find(t, h, "read", func(op *history.Op) bool {
				r, ok := op.Response.(*pb.RangeResponse)
				return ok && len(r.Kvs) > 0 && len(r.Kvs[0].Value) > 0
			})
			kv := op.Response.(*pb.RangeResponse).Kvs[0]
			kv.Value = append([]byte("no"), kv.Value...)
		}},
		{"O1", func(h *history.History) { // a read from before a write that had returned
			op := find(t, h, "late read", func(op *history.Op) bool {
				_, ok := op.Response.(*pb.RangeResponse)
				return ok && op.Revision() > 20
			})
			op.Response.(*pb.RangeResponse).Header.Revision = 3
		}},
		{"O8", func(h *history.History) { // a counter that has lost a raise
			for i := range h.States[0].Keys {
				if kv := &h.States[0].Keys[i]; kv.Key == oracle.CounterPrefix+"0" {
					kv.Value = "1 lost"
				}
			}
		}},
		{"O3", func(h *history.History) { // an event that was not delivered
			for _, w := range h.Watches {
				for i := 1; i+1 < len(w.Responses); i++ {
					if len(w.Responses[i].Events) > 0 {
						w.Responses = slices.Delete(w.Responses, i, i+1)
						return
					}
				}
			}
			t.Fatal("the run has no events")
		}},
	}
}

func brokenLogs(t *testing.T) []broken {
	return []broken{
		{"O4", func(h *history.History) { // an acknowledged write that the log does not have
			op := find(t, h, "put", isPut)
			for i := range h.Log {
				h.Log[i].Commands = slices.DeleteFunc(h.Log[i].Commands, func(c history.Command) bool {
					p, ok := c.Request.(*pb.PutRequest)
					return ok && string(p.Value) == string(op.Request.(*pb.PutRequest).Value)
				})
			}
		}},
		{"O5", func(h *history.History) { h.States[1].Hash++ }},
		{"O7", func(h *history.History) { // an expiry too early
			for i := range h.Log {
				for j := range h.Log[i].Commands {
					if c := &h.Log[i].Commands[j]; len(c.Expired) > 0 {
						c.At -= 2 * time.Second
						return
					}
				}
			}
			t.Fatal("no lease has expired")
		}},
		{"O8", func(h *history.History) { // a write that is there twice
			h.Log[len(h.Log)-1].Commands = append(h.Log[len(h.Log)-1].Commands, history.Command{Request: find(t, h, "put", isPut).Request, At: h.Ops[len(h.Ops)-1].Return + time.Hour})
		}},
	}
}
