// Package history is what a chaos run leaves for its judges: what clients asked
// and were told, what the members agreed on, what watches delivered. Every ring
// writes it and package oracle reads it, so that a property is said once and
// holds everywhere.
//
// All times are on one clock that never jumps, the harness's, from the start of
// the run.
package history

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// Outcome is what the caller of an operation knows of it.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"      // answered
	Refused Outcome = "refused" // answered with an error after which it had no effect
	Unknown Outcome = "unknown" // it may have had its effect, or have it yet
)

// Op is one call of a client.
type Op struct {
	ID       int
	Client   int
	Member   uint64
	Method   string        // "etcdserverpb.KV/Put"
	Call     time.Duration // when it was sent
	Return   time.Duration // when the answer came; of an unknown outcome, when the caller gave up
	Request  proto.Message
	Response proto.Message // when OK
	Outcome  Outcome
	Err      string
}

// Serializable reports whether the operation is a read that may be stale.
func (o *Op) Serializable() bool {
	r, ok := o.Request.(*pb.RangeRequest)
	return ok && r.Serializable
}

// ReadOnly reports whether the operation leaves no entry in the log.
func (o *Op) ReadOnly() bool {
	switch r := o.Request.(type) {
	case *pb.RangeRequest, *pb.LeaseKeepAliveRequest:
		return true
	case *pb.TxnRequest:
		return readOnly(r.Success) && readOnly(r.Failure)
	}
	return false
}

func readOnly(ops []*pb.RequestOp) bool {
	for _, op := range ops {
		switch op.Request.(type) {
		case *pb.RequestOp_RequestRange, *pb.RequestOp_RequestTxn:
			t := op.GetRequestTxn()
			if t != nil && !(readOnly(t.Success) && readOnly(t.Failure)) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// Revision is the one that the answer's header carries; 0 without an answer.
func (o *Op) Revision() int64 {
	r, ok := o.Response.(interface{ GetHeader() *pb.ResponseHeader })
	if !ok {
		return 0
	}
	return r.GetHeader().GetRevision()
}

// Entry is one entry of the log that the members agreed on.
type Entry struct {
	Index, Term uint64
	Commands    []Command
}

// Command is one command of an entry.
type Command struct {
	ID      uint64
	Request proto.Message // etcd's message; nil when the keys and leases are not its business
	// Expired and Checkpointed are leases in the words of a leader of Leader's
	// term; void in an entry of another.
	Leader                uint64
	Expired, Checkpointed []Lease
	// At is when the first member applied it.
	At time.Duration
}

// Lease is a lease in a batch.
type Lease struct{ ID, Remaining int64 }

// Watch is one watch of a client, on one stream.
type Watch struct {
	Client int
	Member uint64
	Opened time.Duration
	watchcheck.Watch
}

// KV is one live key.
type KV struct {
	Key, Value           string
	Create, Mod, Version int64
	Lease                int64
}

// State is what a member holds at the end.
type State struct {
	Member   uint64
	Index    uint64
	Revision int64
	Compact  int64
	Hash     uint32
	Keys     []KV              // in order
	Leases   map[int64]int64   // granted TTLs
	Rows     map[string]string // other buckets, "bucket/key" in hex → value
}

// History is one run.
type History struct {
	Ops     []*Op
	Log     []Entry // consecutive, from the first on
	Watches []*Watch
	States  []State
	// Drift is by how much, per mille, a member's clock may differ from this one.
	Drift int
}
