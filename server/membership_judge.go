package server

import (
	"encoding/json"
	"fmt"
	"sync/atomic"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft"
)

// memberChange is the context of a membership change in the log, in JSON: the
// member's row, and what etcd puts beside it.
type memberChange struct {
	Member
	// Promote: the member is there already, as a learner.
	Promote bool `json:"isPromote,omitempty"`
	// MaxLearners is the proposer's limit. It travels with the change, so that
	// members with different settings decide alike.
	MaxLearners int `json:"maxLearners,omitempty"`
}

// judge says, when a change is committed, whether it is still valid: changes may
// have been proposed at once. Its verdicts depend on the changes before alone, so
// all members judge alike. It is ahead of what is applied.
//
// Owned by raft's loop goroutine, save for installed.
type judge struct {
	set *memberSet
	// installed is the membership of a snapshot, to judge by from now on. Raft
	// hands no entry over between the coming of a snapshot and its installation.
	installed atomic.Pointer[memberSet]
}

// newJudge judges by what the store holds, and not by the members with which a
// new cluster begins: those come as changes.
func newJudge(store rawReader) (*judge, error) {
	m := newMembers(nil)
	if err := m.load(store); err != nil {
		return nil, err
	}
	return &judge{set: m.current.Load()}, nil
}

// replace is called by the apply goroutine when it has installed a snapshot.
func (j *judge) replace(set *memberSet) { j.installed.Store(set) }

// allow says why a change must not be made, and remembers it if it may.
func (j *judge) allow(op raft.ConfOp, id api.MemberID, context []byte) error {
	if set := j.installed.Swap(nil); set != nil {
		j.set = set
	}
	change, err := decodeChange(context)
	if err != nil {
		return err
	}
	if err := j.set.valid(op, id, change); err != nil {
		return err
	}
	j.set = j.set.changed(op, id, change)
	return nil
}

func decodeChange(context []byte) (*memberChange, error) {
	c := &memberChange{}
	if len(context) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(context, c); err != nil {
		return nil, fmt.Errorf("membership change: %w", err)
	}
	return c, nil
}

// valid has etcd's checks in etcd's order.
func (s *memberSet) valid(op raft.ConfOp, id api.MemberID, c *memberChange) error {
	row, known := s.find(id)
	adds := op == raft.ConfAddVoter || op == raft.ConfAddLearner
	switch {
	case s.removed[id]:
		return api.ErrMemberNotFound
	case adds && !c.Promote:
		return s.validAddition(op, id, c)
	case !known:
		return api.ErrMemberNotFound
	case adds && !row.Learner:
		return api.ErrMemberNotLearner
	case op == raft.ConfUpdate && s.urlTaken(c.PeerURLs, id):
		return api.ErrPeerURLExists
	}
	return nil
}

func (s *memberSet) validAddition(op raft.ConfOp, id api.MemberID, c *memberChange) error {
	if _, known := s.find(id); known {
		return api.ErrMemberExists
	}
	if s.urlTaken(c.PeerURLs, id) {
		return api.ErrPeerURLExists
	}
	if op == raft.ConfAddLearner && len(s.learners()) >= c.MaxLearners {
		return api.ErrTooManyLearners
	}
	return nil
}

// urlTaken reports whether another member than id has one of the URLs.
func (s *memberSet) urlTaken(urls []string, id api.MemberID) bool {
	taken := map[string]bool{}
	for _, m := range s.list {
		for _, u := range m.PeerURLs {
			taken[u] = taken[u] || m.ID != id
		}
	}
	for _, u := range urls {
		if taken[u] {
			return true
		}
	}
	return false
}

func (s *memberSet) learners() (out []Member) {
	for _, m := range s.list {
		if m.Learner {
			out = append(out, m)
		}
	}
	return out
}

func (s *memberSet) voters() (out []Member) {
	for _, m := range s.list {
		if !m.Learner {
			out = append(out, m)
		}
	}
	return out
}

// changed is the set after a valid change.
func (s *memberSet) changed(op raft.ConfOp, id api.MemberID, c *memberChange) *memberSet {
	if op == raft.ConfRemove {
		return s.without(id)
	}
	return s.with(s.row(op, id, c))
}

// row is a member's row after a change that adds or alters it.
func (s *memberSet) row(op raft.ConfOp, id api.MemberID, c *memberChange) Member {
	row, _ := s.find(id)
	switch {
	case op == raft.ConfUpdate:
		row.PeerURLs = c.PeerURLs
	case c.Promote:
		row.Learner = false
	default:
		row = c.Member
		row.ID, row.Learner = id, op == raft.ConfAddLearner
	}
	return row
}

// applyConf brings the member rows in line with a change that the judge allowed.
// Apply goroutine only.
func (m *members) applyConf(tx rawWriter, cc *raft.ConfChange) {
	if cc.Op == raft.ConfRemove {
		m.remove(tx, cc.Member)
		return
	}
	change, err := decodeChange(cc.Context)
	if err != nil {
		panic(fmt.Sprintf("members: a change that was judged cannot be read: %v", err))
	}
	m.set(tx, m.current.Load().row(cc.Op, cc.Member, change))
}
