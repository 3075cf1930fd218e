//go:build unix && !linux

package main

import "syscall"

// ownGroup keeps a terminal's signals from a member.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
