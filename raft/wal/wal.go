// Package wal is the replicated log on disk.
package wal

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

// Errors that callers test for.
var (
	// ErrWrongIdentity is wrapped by *IdentityError.
	ErrWrongIdentity = errors.New("wal: log belongs to another member or cluster")
	// ErrPoisoned is returned by every write after a write or sync has failed.
	ErrPoisoned = errors.New("wal: poisoned by an earlier failed write")
	// ErrCompacted: the entry is older than the log's first.
	ErrCompacted = errors.New("wal: entry compacted")
	// ErrUnavailable: the entry is newer than the log's last.
	ErrUnavailable = errors.New("wal: entry unavailable")
)

// DamageError says that synced bytes of the log are not what was written.
type DamageError struct {
	File   string
	Offset int64
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("wal: damage in %s at offset %d: %s", e.File, e.Offset, e.Reason)
}

// Identity names the log's owner.
type Identity struct {
	Cluster api.ClusterID
	Member  api.MemberID
}

// HardState is what Raft must remember besides the entries.
type HardState struct {
	Term   api.Term
	Vote   api.MemberID
	Commit api.Index
}

// Position is a point in the log.
type Position struct {
	Index api.Index
	Term  api.Term
}

// Options tune a log.
type Options struct {
	SegmentSize int64 // bytes preallocated for a segment; 0 means 64 MiB
}

// Recovered is what Open found.
type Recovered struct {
	HardState   HardState
	Start       Position // the entry before First
	First, Last api.Index
	TornBytes   int64 // bytes of an unfinished write that were cut off
}

// WAL is an open log.
type WAL struct{}

var errSkeleton = errors.New("wal: not implemented yet")

// Exists reports whether dir holds a log.
func Exists(fs vfs.FS, dir string) (bool, error) { return false, errSkeleton }

// Create makes an empty log in dir.
func Create(fs vfs.FS, dir string, id Identity, opt Options) (*WAL, error) { return nil, errSkeleton }

// Open recovers the log in dir.
func Open(fs vfs.FS, dir string, id Identity, opt Options) (*WAL, *Recovered, error) {
	return nil, nil, errSkeleton
}

// Append adds entries and, when hs is not nil, the hard state.
func (w *WAL) Append(hs *HardState, entries []*raftpb.Entry) error { return errSkeleton }

// Reset empties the log; it starts after start.
func (w *WAL) Reset(start Position) error { return errSkeleton }

// Sync makes everything appended so far durable.
func (w *WAL) Sync() error { return errSkeleton }

// Release drops whole segments whose entries are all <= upTo.
func (w *WAL) Release(upTo api.Index) error { return errSkeleton }

// Entries returns the entries [lo, hi), at least one, at most maxBytes beyond it.
func (w *WAL) Entries(lo, hi api.Index, maxBytes uint64) ([]*raftpb.Entry, error) {
	return nil, errSkeleton
}

// Term returns the term of entry i.
func (w *WAL) Term(i api.Index) (api.Term, error) { return 0, errSkeleton }

// First returns the index of the oldest entry kept.
func (w *WAL) First() api.Index { return 0 }

// Last returns the index of the newest entry.
func (w *WAL) Last() api.Index { return 0 }

// Start returns the position before First.
func (w *WAL) Start() Position { return Position{} }

// Bytes returns the size of the entries kept.
func (w *WAL) Bytes() int64 { return 0 }

// Close ends the log without syncing.
func (w *WAL) Close() error { return errSkeleton }
