package raft

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/vfs"
)

// Errors of proposals and reads. They are the values of the one error table,
// so that the edge needs no second translation. The timeouts mean "outcome
// unknown": the command may still be applied.
var (
	ErrStopped         = api.ErrStopped
	ErrNoLeader        = api.ErrNoLeader
	ErrNotLeader       = api.ErrNotLeader
	ErrTooManyRequests = api.ErrTooManyRequests
	ErrRequestTooLarge = api.ErrRequestTooLarge
	ErrTimeout         = api.ErrTimeout
	ErrNotProposed     = fmt.Errorf("never proposed: %w", context.DeadlineExceeded) // surely not applied
	ErrTimeoutLeader   = api.ErrTimeoutLeaderFail
	ErrTimeoutConnLost = api.ErrTimeoutConnLost
	ErrBadTransferee   = api.ErrBadTransferee
	ErrUnhealthy       = api.ErrUnhealthy
)

// Command is one proposal as the state machine sees it. On the member where it
// was proposed it is the proposer's own value; elsewhere it was decoded from
// the log and its slices point into the entry. Kind, ID, Principal and Body
// are the same on every member and must not be changed.
type Command struct {
	Kind      uint8
	ID        uint64 // unique in the cluster: the proposing session and a counter
	Principal string
	Body      []byte

	// Wanted: a caller on this member waits for Result and Err. A state machine
	// need not shape a reply that nobody reads.
	Wanted bool
	Result any
	Err    error

	// Of the proposing member only.
	Waiter Waiter // who is told of the end, if the command went through ProposeAll

	conf  *confFrame   // a membership change instead of Kind and Body
	born  uint64       // tick at which the caller came
	state atomic.Int32 // waiting → finished or abandoned, once
	done  chan error   // pooled; only who moves state from waiting sends
}

// Entry is one committed entry of the log. An entry with neither commands nor
// a change is a new leader's mark; it still moves the applied index.
type Entry struct {
	Index    api.Index
	Term     api.Term
	Commands []*Command
	Conf     *ConfChange
}

// ConfOp says what a membership change does to its member.
type ConfOp uint8

// The membership operations, with raft's own numbers.
const (
	ConfAddVoter   = ConfOp(raftpb.ConfChangeAddNode)
	ConfRemove     = ConfOp(raftpb.ConfChangeRemoveNode)
	ConfUpdate     = ConfOp(raftpb.ConfChangeUpdateNode)
	ConfAddLearner = ConfOp(raftpb.ConfChangeAddLearnerNode)
)

// ConfChange is one committed change of the membership.
type ConfChange struct {
	Op      ConfOp
	Member  api.MemberID
	Context []byte // the proposer's own data, for instance the member's description

	// State is the membership after the change. Err says why the change was not
	// made: it would leave no voter, or Config.Judge refused it. Every member
	// decides alike.
	State *raftpb.ConfState
	Err   error

	// Command carries Wanted, Result and Err as for commands; never nil.
	Command *Command
}

// StateMachine is what the log is for. All methods but Snapshot and Durable are
// called by the apply goroutine (Applied also by Open).
type StateMachine interface {
	// Apply applies committed entries, consecutive and each exactly once. When
	// it returns, the new state is published: raft then completes callers and
	// read barriers. It sets Result and Err of the commands.
	Apply(entries []Entry)
	// Applied is, at start, the durable state: the entry it reflects and the
	// membership at that entry (nil when index is 0).
	Applied() (api.Index, api.Term, *raftpb.ConfState)
	// Durable is the index up to which the state needs no log. Any goroutine.
	Durable() api.Index
	// Snapshot returns a recent state to send. Any goroutine.
	Snapshot() (transport.Snapshot, error)
	// Install replaces all state by the file's, which is verified; the state is
	// durable when it returns. The caller removes the file afterwards.
	Install(meta transport.SnapshotMeta, path string) error
}

// Peer is a member of the cluster, this one included.
type Peer struct {
	ID          api.MemberID
	URLs        []string
	Incarnation uint64 // the transport's, see transport.Peer
	Learner     bool
	// Context goes into the entry that adds the member at bootstrap, and so to
	// the state machine as ConfChange.Context. Equal on all members.
	Context []byte
}

// Config describes a member. Fields without a default are required.
type Config struct {
	ID      api.MemberID
	Cluster api.ClusterID

	// Peers is the membership at bootstrap; later only the transport's first
	// list of peers. Bootstrap: when the log is empty, begin it with entries
	// that add Peers; all members of a new cluster do so with equal Peers.
	// A member that joins a running cluster has Bootstrap false.
	Peers     []Peer
	Bootstrap bool

	FS      vfs.FS
	Dir     string // of the log
	SnapDir string // where the transport leaves received snapshots

	Clock        clock.Clock
	Rand         rand.Source // seeded; owned by the Node from here on
	Transport    transport.Transport
	StateMachine StateMachine

	TickInterval   time.Duration // default 100 ms
	HeartbeatTicks int           // default 1
	ElectionTicks  int           // default 10
	// RequestTimeout is after how long a proposal or read that found no outcome
	// is given up; default api.RequestTimeout and two election timeouts.
	RequestTimeout time.Duration
	// LogRetention is about how many bytes of log are kept for slow followers;
	// default 64 MiB. SegmentSize is the log's, see wal.Options.
	LogRetention int64
	SegmentSize  int64

	// Judge, if set, says why a committed membership change must not be made. The
	// loop goroutine calls it once for each change after the state machine's
	// applied index, in order; a change counts as made when it returns nil. It
	// depends on the changes before alone, so that all members decide alike.
	Judge func(op ConfOp, member api.MemberID, context []byte) error
	// OnRefused is told when a peer refuses to talk with this member; any goroutine.
	OnRefused func(by api.MemberID, err error)
	// Alone makes this member the only one of its cluster: it takes its whole log
	// for committed and removes all others at its end. AloneContext
	// is the Context of the change that makes it a voter, if it was a learner.
	Alone        bool
	AloneContext []byte

	// Park, if set, stands for every wait of Repair: a simulation has no goroutine
	// to block. See Stepper.
	Park func(ready func() bool) bool
	// Rebuild, if set, says why this member's own log and state are not to be
	// trusted: Open then answers with a *DamagedError of it.
	Rebuild error

	Logger *slog.Logger
	// OnFatal is told of the failure that stops the node, before Run returns it.
	OnFatal func(error)
}

// Role is what a member is at the moment.
type Role uint8

// The roles.
const (
	Follower Role = iota
	Candidate
	Leader
	PreCandidate
)

// String prints the role in lower case.
func (r Role) String() string {
	return [...]string{"follower", "candidate", "leader", "pre-candidate"}[r]
}

// Status is a moment's view of the member. applied <= committed <= last.
type Status struct {
	ID        api.MemberID
	Leader    api.MemberID // 0: none known
	Role      Role
	Learner   bool
	Term      api.Term
	Committed api.Index
	Applied   api.Index // applied and published
	First     api.Index // oldest entry kept
	Last      api.Index // newest entry stored
}

// Progress is what the leader knows of a member.
type Progress struct {
	ID           api.MemberID
	Learner      bool
	Match        api.Index // highest entry known to be stored there
	RecentActive bool      // heard of within an election timeout
	Snapshot     bool      // a snapshot is on its way
}
