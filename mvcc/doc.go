// Package mvcc is the store: keys with all their revisions, leases, and the
// watches on them. It is the state machine under Raft, but knows nothing of
// Raft: it is told an index with each state and keeps it with the data.
//
// # Model
//
// A transaction that changes something takes the next revision; the empty store
// is at 1. A change is a record: the key's new value with its create revision,
// mod revision, version and lease, or a tombstone. Records are never changed.
// Reading at revision r means: of each key the last record up to r. Compaction
// at c gives up every record that no read at c or later can meet.
//
// # Where things are
//
//	index   item.go, tree*.go   key → latest record's figures, and older records' names
//	tail    tail.go             the newest records' bytes, in memory
//	engine  package engine      all other records' bytes, on disk
//	leases  lease.go            lease → attached keys
//	hub     hub*.go, watch*.go  who watches what
//
// A state (store.go) is a root of the index, a view of the tail and a view of
// the engine that fit each other. It never changes. Readers (read.go) load the
// current one from an atomic pointer and keep it as long as they like; no lock
// is held, and neither flushes nor compaction can take a record from under them.
//
// # Goroutines
//
// The apply goroutine alone changes the store:
//
//	Begin … End   one transaction of a command (txn.go), in the working state
//	Seal          the working state, with the log index it stands at, is final
//	Publish       events go to the watchers, then readers get the new state
//
// The flusher (Run, flush.go) writes the tail to the engine in large batches,
// with the log index in the same engine transaction, and then replaces the
// current state by one whose tail is shorter and whose view is newer. It also
// does what compaction leaves to be done (compact.go). Open (load.go) decodes
// on a few goroutines, which end before it returns.
//
// # Invariants
//
// With c the compact revision, and the log index of a state its last command's:
//
//   - durable index <= exposed index <= sealed index; the same for revisions
//   - every record that the index names at c or later is in the tail or in the
//     view of the same state, under the same name, with a right checksum
//   - an item's history rises and precedes the item itself; version counts the
//     puts since create
//   - the keys of a lease are the live items that name it
//   - a key with history, or deleted, is in the compaction queue exactly once
//
// Check proves all of them.
//
// # Crashes
//
// The engine holds, after a crash, a state that some flush wrote, and knows its
// log index: the log is replayed from the next entry. Because the commands are
// deterministic, the outcome is the same state. A compaction that a crash
// interrupted is found again by Open, which sees records below the compact
// revision that nothing needs.
//
// # Format
//
// Buckets, keys and values are etcd's (package engine, record.go, meta.go,
// lease.go), so that etcd's tools read the file; each record carries a checksum
// in a field that etcd's decoder skips.
//
// Read in this order: item.go, record.go, tree.go, store.go, txn.go, read.go,
// flush.go, compact.go, load.go, check.go.
package mvcc
