package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/keelson-io/keelson/raft/vfs"
)

// TestFailEveryCall fails the n-th file-system call of a run, for every n, in
// pairs: it did not take effect, it did. Writes also stop half-way, and syncs
// lose what they were to bring to the disk, as Linux does. The log must then be
// poisoned, and after a power cut hold what was acknowledged.
func TestFailEveryCall(t *testing.T) {
	faults := map[string]vfs.Rule{
		"not applied": {Err: vfs.ErrInjected},
		"applied":     {Err: vfs.ErrInjected, Apply: true},
		"half":        {Op: vfs.OpWrite, Short: true},
		"no space":    {Op: vfs.OpWrite, Err: vfs.ErrNoSpace},
		"lost pages":  {Op: vfs.OpSync, Lose: true},
	}
	for how, rule := range faults {
		t.Run(how, func(t *testing.T) {
			failed := 0
			for seed := range campaign(t, 3) {
				for n := 1; ; n++ {
					rule.Nth = n
					if !failOnce(t, seed, rule, fmt.Sprintf("seed %d, call %d %s", seed, n, how)) {
						break
					}
					failed++
				}
			}
			if failed < 50 {
				t.Fatalf("only %d calls failed", failed)
			}
			t.Logf("%d calls failed, one at a time", failed)
		})
	}
}

// failOnce runs with one failing call and reports whether it was reached.
func failOnce(t *testing.T, seed uint64, rule vfs.Rule, what string) bool {
	reached := false
	rule.Hook = func(vfs.Call) { reached = true }
	mem := vfs.NewMem(seed)
	fault := vfs.NewFault(mem, rule)
	x := newWorld(t, fault, seed)
	x.blind = true // its own reads must not meet the fault
	err := x.create()
	created := err == nil
	for k := 0; err == nil && k < 45; k++ {
		err = x.step()
	}
	if err == nil {
		err = x.syncing(func() error { return x.w.Close() })
	}
	if err == nil {
		return reached // a call that may fail
	}
	if !errors.Is(err, vfs.ErrInjected) && !errors.Is(err, vfs.ErrNoSpace) {
		t.Fatalf("%s: cause is hidden: %v", what, err)
	}
	if created {
		x.checkPoisoned(what, err)
	}
	rng := rand.New(rand.NewPCG(seed, 7))
	for k, disk := range []*vfs.Mem{mem.Clone(), mem.DurableClone(), mem.CrashClone(rng), mem.CrashClone(rng)} {
		x.checkDisk(disk, created, fmt.Sprintf("%s, disk %d", what, k))
	}
	// Or the process starts again on what the page cache shows, and then the
	// power goes: what Open has shown must stay.
	if x.checkDisk(mem, created, what+", restart") {
		x.checkDisk(mem.DurableClone(), true, what+", restart and power cut")
		x.checkDisk(mem.CrashClone(rng), true, what+", restart and crash")
	}
	return true
}

// checkDisk opens the log on a disk; what it shows is durable from then on. It
// reports false if there is no log, which only a failed Create may leave.
func (x *world) checkDisk(disk *vfs.Mem, created bool, what string) bool {
	exists, err := Exists(disk, testDir)
	check(x.t, err)
	if !exists {
		if created {
			x.t.Fatalf("%s: the log is gone", what)
		}
		return false
	}
	w, m := x.survives(disk, what)
	if strings.HasSuffix(what, "restart") {
		x.durable, x.inFlight, x.now = m, m, m
	}
	for k := range 3 { // what was opened goes on working
		hs := w.HardState()
		hs.Term, hs.Vote = hs.Term+1, 1
		if err := w.Append(&hs, entries(w.Last()+1, w.Last()+2, hs.Term, 300*k)); err != nil {
			x.t.Fatalf("%s: append: %v", what, err)
		}
	}
	// It is not synced, and so not part of the model.
	return true
}

// checkPoisoned: after a failed call that changes the log no other succeeds.
func (x *world) checkPoisoned(what string, cause error) {
	if !errors.Is(cause, ErrPoisoned) || x.w.mu.closed {
		return // it was Open that failed, which leaves no log to use
	}
	hs := x.now.hs
	calls := map[string]error{
		"append": x.w.Append(&hs, entries(x.w.Last()+1, x.w.Last()+1, hs.Term+1, 9)),
		"sync":   x.w.Sync(), "mark": x.w.Mark(), "reset": x.w.Reset(Position{1 << 40, 1 << 40}), "release": x.w.Release(x.w.Last()),
	}
	for name, err := range calls {
		if !errors.Is(err, ErrPoisoned) {
			x.t.Fatalf("%s: %s after %v: %v", what, name, cause, err)
		}
	}
	if err := x.w.Close(); err != nil && strings.Contains(err.Error(), "panic") {
		x.t.Fatal(err)
	}
}
