package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft"
)

// Changes of the membership. Each is checked twice: here, against what this
// member sees of the cluster's health, so that a change does not cost it its
// quorum; and by the judge once it is committed, against the changes before it.

// healthInterval is how long a connection must have lasted to count, as in etcd.
const healthInterval = 5 * time.Second

// DefaultMaxLearners is how many learners a cluster may have at a time.
const DefaultMaxLearners = 1

// readyPercent is how much of the leader's log a learner must have.
const readyPercent = 90

// reconfigurer is the part of raft.Node and its transport that changes the membership.
type reconfigurer interface {
	consensus
	ProposeConfChange(ctx context.Context, op raft.ConfOp, member api.MemberID, data []byte) (any, error)
	Progress(ctx context.Context) ([]raft.Progress, error)
	TransferLeader(ctx context.Context) error
	Call(ctx context.Context, to api.MemberID, kind uint8, payload []byte) ([]byte, error)
}

// reconfiguration makes changes of the membership.
type reconfiguration struct {
	*view
	node  reconfigurer
	log   *slog.Logger
	since func(api.MemberID) time.Time // when a connection with a member began; zero: there is none
	// promoted counts a promotion that was tried.
	promoted func(error)
	// steady is how long a connection must have lasted to count.
	steady  time.Duration
	leaving *leaving
	// wait waits for a channel, but not for ever; false: the member is gone.
	wait func(ctx context.Context, changed <-chan struct{}, d time.Duration) bool
}

func (s *Server) reconfiguration() *reconfiguration {
	p := &s.parts
	steady := p.world.steady
	if steady == 0 {
		steady = healthInterval
	}
	return &reconfiguration{
		view: s.view(), node: p.node, log: s.log, since: p.transport.ActiveSince, steady: steady, promoted: s.metrics.promotion, wait: s.wait, leaving: &s.parts.leaving,
	}
}

// add adds a member with these peer URLs and returns it and all members.
func (c *reconfiguration) add(ctx context.Context, peerURLs []string, learner bool) (Member, []Member, error) {
	urls, err := memberURLs(peerURLs)
	if err != nil {
		return Member{}, nil, api.ErrMemberBadURLs
	}
	now := strconv.FormatInt(c.cfg.Clock.Wall().Unix(), 10)
	m := Member{ID: memberID(urls, now), PeerURLs: urls, Learner: learner}
	if err := c.mayAdd(m); err != nil {
		return m, nil, err
	}
	op := raft.ConfAddVoter
	if learner {
		op = raft.ConfAddLearner
	}
	list, err := c.propose(ctx, op, m.ID, &memberChange{Member: m, MaxLearners: c.cfg.MaxLearners})
	return m, list, err
}

func (c *reconfiguration) mayAdd(m Member) error {
	if !c.cfg.StrictReconfig {
		return nil
	}
	voters := c.members.current.Load().voters()
	// A cluster of one may grow although that needs the new member to be started.
	alone := len(voters) == 1 && started(voters) == 1
	if !m.Learner && !alone && started(voters) < quorum(len(voters)+1) {
		return c.refuse("add", m.ID, api.ErrMemberNotEnoughStarted)
	}
	if len(voters) != 1 && c.connected(voters) < quorum(len(voters)+1) {
		return c.refuse("add", m.ID, api.ErrUnhealthy)
	}
	return nil
}

// remove removes a member for ever. A leader first hands leadership over, so
// that its removal costs the cluster no election timeout.
func (c *reconfiguration) remove(ctx context.Context, id api.MemberID) ([]Member, error) {
	if err := c.mayRemove(id); err != nil {
		return nil, err
	}
	c.unseat(ctx, id)
	if id == c.id {
		return c.removeSelf(ctx)
	}
	return c.propose(ctx, raft.ConfRemove, id, nil)
}

// removeSelf removes this member. The log may go on without it before it has read there
// that it is gone; then the others tell it.
func (c *reconfiguration) removeSelf(ctx context.Context) ([]Member, error) {
	ctx, gone := c.leaving.watch(ctx)
	list, err := c.propose(ctx, raft.ConfRemove, c.id, nil)
	if gone() && err != nil {
		left := slices.DeleteFunc(slices.Clone(c.members.list()), func(m Member) bool { return m.ID == c.id })
		return left, nil
	}
	return list, err
}

func (c *reconfiguration) mayRemove(id api.MemberID) error {
	if !c.cfg.StrictReconfig {
		return nil
	}
	set := c.members.current.Load()
	if m, ok := set.find(id); ok && m.Learner {
		return nil
	}
	voters := set.voters()
	left := slices.DeleteFunc(slices.Clone(voters), func(m Member) bool { return m.ID == id })
	if started(left) < quorum(len(left)) {
		return c.refuse("remove", id, api.ErrMemberNotEnoughStarted)
	}
	if id != c.id && c.since(id).IsZero() {
		// It is down. The quorum may do without it already; if not, its return would
		// bring about a change after which there is none.
		up := func(m Member) bool { return m.ID == c.id || !c.since(m.ID).IsZero() }
		if len(slices.DeleteFunc(left, func(m Member) bool { return !up(m) })) < quorum(len(voters)-1) {
			return c.refuse("remove", id, api.ErrUnhealthy)
		}
		return nil
	}
	if c.connected(voters)-1 < quorum(len(voters)-1) {
		return c.refuse("remove", id, api.ErrUnhealthy)
	}
	return nil
}

