package raft

import (
	"slices"
	"time"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
)

// Fast failover. Raft's election timeout is for failures that nobody sees. A
// process that dies is seen at once: its streams break and its port refuses.
// Then a follower forgets the leader and campaigns after a short delay. PreVote
// keeps this harmless: members that still hear a leader ignore the campaign, so
// a wrong guess costs a few messages and no term.
//
// The delay is shortest for the first living voter by id and grows by rank, so
// that two rarely campaign at once; the next one takes over when the first
// fails. The unit is a fiftieth of the election timeout, which the operator
// sets by the network's round trip.

const (
	electionUnits = 50
	// campaignTries bounds the early campaigns in a row; after them the election
	// timeout rules.
	campaignTries = 6
)

// election is the core's part about leaders.
type election struct {
	peers    map[uint64]*peerState
	hurrying bool // the shell's campaign timer runs
	tries    int
	heard    bool              // from the leader since the last tick
	answered map[uint64]uint64 // tick of the last answer of each follower
}

// peerState is what the transport says of a member.
type peerState struct {
	up    bool
	since uint64 // tick of the last change
}

func (c *core) unit() time.Duration {
	return time.Duration(c.cfg.electionTicks) * c.cfg.tick / electionUnits
}

func (c *core) jitter(d time.Duration) time.Duration {
	return time.Duration(c.cfg.rng.Int64N(int64(d) + 1))
}

func (c *core) isVoter(id uint64) bool { return slices.Contains(c.conf.GetVoters(), id) }

// peerUp: the transport reached the member.
func (c *core) peerUp(id uint64) {
	c.election.peers[id] = &peerState{up: true, since: c.now}
	if id == c.lead {
		c.resendNow()
	}
	c.hurry()
}

// peerDown: the member's process is gone, as far as the transport can tell.
func (c *core) peerDown(id uint64) {
	c.election.peers[id] = &peerState{since: c.now}
	c.rn.ReportUnreachable(id)
	if id == c.lead {
		c.abandonLeader()
	}
}

func (c *core) abandonLeader() {
	_ = c.rn.ForgetLeader() // fails for no role
	c.ready()
	c.hurry()
}

// checkLeader repeats what peerDown did when a last message of the dead leader
// came in after the news of its death.
func (c *core) checkLeader() {
	p := c.election.peers[c.lead]
	if p != nil && !p.up && p.since < c.now-1 && !c.election.heard {
		c.abandonLeader()
	}
	c.election.heard = false
}

// hurry sets the campaign timer when there is no leader but a quorum of voters
// that can be reached.
func (c *core) hurry() {
	e := &c.election
	self := uint64(c.cfg.id)
	if e.hurrying || c.lead != 0 || !c.isVoter(self) {
		return
	}
	up, rank := 1, 0
	for _, id := range c.conf.GetVoters() {
		if p := e.peers[id]; id != self && p != nil && p.up {
			up++
			if id < self {
				rank++
			}
		}
	}
	if up <= len(c.conf.GetVoters())/2 {
		return
	}
	e.hurrying, e.tries = true, 0
	c.setCampaign(c.unit()/4 + time.Duration(rank)*c.unit() + c.jitter(c.unit()/2))
}

func (c *core) setCampaign(d time.Duration) { c.fx.campaign = max(d, 1) }

// yield makes room for the candidate that just got this member's vote.
func (c *core) yield() {
	if c.election.hurrying {
		c.setCampaign(3*c.unit() + c.jitter(2*c.unit()))
	}
}

// campaignDue is the event of the campaign timer.
func (c *core) campaignDue() {
	e := &c.election
	e.hurrying = false
	if c.lead != 0 || !c.isVoter(uint64(c.cfg.id)) {
		return
	}
	_ = c.rn.Campaign() // refused while a snapshot or a membership change is pending
	if e.tries++; e.tries < campaignTries {
		e.hurrying = true
		d := 2*c.unit() + c.jitter(2*c.unit())
		c.setCampaign(d << (e.tries - 1))
	}
}

// campaignAlone lets a cluster of one voter begin without any wait.
func (c *core) campaignAlone() {
	v := c.conf.GetVoters()
	if c.role == etcdraft.StateFollower && c.lead == 0 && len(v) == 1 && v[0] == uint64(c.cfg.id) && c.applied == c.committed {
		_ = c.rn.Campaign()
		c.ready()
	}
}

// A refused vote tells what is committed. A candidate may lack no more than that
// knowledge: a member that was removed knows it, cannot lead any more, and has more
// in its log than the candidate, which still needs its vote and would ask for ever.
// With the knowledge the candidate makes the change, and decides without it.
// That is safe: what is committed stays so, and two logs with the same entry at an
// index are the same up to it.

func refusesVote(m *raftpb.Message) bool {
	t := m.GetType()
	return (t == raftpb.MsgPreVoteResp || t == raftpb.MsgVoteResp) && m.GetReject()
}

// tellCommitted adds to a refusal the newest entry that this member knows to be committed.
func (c *core) tellCommitted(m *raftpb.Message) {
	if term, err := c.cfg.storage.Term(c.committed); err == nil && term > 0 {
		m.Commit, m.LogTerm = proto.Uint64(c.committed), proto.Uint64(term)
	}
}

