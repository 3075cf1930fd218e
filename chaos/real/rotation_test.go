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

// TestRotation makes today's faults. It runs the command, which makes its own sandbox.
func TestRotation(t *testing.T) {
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
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, bin, "real", "-rotation", time.Now().UTC().Format(time.DateOnly)).CombinedOutput()
	t.Logf("%s", out)
	// What a machine is too busy for says nothing of it; the rest does.
	if bytes.Contains(out, []byte("FAIL ring=C")) || err != nil && !bytes.Contains(out, []byte("MEANINGLESS")) {
		t.Error(err)
	}
}

// TestRotationOfAWeek: each fault that is not long comes up once, whichever day a week begins.
func TestRotationOfAWeek(t *testing.T) {
	const most = 12 // of a day: more would take CI's time
	begin := time.Date(2026, 12, 28, 23, 59, 59, 0, time.UTC)
	times := map[string]int{}
	for day := range 7 {
		faults := real.Rotation(begin.AddDate(0, 0, day))
		if len(faults) == 0 || len(faults) > most {
			t.Errorf("day %d has %d faults, at most %d is a day's share", day, len(faults), most)
		}
		for _, f := range faults {
			times[f.Name]++
		}
	}
	for _, f := range real.Catalogue() {
		if want := map[bool]int{false: 1}[f.Long]; times[f.Name] != want {
			t.Errorf("%s comes up %d times a week, want %d", f.Name, times[f.Name], want)
		}
	}
}
