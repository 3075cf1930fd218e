package campaign

import (
	"context"
	"os"
	"testing"
	"time"

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
	cfg := Config{System: sys, Dir: t.TempDir(), Kills: 3, Writers: 12, Settle: 300 * time.Millisecond, Progress: func(s string) { t.Log(s) }}
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
	for _, v := range res.Violations {
		t.Error(v)
	}
	if res.Acked < 100 || res.Events < 100 || res.Reads == 0 {
		t.Errorf("too little load to judge: %+v", res)
	}
	t.Log(Distribution(res.Kills))
}
