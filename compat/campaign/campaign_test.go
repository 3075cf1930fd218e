package campaign

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/keelson-io/keelson/chaos/load"
	"github.com/keelson-io/keelson/compat/cluster"
)

// TestLeaderKill is a short campaign against the store named by STORE (kvd by
// default); cmd/leaderkill runs long ones.
func TestLeaderKill(t *testing.T) {
	name := "kvd"
	if v := os.Getenv("STORE"); v != "" {
		name = v
	}
	sys, err := cluster.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{System: sys, Dir: t.TempDir(), Kills: 2, Via: "all", Load: load.Default(1), Settle: 300 * time.Millisecond, Progress: func(s string) { t.Log(s) }}
	cfg.Load.Pause = 5 * time.Millisecond // it is about faults, not speed
	if name != "etcd" {
		if cfg.Checker, err = cluster.BinaryPath("kvcheck"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	res, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range res.Violations() {
		t.Error(v)
	}
	if len(res.History.Ops) < 500 || len(res.History.States) != 3 || len(res.FirstAck) != 2 {
		t.Errorf("too little to judge: %d calls, %d states, first acks %v", len(res.History.Ops), len(res.History.States), res.FirstAck)
	}
	t.Logf("%d calls, %.0f a second, judged in %v; %s", len(res.History.Ops), res.Rate, res.Judging, Distribution(res.FirstAck))
}
