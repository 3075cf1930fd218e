package main

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A thread of Go's runtime looks every 20 µs, while anything runs, whether a goroutine
// has been in a system call since it looked last, and if so has another thread go on in
// its place. That is a sixth of a member's processor time when writes come one by one,
// and changes of threads for system calls that end soon. The kernel may wake who sleeps
// for a time later, by the thread's timer slack: with coarseSlack that thread looks some
// 500 times a second, and threads that look for work steal less from each other.
//
// The price: a timer may fire that much later (Go's own count in milliseconds when
// nothing runs), and where slow system calls hold all processors that Go uses, the next
// goroutine waits that much longer for one.
const (
	usualSlack  = 50 * time.Microsecond // Linux's
	coarseSlack = 2 * time.Millisecond  // measured: docs/PERFORMANCE.md
)

// coarseTimers gives the process coarseSlack, unless somebody has chosen another one for
// it (systemd: TimerSlackNSec=). A thread's slack is set by itself, or by who is privileged,
// and the runtime's thread runs by now; but a program's first thread begins with that of
// the thread which executed it, and hands it on. So kvd executes itself once more, in the
// same process. Where that is not possible it stays as it is.
func coarseTimers() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if slack() != usualSlack {
		return
	}
	self, err := os.Executable()
	if err != nil {
		return
	}
	if unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(coarseSlack), 0, 0, 0) != nil || slack() != coarseSlack {
		return // it would find itself here again
	}
	if syscall.Exec(self, os.Args, os.Environ()) != nil {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(usualSlack), 0, 0, 0)
	}
}

// slack returns the thread's timer slack; 0: unknown, or of a real-time thread.
func slack() time.Duration {
	ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0
	}
	return time.Duration(ns)
}
