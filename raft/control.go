package raft

import (
	"context"
	"log/slog"
	"time"

	etcdraft "go.etcd.io/raft/v3"

	"github.com/keelson-io/keelson/api"
)

// TransferLeader hands leadership to the voter that is most caught up and
// returns when another member leads. It returns at once if this one does not
// lead, and ErrUnhealthy when nobody could take over.
func (n *Node) TransferLeader(ctx context.Context) error {
	err := n.transfer(ctx, 0)
	if err == ErrNotLeader {
		return nil
	}
	return err
}

// TransferLeaderTo hands leadership to the given voter.
func (n *Node) TransferLeaderTo(ctx context.Context, to api.MemberID) error {
	if to == n.cfg.ID {
		return nil
	}
	return n.transfer(ctx, uint64(to))
}

func (n *Node) transfer(ctx context.Context, to uint64) error {
	for {
		changed := n.LeaderChanges()
		var leads, begun bool
		err := n.ask(ctx, func() {
			leads = n.core.role == etcdraft.StateLeader
			begun = n.core.transfer(to)
		})
		switch {
		case err != nil:
			return err
		case !leads:
			return ErrNotLeader
		case !begun && to != 0:
			return ErrBadTransferee
		case !begun:
			return ErrUnhealthy
		}
		// Raft gives a transfer up after an election timeout; then try again.
		retry := n.cfg.Clock.NewTimer(time.Duration(n.cfg.ElectionTicks) * n.cfg.TickInterval)
		done, err := n.awaitSuccessor(ctx, changed, retry.C())
		retry.Stop()
		if done || err != nil {
			return err
		}
	}
}

// awaitSuccessor waits until another member leads; false after the timer.
func (n *Node) awaitSuccessor(ctx context.Context, changed <-chan struct{}, timer <-chan time.Time) (bool, error) {
	for {
		select {
		case <-changed:
		case <-timer:
			return n.Status().Role != Leader, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
		changed = n.LeaderChanges()
		if l := n.Status().Leader; l != 0 && l != n.cfg.ID {
			return true, nil
		}
	}
}

// CallHandler answers calls of other members.
type CallHandler func(ctx context.Context, from api.MemberID, payload []byte) ([]byte, error)

// Handle sets the handler of a kind of call, below 240. Set all before Run.
func (n *Node) Handle(kind uint8, fn CallHandler) { n.handlers[kind] = fn }

// Call asks a member's handler of kind; to 0 means the leader, which may be
// this member itself.
func (n *Node) Call(ctx context.Context, to api.MemberID, kind uint8, payload []byte) ([]byte, error) {
	if to == 0 {
		if to = n.Status().Leader; to == 0 {
			return nil, ErrNoLeader
		}
	}
	if to == n.cfg.ID {
		return handler{n}.Call(ctx, to, kind, payload)
	}
	return n.cfg.Transport.Call(ctx, to, kind, payload)
}

func isLocal(id uint64) bool { return id == 0 || etcdraft.IsLocalMsgTarget(id) }

// raftLogger passes the library's log on. What matters is logged by this
// package; the library's own lines are for debugging, its errors are ours.
type raftLogger struct{ l *slog.Logger }
