package wal

import (
	"errors"
	"fmt"
	"sync"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

// Errors that callers test for.
var (
	// ErrWrongIdentity is wrapped by *IdentityError, which names both owners.
	ErrWrongIdentity = errors.New("wal: log belongs to another member or cluster")
	// ErrPoisoned is what every write returns once one has failed, the failed
	// one included; the first cause is wrapped, too. What is durable then is
	// unknown, and only Open finds out.
	ErrPoisoned = errors.New("wal: poisoned by a failed write")
	// ErrCompacted: the entry is older than the log's first.
	ErrCompacted = errors.New("wal: entry compacted")
	// ErrUnavailable: the entry is newer than the log's last.
	ErrUnavailable = errors.New("wal: entry unavailable")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("wal: closed")
	// ErrInvalid: Raft would never append this. Nothing was changed.
	ErrInvalid = errors.New("wal: invalid append")
)

// DamageError says that bytes which were once durable are not what was
// written. It is never returned for a write that a crash cut short.
type DamageError struct {
	File   string // base name
	Offset int64  // the first byte that does not verify
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("wal: damage in %s at offset %d: %s", e.File, e.Offset, e.Reason)
}

// IdentityError says whose log it is and whose it should be.
type IdentityError struct {
	Want, Found Identity
}

func (e *IdentityError) Error() string {
	return fmt.Sprintf("%v: it is of member %v of cluster %v, not of member %v of cluster %v",
		ErrWrongIdentity, e.Found.Member, e.Found.Cluster, e.Want.Member, e.Want.Cluster)
}

func (e *IdentityError) Unwrap() error { return ErrWrongIdentity }

// poisonError matches ErrPoisoned and the failure that caused it.
type poisonError struct{ cause error }

func (e *poisonError) Error() string   { return fmt.Sprintf("%v: %v", ErrPoisoned, e.cause) }
func (e *poisonError) Unwrap() []error { return []error{ErrPoisoned, e.cause} }

// Identity names the log's owner. Every checksum starts from it.
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

// Position is a point in the log: an entry's index and term.
type Position struct {
	Index api.Index
	Term  api.Term
}

// Options tune a log. The zero value is ready for use.
type Options struct {
	SegmentSize int64 // bytes preallocated for a segment; 0 means 16 MiB
	// Salt should be a random number. It keeps those who can write values into
	// the store from forging records inside them; see the package comment.
	Salt uint64
}

// Recovered is what Open found.
type Recovered struct {
	HardState   HardState
	Start       Position // of the entry before First
	First, Last api.Index
	TornBytes   int64 // bytes of an unfinished write that were cut off, as far as they can be told
}

// SegmentInfo describes one file of the log.
type SegmentInfo struct {
	Number      uint64
	First, Last api.Index // Last < First: it holds no live entry
	Bytes       int64
}

// WAL is an open log. One goroutine, its owner, calls Append, Reset, Sync,
// Mark, Release and Close; any goroutine may call the rest.
type WAL struct {
	fs  vfs.FS
	dir string
	id  Identity
	opt Options

	// Owned by the owner.
	sequence    uint64    // of the next footer
	synced      int64     // end of the last durable batch of the active segment
	syncedState HardState // as in its footer
	proof       footer    // the last proof that was written
	proofs      int       // how many were, in this segment
	spare       int64     // the length of the spare file; 0: there is none

	// What the owner changes under the lock and readers read under it. The
	// owner itself reads it without.
	mu struct {
		sync.RWMutex
		table  *table
		batch  batch // appended, not yet written
		state  HardState
		failed error // the first failure: the log is poisoned
		closed bool
	}
}

// usable returns why the owner may not write any more, if so.
func (w *WAL) usable() error {
	if w.mu.closed {
		return ErrClosed
	}
	return w.mu.failed
}

// poison remembers the first failure and returns it.
func (w *WAL) poison(cause error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.failed == nil {
		w.mu.failed = &poisonError{cause}
	}
	return w.mu.failed
}

// Start returns the position before the first entry.
func (w *WAL) Start() Position {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.mu.table.start
}

// First returns the index of the oldest entry kept; it is Last()+1 in an empty log.
func (w *WAL) First() api.Index { return w.Start().Index + 1 }

// Last returns the index of the newest entry, synced or not.
func (w *WAL) Last() api.Index {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.mu.table.last.Index
}

// HardState returns the newest hard state, synced or not.
func (w *WAL) HardState() HardState {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.mu.state
}

// Term returns the term of entry i, or of the entry before First.
func (w *WAL) Term(i api.Index) (api.Term, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if term, ok := w.mu.table.term(i); ok {
		return term, nil
	}
	if i < w.mu.table.start.Index {
		return 0, ErrCompacted
	}
	return 0, ErrUnavailable
}

// Segments describes the files, oldest first, so that a caller can choose what
// to Release.
func (w *WAL) Segments() []SegmentInfo {
	w.mu.RLock()
	defer w.mu.RUnlock()
	infos := make([]SegmentInfo, 0, len(w.mu.table.segs))
	next := w.mu.table.start.Index + 1
	for _, s := range w.mu.table.segs {
		info := SegmentInfo{Number: s.number, First: next, Last: next - 1, Bytes: s.end}
		if len(s.offsets) > 0 {
			info.First, info.Last = s.first, s.last()
			next = info.Last + 1
		}
		infos = append(infos, info)
	}
	infos[len(infos)-1].Bytes = w.mu.batch.end()
	return infos
}

// Bytes returns the bytes in use in all segments, preallocated space excluded.
func (w *WAL) Bytes() (total int64) {
	for _, s := range w.Segments() {
		total += s.Bytes
	}
	return total
}

// Close makes everything appended durable, writes a last footer that proves it,
// so that after a clean stop no damage can pass for a torn write, and closes
// the files. A poisoned log is only closed.
func (w *WAL) Close() error {
	if w.mu.closed {
		return ErrClosed
	}
	var err error
	if w.mu.failed == nil {
		err = w.seal()
	}
	w.mu.Lock()
	w.mu.closed = true
	segs := w.mu.table.segs
	w.mu.Unlock()
	for _, s := range segs {
		err = errors.Join(err, s.release())
	}
	return err
}

func (w *WAL) seal() error {
	if err := w.Sync(); err != nil {
		return err
	}
	if err := w.Mark(); err != nil {
		return err
	}
	if err := w.mu.table.active().file.Sync(); err != nil {
		return w.poison(err)
	}
	return nil
}
