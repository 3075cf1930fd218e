package history

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// Meta says what a run was; it is a file's first record.
type Meta struct {
	Ring    string // "sim", "real", "campaign"
	Seed    uint64
	Commit  string
	Began   time.Time // on the wall
	Command string    // what made it
	Replay  string    // the line that does it again
	Machine string    // CPUs and their model, no more
	Members []Member
	// Drift is by how much, per mille, a member's clock may differ from the harness's.
	Drift int
	// Election is the election timeout that members ran with.
	Election time.Duration
	// Config is all else that the run was made from, by name.
	Config map[string]string
}

// Member is one member of the cluster.
type Member struct {
	ID       uint64
	Name     string
	Endpoint string
}

// Outcome is what the caller of an operation knows of it.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"      // answered
	Refused Outcome = "refused" // answered with an error after which it had no effect
	Unknown Outcome = "unknown" // it may have had its effect, or have it yet
)

// Op is one call of a client. Every value that it writes is unique in the run,
// so that the call can be found in what others saw.
type Op struct {
	ID       int
	Client   int
	Member   uint64 // that answered, or that was asked; 0: the client library chose
	Endpoint string
	Life     int           // of the member's process, from 1 on; 0: unknown. Not in files
	Method   string        // "etcdserverpb.KV/Put"
	Call     time.Duration // when it was sent
	Return   time.Duration // when the answer came; of an unknown outcome, when the caller gave up
	Request  proto.Message
	Response proto.Message // when OK; its header has the revision, the raft term and the member
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

// Header is the answer's; nil without an answer.
func (o *Op) Header() *pb.ResponseHeader {
	r, ok := o.Response.(interface{ GetHeader() *pb.ResponseHeader })
	if !ok {
		return nil
	}
	return r.GetHeader()
}

// Revision is the one that the answer's header carries; 0 without an answer.
func (o *Op) Revision() int64 { return o.Header().GetRevision() }

// Entry is one entry of the log that the members agreed on.
type Entry struct {
	Index, Term uint64
	Commands    []Command
}

// Command is one command of an entry.
type Command struct {
	ID      uint64
	Request proto.Message // etcd's message; nil when the keys and leases are not its business
	Own     bool          // a member asked for it by itself. Not in files
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
	ID     int
	Client int
	Member uint64
	Opened time.Duration
	watchcheck.Watch
	At    []time.Duration // when each of Responses came
	Ended time.Duration   // 0: it was open to the end
	Err   string          // what ended it, if not the client
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
	Index    uint64 // of the entry that it applied last
	Revision int64
	Compact  int64
	Hash     uint32            // of the whole history, as HashKV has it
	Keys     []KV              // in order
	Leases   map[int64]int64   // granted TTLs
	Rows     map[string]string // what else members agree on: users, roles, members, alarms
}

// Fault is something that the harness did to the cluster.
type Fault struct {
	ID     int
	Kind   string // of package fault, or the harness's own
	Member uint64 // 0: no single one
	Text   string // the event on one line
	Begin  time.Duration
	End    time.Duration // when the cluster was left alone again; 0: never
}

// Leader is what a member was seen to believe.
type Leader struct {
	At     time.Duration
	Member uint64 // who says so
	Leader uint64 // 0: nobody
	Term   uint64
}

// Probe is one small write from outside that shows whether a member serves.
type Probe struct {
	Member uint64
	Call   time.Duration
	Return time.Duration
	OK     bool
}

// Sample is what a member's process used at some time.
type Sample struct {
	At         time.Duration
	Member     uint64
	RSS        int64 // bytes
	Goroutines int64
	Files      int64 // open
	Disk       int64 // bytes of its data directory
}

// LogLine is a line above info that a member printed.
type LogLine struct {
	At     time.Duration
	Member uint64
	Level  string
	Text   string
}

// Exit is the end of a member's process.
type Exit struct {
	At     time.Duration
	Member uint64
	Code   int    // -1: a signal ended it
	Signal string // "killed"
	Wanted bool   // the harness did it, or asked for it
	Text   string // the last that it printed, when it was not wanted
}

// Verdict is what an oracle said of the run when it was judged.
type Verdict struct {
	Oracle   string
	Findings []string
	Took     time.Duration
}

// History is one run.
type History struct {
	Meta
	Ops     []*Op   // in the order in which they ended
	Log     []Entry // consecutive, from the first on; empty where members' logs cannot be read
	Watches []*Watch
	States  []State

	Faults   []*Fault
	Leaders  []Leader
	Probes   []Probe
	Samples  []Sample
	LogLines []LogLine
	Exits    []Exit
	Verdicts []Verdict

	// Healed is when faults had ended for good; 0: never.
	Healed time.Duration
	// End is the latest time that the run knows of.
	End time.Duration
}

// Name is how a member is called; its id in hex when nobody said.
func (h *History) Name(id uint64) string {
	for _, m := range h.Members {
		if m.ID == id {
			return m.Name
		}
	}
	return hex(id)
}
