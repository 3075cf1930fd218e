package raft

import (
	"context"
	"errors"

	"github.com/keelson-io/keelson/api"
)

// Node is a member's half of the replicated log.
type Node struct{}

var errSkeleton = errors.New("raft: not implemented yet")

// Open recovers the log and prepares the node; nothing runs yet.
func Open(cfg Config) (*Node, error) { return nil, errSkeleton }

// Run starts the node's goroutines and the transport. It returns nil when ctx
// ends and everything has stopped, or the failure that stopped the node.
func (n *Node) Run(ctx context.Context) error { return errSkeleton }

// Propose replicates a command and returns the Result and Err that the state
// machine of this member gave it. It takes body over for good: the caller must
// not change it, even after an error. Timeouts mean that the outcome is unknown.
func (n *Node) Propose(ctx context.Context, kind uint8, principal string, body []byte) (any, error) {
	return nil, errSkeleton
}

// ProposeConfChange replicates a membership change, as Propose does.
func (n *Node) ProposeConfChange(ctx context.Context, op ConfOp, member api.MemberID, data []byte) (any, error) {
	return nil, errSkeleton
}

// ReadBarrier returns when this member has applied and published everything
// that any member had acknowledged before the call.
func (n *Node) ReadBarrier(ctx context.Context) error { return errSkeleton }

// Status returns the member's present view.
func (n *Node) Status() Status { return Status{} }

// LeaderChanges returns a channel that is closed at the next change of leader,
// term or role. Take the channel first, then look at Status, then wait.
func (n *Node) LeaderChanges() <-chan struct{} { return nil }

// Progress returns what this member, if it leads, knows of all members.
func (n *Node) Progress(ctx context.Context) ([]Progress, error) { return nil, errSkeleton }

// TransferLeader hands leadership to the voter that is most caught up and
// returns when another member leads. It returns at once if this one does not.
func (n *Node) TransferLeader(ctx context.Context) error { return errSkeleton }

// TransferLeaderTo hands leadership to the given voter.
func (n *Node) TransferLeaderTo(ctx context.Context, to api.MemberID) error { return errSkeleton }

// Call asks a member's handler of kind; to 0 means the leader, which may be
// this member itself.
func (n *Node) Call(ctx context.Context, to api.MemberID, kind uint8, payload []byte) ([]byte, error) {
	return nil, errSkeleton
}

// CallHandler answers calls of other members.
type CallHandler func(ctx context.Context, from api.MemberID, payload []byte) ([]byte, error)

// Handle sets the handler of a kind of call. Set all before Run.
func (n *Node) Handle(kind uint8, fn CallHandler) {}
