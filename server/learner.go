package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft"
)

// A learner receives the log but does not vote. Only the leader knows how far
// one has come, so only the leader promotes; other members ask it.

// callMember is a kind of call: memberQuestion in JSON; the answer is the list
// of members in JSON, or the refusal's text.
const callMember uint8 = 2

// memberQuestion is asked of the leader.
type memberQuestion struct {
	Op string       `json:"op"`
	ID api.MemberID `json:"id,omitempty"`
}

const (
	questionPromote  = "promote"
	questionHandOver = "hand-over"
)

// promote makes a learner a voter.
func (c *reconfiguration) promote(ctx context.Context, id api.MemberID) ([]Member, error) {
	list, err := c.promoteAsLeader(ctx, id)
	if !errors.Is(err, api.ErrNotLeader) {
		return list, err
	}
	stop := c.cfg.Clock.Now().Add(c.cfg.requestTimeout())
	for ctx.Err() == nil && c.cfg.Clock.Now().Before(stop) {
		changed := c.node.LeaderChanges()
		list, err := c.call(ctx, 0, memberQuestion{Op: questionPromote, ID: id})
		var refusal *api.Error
		if err == nil || errors.As(err, &refusal) && refusal != api.ErrNotLeader && refusal != api.ErrNoLeader {
			return list, err
		}
		if !c.wait(ctx, changed, c.cfg.HeartbeatInterval) {
			return nil, api.ErrStopped
		}
	}
	if ctx.Err() != nil {
		return nil, proposalError(ctx.Err())
	}
	if c.node.Status().Leader == 0 {
		return nil, api.ErrNoLeader
	}
	return nil, api.ErrTimeout
}

// await waits for a channel, but not for ever.
func (s *Server) await(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	timer := s.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timer.C():
	}
	return true
}

// promoteAsLeader returns ErrNotLeader when the question belongs elsewhere.
func (c *reconfiguration) promoteAsLeader(ctx context.Context, id api.MemberID) ([]Member, error) {
	err := c.mayPromote(ctx, id)
	if errors.Is(err, api.ErrNotLeader) {
		return nil, err
	}
	var list []Member
	if err == nil {
		list, err = c.propose(ctx, raft.ConfAddVoter, id, &memberChange{Member: Member{ID: id}, Promote: true})
	}
	c.promoted(err)
	return list, err
}

func (c *reconfiguration) mayPromote(ctx context.Context, id api.MemberID) error {
	all, err := c.node.Progress(ctx)
	if err != nil {
		return proposalError(err)
	}
	learner, leader := find(all, id), find(all, c.id)
	switch {
	case learner == nil:
		return api.ErrMemberNotFound
	case leader == nil:
		return api.ErrNotLeader
	case uint64(learner.Match)*100 < uint64(leader.Match)*readyPercent:
		return c.refuse("promote", id, api.ErrLearnerNotReady)
	}
	voters := c.members.current.Load().voters()
	if c.cfg.StrictReconfig && started(voters)+1 < quorum(len(voters)+1) {
		return c.refuse("promote", id, api.ErrMemberNotEnoughStarted)
	}
	return nil
}

func find(all []raft.Progress, id api.MemberID) *raft.Progress {
	for i := range all {
		if all[i].ID == id {
			return &all[i]
		}
	}
	return nil
}

// handOver gives leadership away before this member is removed.
func (c *reconfiguration) handOver(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := c.cfg.Clock.AfterFunc(c.cfg.ElectionTimeout, cancel)
	defer timer.Stop()
	return c.node.TransferLeader(ctx)
}

// call asks another member, 0 for the leader.
func (c *reconfiguration) call(ctx context.Context, to api.MemberID, q memberQuestion) ([]Member, error) {
	payload, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	b, err := c.node.Call(ctx, to, callMember, payload)
	if err != nil {
		return nil, memberRefusal(err)
	}
	var list []Member
	return list, json.Unmarshal(b, &list)
}

// answer answers the calls of other members.
func (c *reconfiguration) answer(ctx context.Context, _ api.MemberID, payload []byte) ([]byte, error) {
	var q memberQuestion
	if err := json.Unmarshal(payload, &q); err != nil {
		return nil, err
	}
	switch q.Op {
	case questionPromote:
		list, err := c.promoteAsLeader(ctx, q.ID)
		if err != nil {
			return nil, err
		}
		return json.Marshal(list)
	case questionHandOver:
		return []byte("null"), c.handOver(ctx)
	}
	return nil, fmt.Errorf("unknown question %q about members", q.Op)
}

// memberRefusals are what a leader may answer. A refusal crosses the wire as its
// code and text.
var memberRefusals = []*api.Error{
	api.ErrMemberNotFound, api.ErrMemberNotLearner, api.ErrLearnerNotReady, api.ErrMemberNotEnoughStarted,
	api.ErrNotLeader, api.ErrNoLeader, api.ErrTimeout, api.ErrTimeoutLeaderFail, api.ErrTimeoutConnLost, api.ErrStopped,
	api.ErrTooManyRequests, api.ErrUnhealthy, api.ErrCanceled,
}

func memberRefusal(err error) error {
	for _, r := range memberRefusals {
		if s, ok := status.FromError(err); errors.Is(err, r) || ok && s.Message() == r.Text {
			return r
		}
	}
	return err
}

// servedByLearner reports whether a learner answers this request: etcd's list.
func servedByLearner(req any) bool {
	switch r := req.(type) {
	case *pb.StatusRequest:
		return true
	case *rangeRequest:
		return r.serializable
	case *pb.RangeRequest:
		return r.GetSerializable()
	}
	return false
}

// promoteCaughtUp is a background task, if --auto-promote is set: while this
// member leads, it promotes learners that have started and, at two looks one
// election timeout apart, had nearly all of the log.
func (c *reconfiguration) promoteCaughtUp(ctx context.Context) {
	ready := map[api.MemberID]bool{}
	every(ctx, c.cfg.Clock, c.cfg.ElectionTimeout, func(ctx context.Context) {
		now := c.caughtUp(ctx)
		for id := range now {
			if !ready[id] {
				continue
			}
			if _, err := c.promoteAsLeader(ctx, id); err != nil {
				c.log.Warn("cannot promote a learner that has caught up", slog.Any("member", id), slog.Any("error", err))
				continue
			}
			c.log.Info("promoted a learner that has caught up", slog.Any("member", id))
		}
		ready = now
	})
}

// autoPromoteLag is how many entries a learner may lack and count as caught up.
const autoPromoteLag = 1000

// caughtUp are the learners that could be promoted now; none when another leads.
func (c *reconfiguration) caughtUp(ctx context.Context) map[api.MemberID]bool {
	if c.node.Status().Leader != c.id {
		return nil
	}
	all, err := c.node.Progress(ctx)
	leader := find(all, c.id)
	if err != nil || leader == nil {
		return nil
	}
	out := map[api.MemberID]bool{}
	for _, p := range all {
		m, ok := c.members.find(p.ID)
		if ok && m.Learner && m.Name != "" && p.RecentActive && !p.Snapshot && p.Match+autoPromoteLag >= leader.Match {
			out[p.ID] = true
		}
	}
	return out
}
