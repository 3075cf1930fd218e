//go:build !linux

package main

// coarseTimers is for Linux's timers.
func coarseTimers() {}
