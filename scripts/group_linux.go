package main

import "syscall"

// ownGroup keeps a terminal's signals from a member, and ends the member when
// this program dies without a word.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
