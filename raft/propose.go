package raft

import (
	"context"
	"sync"

	"github.com/keelson-io/keelson/api"
)

// maxCommandBytes bounds one command; it must fit a log segment and a frame of
// the transport with room to spare. The server's own limit is lower.
const maxCommandBytes = 16 << 20

// States of a command on the member that proposed it.
const (
	commandWaiting = iota
	commandFinished
	commandAbandoned
)

// doneChannels are reused: a command's channel carries one value, which its
// proposer has taken, or none, when it left first.
var doneChannels = sync.Pool{New: func() any { return make(chan error, 1) }}

// Waiter is told of the end of a command that ProposeAll took: once, unless
// Abandon came first. A nil error means that the state machine has set Result
// and Err; others mean what they mean as Propose's. The goroutine that tells must
// not be made to wait.
type Waiter interface {
	Ended(c *Command, err error)
}

// Finish tells the command's caller of its end, once. It is for logs that stand
// in for a Node.
func (c *Command) Finish(err error) { c.finish(err) }

// finish ends the caller's wait, once. A nil error means that the state machine
// has set Result and Err.
func (c *Command) finish(err error) {
	switch {
	case !c.local() || !c.state.CompareAndSwap(commandWaiting, commandFinished):
	case c.Waiter != nil:
		c.Waiter.Ended(c, err)
	default:
		c.done <- err
	}
}

// local reports whether the command was proposed on this member.
func (c *Command) local() bool { return c.done != nil || c.Waiter != nil }

// waiting reports whether a caller on this member waits for the command.
func (c *Command) waiting() bool { return c.local() && c.state.Load() == commandWaiting }

// Abandon ends the wait for a command of ProposeAll: its Waiter will not be told.
// False: it was told, or is being told.
func (c *Command) Abandon() bool { return c.state.CompareAndSwap(commandWaiting, commandAbandoned) }

// Propose replicates a command and returns the Result and Err that the state
// machine of this member gave it. It takes body over for good: the caller must
// not change it, even after an error. Timeouts and the end of ctx mean that the
// outcome is unknown.
func (n *Node) Propose(ctx context.Context, kind uint8, principal string, body []byte) (any, error) {
	return n.propose(ctx, &Command{Kind: kind, Principal: principal, Body: body})
}

// ProposeConfChange replicates a membership change, as Propose does. data goes
// to the state machine as the change's Context.
func (n *Node) ProposeConfChange(ctx context.Context, op ConfOp, member api.MemberID, data []byte) (any, error) {
	return n.propose(ctx, confCommand(op, member, data))
}

func confCommand(op ConfOp, member api.MemberID, data []byte) *Command {
	if op > ConfAddLearner || member == 0 {
		panic("raft: no such membership change")
	}
	return &Command{Body: data, conf: &confFrame{op: op, member: member, context: data}}
}

func (n *Node) propose(ctx context.Context, cmd *Command) (any, error) {
	if err := n.enqueue(cmd); err != nil {
		return nil, err
	}
	select {
	case err := <-cmd.done:
		return cmd.outcome(err)
	case <-ctx.Done():
		return cmd.abandon(ctx.Err())
	}
}

// ProposeAll replicates commands that have a Waiter each, as Propose does, and
// does not wait for them. It takes all of them or, with an error, none.
func (n *Node) ProposeAll(cmds []*Command) error {
	for _, cmd := range cmds {
		if err := n.name(cmd); err != nil {
			return err
		}
	}
	return n.inbox.propose(cmds...)
}

// enqueue names the command and hands it to the loop.
func (n *Node) enqueue(cmd *Command) error {
	if err := n.name(cmd); err != nil {
		return err
	}
	cmd.done = doneChannels.Get().(chan error)
	if err := n.inbox.propose(cmd); err != nil {
		doneChannels.Put(cmd.done)
		return err
	}
	return nil
}

func (n *Node) name(cmd *Command) error {
	if len(cmd.Body)+len(cmd.Principal) > maxCommandBytes {
		return ErrRequestTooLarge
	}
	cmd.ID = n.ids.Add(1)
	cmd.born = n.ticks.Load()
	return nil
}

// abandon ends the caller's wait with err, unless the outcome has come meanwhile.
func (c *Command) abandon(err error) (any, error) {
	if c.state.CompareAndSwap(commandWaiting, commandAbandoned) {
		doneChannels.Put(c.done)
		return nil, err
	}
	return c.outcome(<-c.done)
}

// outcome hands the channel back and tells the caller.
func (c *Command) outcome(err error) (any, error) {
	doneChannels.Put(c.done)
	if err != nil {
		return nil, err
	}
	return c.Result, c.Err
}
