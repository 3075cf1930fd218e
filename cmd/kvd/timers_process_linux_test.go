package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A child of TestCoarseTimers says on standard output, before and after
// coarseTimers, which process it is and what its thread's timer slack is.
const sayTimers = "KVD_TEST_TIMERS"

func init() {
	if os.Getenv(sayTimers) == "" {
		return
	}
	runtime.LockOSThread()
	say := func() {
		made := make(chan time.Duration)
		go func() { made <- slack() }() // of another thread: this one is taken
		fmt.Println(os.Getpid(), <-made, slack(), os.Args[1:])
	}
	say()
	coarseTimers()
	say()
	os.Exit(0)
}

func TestCoarseTimers(t *testing.T) {
	const chosen = 70 * time.Microsecond
	for _, c := range []struct {
		name   string
		parent time.Duration
		said   []time.Duration // by the thread that asks, in order
	}{
		// The second program begins anew, in the first one's process.
		{"usual", usualSlack, []time.Duration{usualSlack, coarseSlack, coarseSlack}},
		{"chosen", chosen, []time.Duration{chosen, chosen}},
		{"coarse", coarseSlack, []time.Duration{coarseSlack, coarseSlack}},
	} {
		t.Run(c.name, func(t *testing.T) {
			runtime.LockOSThread() // for good: the thread ends with the test
			if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(c.parent), 0, 0, 0); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0], "--name", "a b")
			cmd.Env = []string{sayTimers + "=1"}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var want []string
			for _, d := range c.said {
				want = append(want, fmt.Sprint(cmd.Process.Pid, " ", d, " ", d, " [--name a b]"))
			}
			if got := strings.Split(strings.TrimSpace(string(out)), "\n"); !slices.Equal(got, want) {
				t.Errorf("said\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}
