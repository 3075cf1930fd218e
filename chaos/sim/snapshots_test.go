package sim

import (
	"testing"
	"time"

	"github.com/keelson-io/keelson/chaos/fault"
)

// TestStatesInARow: a member gets one state of the cluster after the other, some
// while it crashes or its disk fails (etcd #18055, and the damaged page of #20271).
func TestStatesInARow(t *testing.T) {
	w := NewWorld(3)
	w.Config.Safety, w.Config.FlushEvery = 9*time.Second, 20*time.Millisecond
	w.Plan = nil
	for i := range 6 {
		at := time.Duration(200+1500*i) * time.Millisecond
		w.Plan = append(w.Plan, fault.Event{At: at, Kind: fault.Isolate, For: 600 * time.Millisecond},
			fault.Event{At: at + 600*time.Millisecond, Kind: fault.CrashAtIO, Arg: 1 + i%3})
	}
	w.Config.Think = 5 * time.Millisecond
	r := Run(w.Config, w.Plan, nil)
	if r.Failure != nil {
		t.Fatal(r.Failure)
	}
	if r.Stats.Snapshots < 2 {
		t.Errorf("%d states were installed", r.Stats.Snapshots)
	}
	t.Logf("%d states installed, %d crashes", r.Stats.Snapshots, r.Stats.Crashes)
}
