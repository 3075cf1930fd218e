package mvcc

import (
	"errors"
	"log/slog"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// Errors of this package. The first four refuse a request and carry etcd's text.
var (
	ErrCompacted      error = api.ErrCompacted
	ErrFutureRevision error = api.ErrFutureRevision
	ErrLeaseExists    error = api.ErrLeaseExists
	ErrLeaseNotFound  error = api.ErrLeaseNotFound
	// ErrCorrupt marks a record whose checksum or form is wrong, or that is
	// missing although the index names it. The member must stop and be repaired.
	ErrCorrupt = errors.New("mvcc: corrupt record")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("mvcc: store closed")
)

// Config says how a store is opened.
type Config struct {
	Clock  clock.Clock
	Engine engine.Engine
	// TailBytes is the size at which the tail is flushed at once; 0 means
	// DefaultTailBytes. At maxTailFactor times that apply flushes it itself.
	TailBytes int64
	// FlushInterval bounds how long a change stays in memory only; 0 means
	// DefaultFlushInterval. Until then a restart replays it from the log.
	FlushInterval time.Duration
	// CompactionBatch is how many records one physical step of a compaction
	// deletes; 0 means DefaultCompactionBatch.
	CompactionBatch int
	// HashCompactions makes each compaction hash the history it covers; it then
	// reads all of it. See CompactionHashes.
	HashCompactions bool
	Logger          *slog.Logger
	// OnFatal is called once when the store cannot go on: the engine failed or
	// an invariant broke. The node must stop.
	OnFatal func(error)
	// OnCorrupt is told of each record that turns out to be damaged while it is
	// read; the reader gets an error. Any goroutine; it must not block.
	OnCorrupt func(error)
	// OnLease is called by Publish, in order, for each change of a lease, after
	// the change is visible. It must not block or call the write side.
	OnLease func(LeaseChange)
	// OnCompaction is called after each step of a physical compaction, by the
	// flusher; nil: nobody counts. It must not block.
	OnCompaction func(CompactionStep)
}

// CompactionStep is a bounded part of a physical compaction.
type CompactionStep struct {
	Deletes bool // records; otherwise the step trimmed the index
	Deleted int
	Took    time.Duration
	Done    bool          // the last step
	Since   time.Duration // since the first step, when Done
}

// Defaults of Config.
const (
	DefaultTailBytes       = 16 << 20
	DefaultFlushInterval   = time.Second
	DefaultCompactionBatch = 2000
)

// Item describes one live key at one revision, without its value. Key is
// shared and must not be changed.
type Item struct {
	Key     []byte
	Create  api.Revision
	Mod     api.Revision
	Sub     int64 // Mod and Sub name the record
	Version int64
	Lease   api.LeaseID
}

// Result is what a transaction came to.
type Result struct {
	Revision api.Revision // the transaction's own, or the store's when nothing changed
	Changed  bool
}

// LeaseChangeKind tells what happened to a lease.
type LeaseChangeKind uint8

// The changes of a lease.
const (
	LeaseGranted LeaseChangeKind = iota + 1
	LeaseRevoked
	LeaseCheckpointed
)

// LeaseChange is one replicated change of a lease; TTLs are in seconds.
type LeaseChange struct {
	Kind      LeaseChangeKind
	ID        api.LeaseID
	TTL       int64
	Remaining int64 // as checkpointed; 0 when never
}

// LeaseInfo describes a lease; TTLs are in seconds.
type LeaseInfo struct {
	ID        api.LeaseID
	TTL       int64
	Remaining int64 // as checkpointed; 0 when never
	// Keys returns the attached keys in byte order.
	Keys func() [][]byte
}

// Stats are figures for metrics and status.
type Stats struct {
	Keys            int   // live keys
	Revisions       int   // records the index knows: live, superseded and tombstones
	TailBytes       int64 // applied but not yet in the engine
	IndexBytes      int64 // estimate
	CompactionQueue int   // keys with history, that a compaction has to look at
	Leases          int
	Engine          engine.Stats
}
