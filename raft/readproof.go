package raft

import (
	"slices"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/planted"
)

// A leader may answer a read request once it knows that nobody was elected after it
// before the reader came. raft asks everybody, in a round of heartbeats. But a
// follower that asks can say in which term it is, and where the leader and one
// follower are a majority, as in a cluster of three, that is all there is to know:
// four of six messages and one of two rounds are saved.
//
// Invariant: the term that a read request carries is one that its sender was in after
// the reader had come; no member goes back to an earlier term. Whoever was elected in a later
// term before the reader came has the vote of the leader or of the sender, as two
// majorities share a member. The leader would know of that term by now, and the sender would
// have been in it when it asked: its request would carry a later term than the
// leader is in.

// vouch has a read request that leaves this member say which term it is in. Its
// readers came before: startRead is given them all.
func (c *core) vouch(m *raftpb.Message) { m.LogTerm = proto.Uint64(c.term) }

// answerVouched answers a follower's read request, if that and the leader are a
// majority; else raft has to ask the others. LogTerm is 0 in a request from a member
// of an earlier release.
func (c *core) answerVouched(m *raftpb.Message) bool {
	now := c.rn.BasicStatus()
	leads := now.RaftState == etcdraft.StateLeader && c.handedTerm == now.GetTerm() // see termCommitted
	vouched := m.GetLogTerm() != 0 && m.GetLogTerm() <= now.GetTerm()
	if !leads || !vouched || len(m.GetEntries()) != 1 || !c.twoDecide(m.GetFrom()) {
		return false
	}
	c.fx.sends = append(c.fx.sends, &raftpb.Message{
		Type: raftpb.MsgReadIndexResp.Enum(), From: proto.Uint64(uint64(c.cfg.id)), To: m.From,
		Term: proto.Uint64(now.GetTerm()), Index: proto.Uint64(now.GetCommit()), Entries: m.GetEntries(),
	})
	return true
}

// twoDecide reports whether this member and another are a majority of the voters.
func (c *core) twoDecide(other uint64) bool {
	voters := c.conf.GetVoters()
	return len(c.conf.GetVotersOutgoing()) == 0 && (len(voters) <= 3 || planted.ReadByTwo) &&
		slices.Contains(voters, uint64(c.cfg.id)) && slices.Contains(voters, other)
}
