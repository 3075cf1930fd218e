// Package vfs is the file system as the log sees it: the few calls whose
// durability matters, behind an interface, so that a test can lose power.
//
// # Durability contract
//
// A write is durable only after Sync on its File has returned nil. A created,
// renamed or removed directory entry is durable only after SyncDir on its
// directory has returned nil. Before that, a crash may keep any part of it.
//
// Three implementations share the contract: the operating system (os.go), strict
// memory with crash clones (mem.go) and a wrapper that injects faults (fault.go).
package vfs

import (
	"errors"
	"io"
	"io/fs"
)

// Errors that callers test for. Implementations wrap them.
var (
	ErrNotExist = fs.ErrNotExist
	ErrExist    = fs.ErrExist
	ErrLocked   = errors.New("file is locked by another process")
	ErrNoSpace  = errors.New("no space left on device")
)

// File is one open file. WriteAt, Truncate, Preallocate and Sync are called by
// one goroutine; ReadAt may be called by any number at the same time.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Name() string
	Size() (int64, error)
	// Preallocate reserves space up to size and extends the file with zeros to it.
	Preallocate(size int64) error
	Truncate(size int64) error
	// Sync makes all earlier writes of this file durable (data and size).
	// After an error, what is durable is unknown: callers must not go on.
	Sync() error
}

// Info describes a directory entry.
type Info struct {
	Name  string
	Size  int64
	IsDir bool
	Mode  fs.FileMode
}

// FS is a file system. All methods may be called by several goroutines.
type FS interface {
	// Create makes a new file, readable and writable; it fails with ErrExist
	// if the name is taken.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	Rename(oldName, newName string) error
	Remove(name string) error
	MkdirAll(dir string, perm fs.FileMode) error
	// List returns the entries of dir in byte order of their names.
	List(dir string) ([]Info, error)
	Stat(name string) (Info, error)
	// SyncDir makes the entries of dir durable.
	SyncDir(dir string) error
	// Lock takes an exclusive advisory lock on the named file, creating it if
	// it is absent. It fails at once with ErrLocked if another holder lives.
	Lock(name string) (io.Closer, error)
	// Free returns the bytes that an unprivileged writer may still use in dir.
	Free(dir string) (uint64, error)
}
