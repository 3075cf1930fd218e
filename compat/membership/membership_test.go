package membership

import (
	"context"
	"testing"
	"time"

	"github.com/keelson-io/keelson/compat/cluster"
)

// TestSameMembership plays the script against three members of etcd and three of
// the store named by STORE (kvd by default).
func TestSameMembership(t *testing.T) {
	systems, err := cluster.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var worlds [2]*world
	for i, sys := range systems {
		c, err := cluster.Start(ctx, sys, cluster.Options{Members: 3, Dir: t.TempDir(), NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if worlds[i], err = newWorld(ctx, c); err != nil {
			t.Fatal(err)
		}
		if err := worlds[i].place(placed...); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range compare(ctx, worlds) {
		t.Error(d)
	}
}
