package workload

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/chaos/history"
)

// words is all that clients asked, in order.
func words(h *history.History) string {
	var b strings.Builder
	for _, op := range h.Ops {
		req, err := proto.MarshalOptions{Deterministic: true}.Marshal(op.Request)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(&b, "%d %s %v %x\n", op.Client, op.Method, op.Call, req)
	}
	return b.String()
}

// TestSeedDecides: the same seed asks the same, and another something else.
func TestSeedDecides(t *testing.T) {
	first := words(Make(3, 1500, 8))
	if again := words(Make(3, 1500, 8)); again != first {
		t.Error("the same seed asked for something else")
	}
	if words(Make(4, 1500, 8)) == first {
		t.Error("another seed asked for the same")
	}
}

// TestSourcesAskForAll: each kind of traffic is there.
func TestSourcesAskForAll(t *testing.T) {
	h := Make(5, 4000, 8)
	all := words(h)
	for _, method := range []string{"KV/Put", "KV/Range", "KV/DeleteRange", "KV/Txn", "KV/Compact", "Lease/LeaseGrant", "Lease/LeaseRevoke", "Lease/LeaseKeepAlive"} {
		if !strings.Contains(all, method) {
			t.Errorf("nobody called %s", method)
		}
	}
	live := map[string]bool{}
	for _, w := range h.Watches {
		for _, r := range w.Responses {
			for _, e := range r.Events {
				live[strings.SplitAfterN(string(e.Kv.Key), "/", 2)[0]] = true
			}
		}
	}
	for _, prefix := range []string{"key/", "counter/", "list/", "fence/", "lock/", "/"} {
		if !live[prefix] {
			t.Errorf("nothing was written below %s", prefix)
		}
	}
	seen := map[string]bool{}
	for _, op := range h.Ops {
		seen[string(op.Outcome)] = true
	}
	if !seen["ok"] || !seen["refused"] || !seen["unknown"] {
		t.Errorf("outcomes are %v only", seen)
	}
}
