// Package engine stores the sorted byte maps ("buckets") under the MVCC store.
//
// # Model
//
// An Engine is a handful of buckets. It changes only by Commit, which applies
// one Batch atomically and durably: after a crash the engine holds exactly the
// state after some successful Commit, never a part of one. Readers take a View,
// which is one such state, unchanging until it is released. Views and commits
// never wait for each other.
//
// There are two implementations with one contract: bbolt on disk (bolt.go) and
// memory (memory.go, for simulation and tests). A metamorphic test holds them
// equal.
//
// # Who calls what
//
// Commit, Rewrite and Close are called by one goroutine (the flusher of mvcc).
// View may be called by any goroutine at any time before Close.
package engine

import (
	"errors"
	"io"
	"log/slog"
	"time"
)

// Bucket names one sorted byte map. The names are etcd's, so that a snapshot
// of ours is a snapshot of etcd's.
type Bucket string

// The buckets, with etcd's names.
const (
	Key            Bucket = "key"             // revision → mvccpb.KeyValue and checksum
	Meta           Bucket = "meta"            // consistent_index, term, confState, compaction marks
	Lease          Bucket = "lease"           // lease id, big-endian → leasepb.Lease
	Alarm          Bucket = "alarm"           // alarmpb → empty
	Auth           Bucket = "auth"            // auth switch and revision
	AuthUsers      Bucket = "authUsers"       // user name → authpb.User
	AuthRoles      Bucket = "authRoles"       // role name → authpb.Role
	Members        Bucket = "members"         // member id, hex → JSON
	MembersRemoved Bucket = "members_removed" // member id, hex → "removed"
	Cluster        Bucket = "cluster"         // cluster version, downgrade state
)

// Buckets lists every bucket in the order in which a file is made.
var Buckets = []Bucket{Key, Meta, Lease, Alarm, Auth, AuthUsers, AuthRoles, Members, MembersRemoved, Cluster}

// Errors that callers test for.
var (
	// ErrClosed is returned by calls on a closed engine.
	ErrClosed = errors.New("engine: closed")
	// ErrLocked is returned by OpenBolt when another process has the file open.
	ErrLocked = errors.New("engine: the database file is in use by another process")
	// ErrDamaged: a database file is not what bbolt wrote.
	ErrDamaged = errors.New("the database file is damaged")
)

// Op is one change of a bucket: a put, or a delete when Value is nil.
type Op struct {
	Bucket Bucket
	Key    []byte
	Value  []byte // nil deletes; an empty value is stored as empty
}

// Batch is a list of changes that become durable together, applied in order.
// The engine does not keep its slices after Commit returns, except that the
// memory engine keeps keys and values: callers must not change them afterwards.
type Batch struct {
	Ops []Op
}

// Put adds a put of key to bucket b.
func (t *Batch) Put(b Bucket, key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	t.Ops = append(t.Ops, Op{Bucket: b, Key: key, Value: value})
}

// Delete adds a delete of key from bucket b; an absent key is no error.
func (t *Batch) Delete(b Bucket, key []byte) {
	t.Ops = append(t.Ops, Op{Bucket: b, Key: key})
}

// View is one committed state. Its methods may be called by several goroutines
// at once. Slices it returns are valid until Release and must not be changed.
type View interface {
	// Get returns the value of key, or nil if there is none.
	Get(b Bucket, key []byte) []byte
	// Scan calls fn for each key in [from, to) in byte order until fn returns
	// false. A nil from starts at the first key, a nil to goes on to the last.
	Scan(b Bucket, from, to []byte, fn func(key, value []byte) bool)
	// Cursor returns a cursor over b, for one goroutine, for many look-ups in a
	// row: it keeps its place, so that near keys are found fast.
	Cursor(b Bucket) Cursor
	// Size returns the bytes of a snapshot of this view.
	Size() int64
	// WriteTo writes the whole view as an etcd database file (bbolt format).
	// The memory engine writes a format of its own that it alone can read.
	io.WriterTo
	// Release ends the view. It must be called exactly once.
	Release()
}

// Cursor walks one bucket of one view, valid until the view is released.
type Cursor interface {
	// Seek moves to the first key at or after key; nil at the end.
	Seek(key []byte) (k, v []byte)
	// Last moves to the last key; nil if there is none.
	Last() (k, v []byte)
	// Next moves to the following key; nil at the end.
	Next() (k, v []byte)
}

// Stats describes the space an engine takes, in bytes.
type Stats struct {
	Allocated int64 // the file's size
	InUse     int64 // Allocated less what deletes have freed
	Views     int   // read transactions of the file that are open
}

// Engine is the store under MVCC. See the package comment for its contract.
type Engine interface {
	// View returns the state after the last successful Commit.
	View() (View, error)
	// Commit applies the batch atomically and durably. After an error the
	// engine is poisoned: every later Commit returns the same error, because
	// what is on disk is unknown until the engine is opened again.
	Commit(t *Batch) error
	// Rewrite copies the live content into a fresh file and swaps it in, giving
	// freed space back. Views taken before go on reading the old file.
	// It calls rest, unless that is nil, after each portion of some megabytes; an
	// error ends the rewrite, is returned, and nothing has changed.
	// The old file's space is free once Discard has been called, too.
	Rewrite(rest func() error) error
	// Discard gives back the space of files that a Rewrite has replaced, calling
	// rest after each portion; when that returns an error, the remainder goes at
	// once. A file that is still read goes with its last view. Any goroutine.
	Discard(rest func() error) error
	// Stats reports the engine's size.
	Stats() Stats
	// Close waits for no one: views must be released before.
	Close() error
}

// BoltOptions says how a bbolt file is opened.
type BoltOptions struct {
	NoSync bool // commits do not reach the disk; for tests that need no durability
	// ReadOnly opens without the right to commit, for inspectors.
	ReadOnly bool
	// LockTimeout is how long to wait for another holder of the file; 0 means
	// one second.
	LockTimeout time.Duration
	Logger      *slog.Logger
}
