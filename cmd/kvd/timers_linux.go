package main

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A thread of Go's runtime looks every 20 µs, while anything runs, whether a goroutine
// has been in a system call since it looked last, and has another thread go on in its
// place. On few processors that is what a member waits for most: looking takes a sixth
// of its time when it writes now and then, and syncs and writes that end soon are not
// worth a change of threads. The kernel may let threads that sleep for a time oversleep
// by their timer slack: with coarseSlack the thread looks a thousand times a second.
// Go's own timers count in milliseconds when nothing runs.
//
// The price: a timer may fire that much later, and on a machine whose processors are
// all in slow system calls the next goroutine waits for one that much longer.
const (
	usualSlack  = 50 * time.Microsecond // Linux's
	coarseSlack = time.Millisecond
)

// coarseTimers gives the process coarseSlack, unless somebody has chosen another one for
// it (systemd: TimerSlackNSec=). The runtime's thread runs by now, and a thread's slack
// can be set by itself or with privileges only, but a program has from its start what
// the thread had that executed it: so kvd executes itself once more, in the same process.
// Where that is not possible it stays as it is.
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