// unseat takes leadership from a member that is to be removed. Without success
// the removal goes on: the others elect a leader when they miss the old one.
func (c *reconfiguration) unseat(ctx context.Context, id api.MemberID) {
	if _, known := c.members.find(id); !known || c.node.Status().Leader != id || len(c.members.current.Load().voters()) < 2 {
		return
	}
	var err error
	if id == c.id {
		err = c.handOver(ctx)
	} else {
		_, err = c.call(ctx, id, memberQuestion{Op: questionHandOver})
	}
	if err != nil {
		c.log.Warn("removing a member that still leads", slog.Any("member", id), slog.Any("error", err))
	}
}

// update changes where a member is found by its peers.
func (c *reconfiguration) update(ctx context.Context, id api.MemberID, peerURLs []string) ([]Member, error) {
	return c.propose(ctx, raft.ConfUpdate, id, &memberChange{Member: Member{ID: id, PeerURLs: peerURLs}})
}

// propose replicates a change and returns the members after it.
func (c *reconfiguration) propose(ctx context.Context, op raft.ConfOp, id api.MemberID, change *memberChange) ([]Member, error) {
	if id == 0 {
		return nil, api.ErrMemberNotFound
	}
	var data []byte
	if change != nil {
		var err error
		if data, err = json.Marshal(change); err != nil {
			return nil, err
		}
	}
	result, err := c.node.ProposeConfChange(ctx, op, id, data)
	if err != nil {
		return nil, proposalError(err)
	}
	list, ok := result.([]Member)
	if !ok {
		return nil, errors.New("a membership change ended without an answer")
	}
	c.log.Info("changed the membership", slog.Int("operation", int(op)), slog.Any("member", id))
	return list, nil
}

func (c *reconfiguration) refuse(what string, id api.MemberID, err error) error {
	c.log.Warn("refused to change the membership", slog.String("change", what), slog.Any("member", id), slog.Any("error", err))
	return err
}

func quorum(n int) int { return n/2 + 1 }

// started counts the members that have told the cluster their name.
func started(list []Member) (n int) {
	for _, m := range list {
		if m.Name != "" {
			n++
		}
	}
	return n
}

// connected counts the members that this one has been connected with for a
// while, itself included.
func (c *reconfiguration) connected(list []Member) (n int) {
	before := c.cfg.Clock.Now().Add(-c.steady)
	for _, m := range list {
		if since := c.since(m.ID); m.ID == c.id || !since.IsZero() && since.Before(before) {
			n++
		}
	}
	return n
}

// memberURLs checks and sorts the peer URLs of a new member by etcd's rules.
func memberURLs(list []string) ([]string, error) {
	if len(list) == 0 {
		return nil, errors.New("no valid URLs given")
	}
	var out []string
	for _, raw := range list {
		u, err := url.Parse(strings.TrimSpace(raw))
		if err != nil {
			return nil, err
		}
		switch u.Scheme {
		case "unix", "unixs":
		case "http", "https":
			colons := strings.Count(u.Host[strings.LastIndexByte(u.Host, ']')+1:], ":")
			if colons != 1 || u.Path != "" {
				return nil, errors.New("not of the form scheme://host:port: " + raw)
			}
		default:
			return nil, errors.New("URL scheme must be http, https, unix, or unixs: " + raw)
		}
		out = append(out, u.String())
	}
	slices.Sort(out)
	return out, nil
}

// MemberAdd implements etcdserverpb.ClusterServer.
func (s *clusterService) MemberAdd(ctx context.Context, r *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	m, list, err := s.change.add(ctx, r.GetPeerURLs(), r.GetIsLearner())
	if err != nil {
		return nil, rpcError(err)
	}
	return &pb.MemberAddResponse{
		Header:  s.view.header(0),
		Member:  &pb.Member{ID: uint64(m.ID), PeerURLs: m.PeerURLs, IsLearner: m.Learner},
		Members: memberMessages(list),
	}, nil
}

// MemberRemove implements etcdserverpb.ClusterServer.
func (s *clusterService) MemberRemove(ctx context.Context, r *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	list, err := s.change.remove(ctx, api.MemberID(r.GetID()))
	if err != nil {
		return nil, rpcError(err)
	}
	return &pb.MemberRemoveResponse{Header: s.view.header(0), Members: memberMessages(list)}, nil
}

// MemberUpdate implements etcdserverpb.ClusterServer.
func (s *clusterService) MemberUpdate(ctx context.Context, r *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	list, err := s.change.update(ctx, api.MemberID(r.GetID()), r.GetPeerURLs())
	if err != nil {
		return nil, rpcError(err)
	}
	return &pb.MemberUpdateResponse{Header: s.view.header(0), Members: memberMessages(list)}, nil
}

// MemberPromote implements etcdserverpb.ClusterServer.
func (s *clusterService) MemberPromote(ctx context.Context, r *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	list, err := s.change.promote(ctx, api.MemberID(r.GetID()))
	if err != nil {
		return nil, rpcError(err)
	}
	return &pb.MemberPromoteResponse{Header: s.view.header(0), Members: memberMessages(list)}, nil
}
