//go:build linux

package real_test

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/keelson-io/keelson/chaos/real"
)

// smoke is a fault of each of some classes, for every change; `make chaos` has all.
var smoke = []string{"kill-leader", "cut-minority", "power-cut-all"}

// TestSmoke runs the command, which makes its own sandbox.
func TestSmoke(t *testing.T) {
	if err := real.Available(); err != nil {
		t.Skipf("it needs what this machine or user does not have: %v", err)
	}
	if testing.Short() {
		t.Skip("it starts clusters of real processes")
	}
	t.Parallel() // most of its time it waits
	bin := filepath.Join(t.TempDir(), "chaos")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/keelson-io/keelson/cmd/chaos").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range smoke {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		cmd := exec.CommandContext(ctx, bin, "real", "-fault", name, "-times", "1", "-seed", "1")
		out, err := cmd.CombinedOutput()
		cancel()
		t.Logf("%s", out)
		if err != nil && !bytes.Contains(out, []byte("MEANINGLESS")) { // a machine that is too busy for a load says nothing
			t.Errorf("%s: %v", name, err)
		}
	}
}
