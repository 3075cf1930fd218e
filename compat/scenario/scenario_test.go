package scenario

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keelson-io/keelson/compat/cluster"
)

// TestScenarios plays each scenario against etcd and against the store named by
// STORE (kvd by default).
func TestScenarios(t *testing.T) {
	pair, err := cluster.Pair()
	if err != nil {
		t.Fatal(err)
	}
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			var lines [2][]string
			for i, sys := range pair {
				got, err := play(ctx, sys, sc, t.TempDir())
				if err != nil {
					t.Fatalf("%s: %v", sys.Name, err)
				}
				lines[i] = got
			}
			if len(lines[0]) == 0 {
				t.Fatal("the scenario says nothing")
			}
			t.Logf("etcd says:\n%s", strings.Join(lines[0], "\n"))
			for i := range max(len(lines[0]), len(lines[1])) {
				var a, b string
				if i < len(lines[0]) {
					a = lines[0][i]
				}
				if i < len(lines[1]) {
					b = lines[1][i]
				}
				if a != b {
					t.Errorf("line %d\netcd: %s\n%s: %s", i+1, a, pair[1].Name, b)
				}
			}
		})
	}
}