// learnCommitted takes from a refusal what this member has in its log. Raft learns
// it as from a leader, which it forgets at once.
func (c *core) learnCommitted(m *raftpb.Message) {
	st := c.rn.BasicStatus()
	if m.GetCommit() <= st.GetCommit() || st.Lead != 0 || st.RaftState == etcdraft.StateLeader {
		return
	}
	if term, err := c.cfg.storage.Term(m.GetCommit()); err != nil || term != m.GetLogTerm() || term == 0 {
		return
	}
	_ = c.rn.Step(&raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), From: m.From, To: m.To, Term: proto.Uint64(st.GetTerm()), Commit: m.Commit,
	})
	_ = c.rn.ForgetLeader()
}

// leaderChanged follows each change of the known leader.
func (c *core) leaderChanged() {
	e := &c.election
	e.heard = true
	if c.lead != 0 {
		if e.hurrying {
			e.hurrying = false
			c.fx.campaign = -1
		}
		if c.lead != uint64(c.cfg.id) {
			c.resendNow() // the same leader may be back within its term
		}
		return
	}
	c.hurry()
}

// transferee is the voter to hand leadership to: one that is heard of, or at
// least connected, and then the most caught up. 0 when there is none.
func (c *core) transferee() (id uint64) {
	var best uint64
	var heard bool
	c.rn.WithProgress(func(peer uint64, typ etcdraft.ProgressType, pr tracker.Progress) {
		if peer == uint64(c.cfg.id) || typ != etcdraft.ProgressTypePeer {
			return
		}
		if p := c.election.peers[peer]; p != nil && !p.up || p == nil && !pr.RecentActive {
			return
		}
		better := pr.Match > best
		if pr.RecentActive != heard {
			better = pr.RecentActive
		}
		if id == 0 || better {
			id, best, heard = peer, pr.Match, pr.RecentActive
		}
	})
	return id
}

// transfer begins to hand leadership to a voter, 0 for the best one. It reports
// whether there is somebody to take it.
func (c *core) transfer(to uint64) bool {
	if c.role != etcdraft.StateLeader {
		return false
	}
	if to == 0 {
		to = c.transferee()
	}
	if to == 0 || to == uint64(c.cfg.id) || !c.isVoter(to) {
		return false
	}
	// A transfer puts off Raft's own look for its quorum: asked again and again, a
	// leader that is cut off would go on for ever.
	if c.hearsQuorum() {
		c.rn.TransferLeader(to)
	}
	return true
}

// hearsQuorum reports whether a leader has heard of a majority within an election
// timeout, or is too new for that.
func (c *core) hearsQuorum() bool {
	recent := func(tick uint64) bool { return c.now-tick <= uint64(c.cfg.electionTicks) }
	voters := c.conf.GetVoters()
	near := 0
	for _, id := range voters {
		if at, ok := c.election.answered[id]; id == uint64(c.cfg.id) || ok && recent(at) {
			near++
		}
	}
	return recent(c.leadSince) || near > len(voters)/2
}

// timeout says of a command or read born at a tick why it may have found no
// outcome, by etcd's rule.
func (c *core) timeout(born uint64) error {
	span := uint64(2 * c.cfg.electionTicks)
	if c.lead != 0 && born+span > c.leadSince && born < c.leadSince {
		return ErrTimeoutLeader
	}
	switch c.lead {
	case 0:
		return ErrTimeout
	case uint64(c.cfg.id):
		connected := 1
		for _, id := range c.conf.GetVoters() {
			if id != uint64(c.cfg.id) && c.connectedSince(id, born) {
				connected++
			}
		}
		if connected <= len(c.conf.GetVoters())/2 {
			return ErrTimeoutConnLost
		}
	default:
		if !c.connectedSince(c.lead, born) {
			return ErrTimeoutConnLost
		}
	}
	return ErrTimeout
}

func (c *core) connectedSince(id, tick uint64) bool {
	p := c.election.peers[id]
	return p != nil && p.up && p.since <= tick
}

// unreachable: messages to the member were dropped.
func (c *core) unreachable(id uint64) { c.rn.ReportUnreachable(id) }

// snapshotSent tells raft how the sending of a snapshot ended.
func (c *core) snapshotSent(id uint64, ok bool) {
	status := etcdraft.SnapshotFailure
	if ok {
		status = etcdraft.SnapshotFinish
	}
	c.rn.ReportSnapshot(id, status)
}

// progress is the leader's view of all members.
func (c *core) progress() (all []Progress) {
	if c.role != etcdraft.StateLeader {
		return nil
	}
	c.rn.WithProgress(func(id uint64, typ etcdraft.ProgressType, pr tracker.Progress) {
		all = append(all, Progress{
			ID:           api.MemberID(id),
			Learner:      typ == etcdraft.ProgressTypeLearner,
			Match:        api.Index(pr.Match),
			RecentActive: pr.RecentActive,
			Snapshot:     pr.State == tracker.StateSnapshot,
		})
	})
	return all
}
