package ctl

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keelson-io/keelson/compat/cluster"
)

// deliberate says of each step what kvctl prints otherwise, and why.
var deliberate = map[string]string{
	"del r1 r3":               "etcdctl waits two seconds to be interrupted",
	"watch w --rev=2 -w json": "one line for each revision, not for what came at once; its header has the revision only",
	"version":                 "it is another program, and tells its commit",
	"alarm":                   "a missing sub-command is an error",
	"alarm nosuch":            "a wrong sub-command is an error",
	"defrag":                  "sizes are told, too",
	"defrag --cluster":        "sizes are told, too",
	"defrag x":                "arguments that mean nothing are an error",
	"lock l1":                 "no empty line at the end",
	"make-mirror --prefix=m/ --dest-prefix=n/ {endpoint}": "what was copied is told",
}

// TestKvctlPrintsTheSame: where etcdctl succeeds, kvctl prints the same, plainly
// and as JSON, for a store with the same history.
func TestKvctlPrintsTheSame(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	sys, err := cluster.UnderTest()
	if err != nil {
		t.Fatal(err)
	}
	kvctl, err := cluster.BinaryPath("kvctl")
	if err != nil {
		t.Fatal(err)
	}
	var shells [2]*shell
	for i := range shells {
		c, err := cluster.Start(ctx, sys, cluster.Options{Members: 1, NoSync: true, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		if shells[i], err = newShell(c, Mode{}, t.TempDir()); err != nil {
			t.Fatal(err)
		}
	}
	shells[1].tools["etcdctl"] = kvctl
	same := 0
	for _, s := range slices.Concat(kvSteps(), txnSteps(), leaseSteps(), watchSteps(), adminSteps(), maintenanceSteps(), recipeSteps()) {
		if strings.Contains(s.args, "-w fields") || strings.Contains(s.args, "-w table") {
			continue // of etcdctl's own
		}
		var printed [2]string
		for i, sh := range shells {
			printed[i] = mask(s.args, strings.ReplaceAll(sh.run(ctx, s), sh.dir, "DIR"))
			if strings.Contains(printed[0], "(exit code") {
				break // kvctl's refusals are its own
			}
		}
		why := deliberate[s.args]
		switch {
		case strings.Contains(printed[0], "(exit code"):
		case printed[0] == printed[1] && why != "":
			t.Errorf("%s prints the same, although %s", s.args, why)
		case printed[0] == printed[1]:
			same++
		case why == "":
			t.Errorf("%s\n--- etcdctl\n%s\n--- kvctl\n%s", s.args, printed[0], printed[1])
		}
	}
	if same < 60 {
		t.Errorf("only %d steps were compared", same)
	}
}
