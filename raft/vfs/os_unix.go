//go:build unix && !linux

package vfs

import "os"

// syncData is os.File.Sync, which asks the drive itself where the system
// distinguishes the two.
func syncData(f *os.File) error { return f.Sync() }

func preallocate(f *os.File, size int64) error { return writeZeros(f, size) }
