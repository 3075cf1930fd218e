package raft

import (
	"context"
	"time"

	etcdraft "go.etcd.io/raft/v3"

	"github.com/keelson-io/keelson/api"
)

// Stepper is a Node without goroutines: whoever holds it is loop, append and
// apply in one, and decides which of them goes on. A simulation runs a whole
// cluster so, in one goroutine and in an order that a seed fixes. Every method
// runs the code that the goroutines run; none may be called by two at once.
//
// Callers of Propose and the like are tasks of the simulation. They wait by
// park, which suspends the task until ready says true and reports false when the
// task must end because its member is gone.
type Stepper struct {
	n    *Node
	in   inboxItems
	park func(ready func() bool) bool
}

// Timers are what a Turn wants to be called for: CampaignDue and GatherDue, after
// so long. 0 leaves a timer as it is, a negative value stops it.
type Timers struct{ Campaign, Gather time.Duration }

// NewStepper takes a node that does not run and starts its transport.
func NewStepper(n *Node, park func(ready func() bool) bool) (*Stepper, error) {
	s := &Stepper{n: n, park: park}
	n.prepare = func(fn func()) { fn() }
	n.applyNow = func() { _ = s.Apply() } // the error comes back to who waits
	n.handlers[callRepair] = func(ctx context.Context, from api.MemberID, payload []byte) ([]byte, error) {
		return n.repairAnswer(ctx, s, from, payload)
	}
	if err := n.cfg.Transport.Start(handler{n}); err != nil {
		return nil, err
	}
	n.cfg.Transport.SetPeers(n.cfg.others())
	return s, nil
}

// Tick is the ticker's event; Turn must follow, as it must follow CampaignDue,
// GatherDue, Write, Apply and everything that the transport delivers.
func (s *Stepper) Tick() { s.n.tick() }

// CampaignDue is the event of the campaign timer.
func (s *Stepper) CampaignDue() { s.n.core.campaignDue() }

// GatherDue is the event of the gather timer.
func (s *Stepper) GatherDue() { s.n.core.gatherDue() }

// Turn is one round of the loop goroutine. The second half is for what the first
// has posted.
func (s *Stepper) Turn() (t Timers) {
	for range 2 {
		now := s.n.turn(&s.in)
		if now.campaign != 0 {
			t.Campaign = now.campaign
		}
		if now.gather != 0 {
			t.Gather = now.gather
		}
	}
	return t
}

// Writes reports whether there is work for Write.
func (s *Stepper) Writes() bool { return s.n.append.tasks.waiting() }

// Begin marks that a write has begun, from which the loop tells a stalled disk.
func (s *Stepper) Begin() { s.n.append.busySince.Store(s.n.ticks.Load() + 1) }

// Write is one round of the append goroutine.
func (s *Stepper) Write() error {
	return s.n.append.process(context.Background(), s.n.append.tasks.take(nil))
}

// Applies reports whether there is work for Apply.
func (s *Stepper) Applies() bool { return s.n.applies.waiting() }

// Apply is one round of the apply goroutine.
func (s *Stepper) Apply() error { return s.n.apply.process(s.n.applies.take(nil)) }

// Failure is what made the node stop, if anything has.
func (s *Stepper) Failure() error { return s.n.failed() }

// Stop is the orderly end: nobody waits any more, the log is closed.
func (s *Stepper) Stop() error {
	err := s.n.append.end()
	s.n.end()
	return err
}

// Status is Node.Status.
func (s *Stepper) Status() Status { return s.n.Status() }

// LeaderChanges is Node.LeaderChanges.
func (s *Stepper) LeaderChanges() <-chan struct{} { return s.n.LeaderChanges() }

// EntryTerm returns the term of an entry that the log holds, or of the one that
// it begins after; 0 for any other.
func (s *Stepper) EntryTerm(i api.Index) api.Term {
	term, err := s.n.log.Term(uint64(i))
	if err != nil {
		return 0
	}
	return api.Term(term)
}

// Voters are the members that decide, as this one knows it. They must not be changed.
func (s *Stepper) Voters() []uint64 { return s.n.core.conf.GetVoters() }

// Propose is Node.Propose.
func (s *Stepper) Propose(ctx context.Context, kind uint8, principal string, body []byte) (any, error) {
	return s.propose(ctx, &Command{Kind: kind, Principal: principal, Body: body})
}

// ProposeAll is Node.ProposeAll.
func (s *Stepper) ProposeAll(cmds []*Command) error { return s.n.ProposeAll(cmds) }

// ProposeConfChange is Node.ProposeConfChange.
func (s *Stepper) ProposeConfChange(ctx context.Context, op ConfOp, member api.MemberID, data []byte) (any, error) {
	return s.propose(ctx, confCommand(op, member, data))
}

func (s *Stepper) propose(ctx context.Context, cmd *Command) (any, error) {
	if err := s.n.enqueue(cmd); err != nil {
		return nil, err
	}
	switch {
	case !s.park(func() bool { return len(cmd.done) > 0 || ctx.Err() != nil }):
		return cmd.abandon(ErrStopped)
	case len(cmd.done) == 0:
		return cmd.abandon(ctx.Err())
	}
	return cmd.outcome(<-cmd.done)
}

// ReadBarrier is Node.ReadBarrier.
func (s *Stepper) ReadBarrier(ctx context.Context) error {
	b, err := s.n.inbox.join(s.n.ticks.Load(), nil)
	if err != nil {
		return err
	}
	return s.await(ctx, b)
}

// AfterBarrier is Node.AfterBarrier.
func (s *Stepper) AfterBarrier(fn func(error)) { s.n.AfterBarrier(fn) }

func (s *Stepper) await(ctx context.Context, b *readBatch) error {
	closed := func() bool {
		select {
		case <-b.done:
			return true
		default:
			return false
		}
	}
	switch {
	case !s.park(func() bool { return closed() || ctx.Err() != nil }):
		return ErrStopped
	case !closed():
		return ctx.Err()
	}
	return b.err
}

// ask runs fn as the loop would; the caller's Turn follows.
func (s *Stepper) ask(_ context.Context, fn func()) error {
	fn()
	return nil
}

// Call is Node.Call.
func (s *Stepper) Call(ctx context.Context, to api.MemberID, kind uint8, payload []byte) ([]byte, error) {
	return s.n.Call(ctx, to, kind, payload)
}

// Progress is Node.Progress.
func (s *Stepper) Progress(context.Context) ([]Progress, error) {
	if all := s.n.core.progress(); all != nil {
		return all, nil
	}
	return nil, ErrNotLeader
}

// TransferLeader is Node.TransferLeader with one attempt.
func (s *Stepper) TransferLeader(ctx context.Context) error {
	switch {
	case s.n.core.role != etcdraft.StateLeader:
		return nil
	case !s.n.core.transfer(0):
		return ErrUnhealthy
	}
	until := s.n.core.now + uint64(s.n.cfg.ElectionTicks)
	if !s.park(func() bool {
		return s.n.core.role != etcdraft.StateLeader || s.n.core.now >= until || ctx.Err() != nil
	}) {
		return ErrStopped
	}
	if s.n.core.role == etcdraft.StateLeader {
		return ErrTimeout
	}
	return nil
}
