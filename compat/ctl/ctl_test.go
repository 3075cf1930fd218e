package ctl

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/keelson-io/keelson/compat/cluster"
)

// TestSameOutput compares etcdctl's output for three members of etcd with that
// for three members of the store named by STORE (kvd by default).
func TestSameOutput(t *testing.T) {
	name := "kvd"
	if v := os.Getenv("STORE"); v != "" {
		name = v
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	var pair [2]*cluster.Cluster
	for i, n := range []string{"etcd", name} {
		sys, err := cluster.Lookup(n)
		if err != nil {
			t.Fatal(err)
		}
		c, err := cluster.Start(ctx, sys, cluster.Options{Members: 3, Dir: t.TempDir(), NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		pair[i] = c
	}
	steps, diffs, err := Compare(ctx, pair[0], pair[1])
	if err != nil {
		t.Fatal(err)
	}
	if want := len(script()); steps != want {
		t.Errorf("%d of %d steps ran", steps, want)
	}
	for _, d := range diffs {
		t.Error(d)
	}
}
