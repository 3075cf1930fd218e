package api

import "time"

// Every limit of the product stands here, with its reason. Where etcd has the
// same limit, the default is etcd's, and its flag changes it.
const (
	// DefaultMaxRequestBytes bounds a request as a client sends it. etcd's
	// figure: what a heartbeat interval can replicate on a slow disk.
	DefaultMaxRequestBytes = 1.5 * 1024 * 1024
	// RequestOverheadBytes is what gRPC may add around a request: a message
	// larger than both together is refused before it is read.
	RequestOverheadBytes = 512 * 1024
	// DefaultMaxTxnOps bounds the compares, and each branch, of a transaction.
	DefaultMaxTxnOps = 128
	// MaxTxnDepth bounds the nesting of transactions, so that no request can
	// exhaust the stack of the apply goroutine.
	MaxTxnDepth = 64
	// MaxLeaseTTL is etcd's bound: about 285 years do not fit a duration.
	MaxLeaseTTL = 9_000_000_000

	// MaxQueuedCommands bounds the proposals that wait for Raft on one member;
	// etcd refuses at an apply backlog of 5,000 entries of one command each.
	MaxQueuedCommands = 32_768
	// MaxQueuedBytes bounds the same queue in bytes.
	MaxQueuedBytes = 256 << 20
	// MaxEntryBytes bounds what is bundled into one Raft entry. A single larger
	// command makes an entry of its own.
	MaxEntryBytes = 1 << 20

	// RangeChunkBytes is about what one RangeStream message carries.
	RangeChunkBytes = 512 * 1024
	// RequestTimeout is how long a request waits for Raft before its outcome is
	// reported as unknown; two election timeouts come on top.
	RequestTimeout = 5 * time.Second
)
