package main

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/raft/wal"
	"github.com/keelson-io/keelson/server"
)

// The exit codes. doc.go explains them; scripts and units depend on them, so
// they never change their meaning.
const (
	exitOK        = 0
	exitConfig    = 1
	exitInUse     = 2
	exitNotOurs   = 3
	exitNoSpace   = 4
	exitStorage   = 5
	exitDamaged   = 6
	exitListen    = 7
	exitOther     = 8
	exitRemoved   = 9
	exitSignalled = 128 // plus the signal's number
)

// exitCode classifies the error that ended kvd. The more telling reason is
// asked for first: a full disk also is a failed write.
func exitCode(err error) int {
	var damage *wal.DamageError
	var path *fs.PathError
	var errno syscall.Errno
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage), errors.Is(err, server.ErrConfig):
		return exitConfig
	case errors.Is(err, server.ErrDirInUse), errors.Is(err, engine.ErrLocked), errors.Is(err, vfs.ErrLocked):
		return exitInUse
	case errors.Is(err, server.ErrWrongCluster), errors.Is(err, server.ErrWrongMember),
		errors.Is(err, server.ErrForeignDir), errors.Is(err, wal.ErrWrongIdentity):
		return exitNotOurs
	case errors.Is(err, server.ErrRemoved):
		return exitRemoved
	case errors.Is(err, server.ErrListen):
		return exitListen
	case errors.Is(err, vfs.ErrNoSpace), errors.Is(err, syscall.ENOSPC):
		return exitNoSpace
	case errors.As(err, &damage), errors.Is(err, server.ErrDirDamaged), errors.Is(err, server.ErrStoreDamaged), errors.Is(err, server.ErrRebuild), errors.Is(err, engine.ErrDamaged), errors.Is(err, server.ErrForgotten), errors.Is(err, server.ErrInconsistent), errors.Is(err, api.ErrCorrupt), errors.Is(err, mvcc.ErrCorrupt):
		return exitDamaged
	case errors.Is(err, wal.ErrPoisoned), errors.As(err, &path), errors.As(err, &errno):
		return exitStorage
	}
	return exitOther
}
