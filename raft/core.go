package raft

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
)

// core is the node without goroutines, locks, clock and files: events go in
// through its methods, and what they call for comes out of effects. Time is a
// count of ticks. The shell (loop.go) and the simulator drive the same code.
//
// Invariants:
//   - handedTerm <= term: no entry is newer than the term in which it is seen
//   - a frame of inflight has term <= term, and seq grows along inflight
//   - a frame of inflight is neither in an entry handed to apply nor dead
type core struct {
	rn  *etcdraft.RawNode
	cfg coreConfig
	now uint64 // ticks since the start

	// As of the last Ready.
	term      uint64
	vote      uint64
	committed uint64
	lead      uint64
	role      etcdraft.StateType
	leadSince uint64 // tick at which the present leader became known
	conf      *raftpb.ConfState

	// Apply.
	handedTerm  uint64 // term of the newest entry handed to apply
	appliedTerm uint64 // term of the newest entry that apply has finished
	applied     uint64
	confIndex   uint64 // newest membership entry handed to apply

	proposals proposals   // batch.go
	election  election    // elect.go
	reads     []readState // below, the oldest first

	fx effects
}

type coreConfig struct {
	id                            api.MemberID
	storage                       etcdraft.Storage
	applied                       api.Index
	appliedTerm                   api.Term
	electionTicks, heartbeatTicks int
	tick                          time.Duration
	timeoutTicks                  uint64 // of a proposal
	rng                           *rand.Rand
	judge                         func(op ConfOp, member api.MemberID, context []byte) error // nil: all are good
	logger                        etcdraft.Logger
}

// readState is a read request under way.
type readState struct {
	id     uint64 // of later ones greater
	issued bool   // handed to raft, which may lose it
	at     uint64 // tick of issue
}

// effects is what events call for. The shell carries them out in the order of
// the fields, each slice in its own order.
type effects struct {
	sends     []*raftpb.Message // to other members
	forwards  []forwardTask
	appends   []*raftpb.Message // MsgStorageAppend
	applies   []applyTask
	snapshots []*raftpb.Message // MsgSnap, whose state the shell supplies
	reads     []readReady
	finished  []finishedCommand // ended without having been applied
	timers
	changed bool // leader, role, term or membership
}

// timers are those that the shell runs for the core, beside the ticks. A value
// that is not 0 sets one, a negative one stops it.
type timers struct {
	campaign time.Duration // campaignDue
	gather   time.Duration // gatherDue
}

type forwardTask struct {
	to    uint64
	term  uint64
	batch []byte
}

// applyTask is one MsgStorageApply with what this member knows of its entries.
type applyTask struct {
	msg   *raftpb.Message
	own   []*ownFrame   // by entry; nil when none is this member's
	confs []*ConfChange // of the membership entries, in order
}

type readReady struct{ id, index uint64 }

type finishedCommand struct {
	command *Command
	err     error
}

const (
	maxAppendBytes = 1 << 20 // of one MsgApp
	maxApplyBytes  = 8 << 20 // handed to apply and not yet applied
	// maxInflightAppends bounds the MsgApps under way to one follower, and
	// maxInflightBytes what they hold.
	maxInflightAppends = 256
	maxInflightBytes   = 32 << 20
	maxUncommitted     = 256 << 20
)

func newCore(cfg coreConfig) (*core, error) {
	reads := etcdraft.ReadOnlySafe
	if planted.LeaderLeaseReads {
		reads = etcdraft.ReadOnlyLeaseBased
	}
	rn, err := etcdraft.NewRawNode(&etcdraft.Config{
		ReadOnlyOption:              reads,
		ID:                          uint64(cfg.id),
		ElectionTick:                cfg.electionTicks,
		HeartbeatTick:               cfg.heartbeatTicks,
		Storage:                     cfg.storage,
		Applied:                     uint64(cfg.applied),
		AsyncStorageWrites:          true,
		MaxSizePerMsg:               maxAppendBytes,
		MaxCommittedSizePerReady:    maxApplyBytes,
		MaxUncommittedEntriesSize:   maxUncommitted,
		MaxInflightMsgs:             maxInflightAppends,
		MaxInflightBytes:            maxInflightBytes,
		CheckQuorum:                 !planted.NoCheckQuorum,
		PreVote:                     true,
		DisableProposalForwarding:   true,
		StepDownOnRemoval:           true,
		DisableConfChangeValidation: planted.TwoConfs,
		Logger:                      cfg.logger,
	})
	if err != nil {
		return nil, err
	}
	hs, conf, err := cfg.storage.InitialState()
	if err != nil {
		return nil, err
	}
	c := &core{rn: rn, cfg: cfg, conf: conf}
	c.term, c.vote, c.committed = hs.GetTerm(), hs.GetVote(), hs.GetCommit()
	c.applied, c.appliedTerm, c.handedTerm = uint64(cfg.applied), uint64(cfg.appliedTerm), uint64(cfg.appliedTerm)
	c.election.peers, c.election.answered = map[uint64]*peerState{}, map[uint64]uint64{}
	c.proposals.accepted = map[uint64]uint64{}
	c.newSession()
	return c, nil
}

// tick is one step of time.
func (c *core) tick() {
	c.now++
	c.rn.Tick()
	c.expire()
	c.resend()
	c.checkLeader()
	for i := range c.reads {
		if r := &c.reads[i]; r.issued && c.now-r.at >= uint64(2*c.cfg.heartbeatTicks) {
			r.issued = false // the request or its answer was lost: ask again
		}
	}
}

// step takes a message of another member or the answer of a storage goroutine.
func (c *core) step(m *raftpb.Message) {
	switch m.GetType() {
	case raftpb.MsgProp:
		return // proposals travel as forwarded batches
	case raftpb.MsgReadIndex:
		// With one voter raft answers at once, even before the new leader knows
		// the newest committed entry. Whoever asks will ask again.
		if c.role == etcdraft.StateLeader && !c.termCommitted() {
			return
		}
		if c.answerVouched(m) {
			return
		}
	case raftpb.MsgStorageApplyResp:
		last := m.GetEntries()[len(m.GetEntries())-1]
		c.applied, c.appliedTerm = last.GetIndex(), last.GetTerm()
	case raftpb.MsgAppResp:
		if planted.CommitByLearner {
			c.countLearner(m)
		}
	case raftpb.MsgHeartbeat, raftpb.MsgApp:
		if m.GetFrom() == c.lead {
			c.election.heard = true
		}
	}
	// Errors mean a message that is stale, of a stranger or not allowed from
	// the network: all are dropped.
	err := c.rn.Step(m)
	if t := m.GetType(); err == nil && (t == raftpb.MsgAppResp || t == raftpb.MsgHeartbeatResp) {
		c.election.answered[m.GetFrom()] = c.now
	}
	if refusesVote(m) {
		c.learnCommitted(m)
	}
}

// countLearner is the bug commit-by-learner: what a learner has counts as a
// voter's.
func (c *core) countLearner(m *raftpb.Message) {
	if !slices.Contains(c.conf.GetLearners(), m.GetFrom()) {
		return
	}
	for _, id := range c.conf.GetVoters() {
		if id != uint64(c.cfg.id) {
			as := proto.Clone(m).(*raftpb.Message)
			as.From = proto.Uint64(id)
			_ = c.rn.Step(as)
		}
	}
}

// termCommitted reports whether an entry of the present term is known to be
// committed here. Only then does a leader know all that was acknowledged.
func (c *core) termCommitted() bool { return c.handedTerm == c.term }

// startRead begins a read barrier; effects.reads answers it.
func (c *core) startRead(id uint64) { c.reads = append(c.reads, readState{id: id}) }

// dropReads forgets the read barriers up to id.
func (c *core) dropReads(id uint64) {
	c.reads = slices.DeleteFunc(c.reads, func(r readState) bool { return r.id <= id })
}

func (c *core) issueReads() {
	if leads := c.role == etcdraft.StateLeader; c.lead == 0 || leads && !c.termCommitted() {
		return
	}
	for i := range c.reads {
		if r := &c.reads[i]; !r.issued {
			r.issued, r.at = true, c.now
			c.rn.ReadIndex(binary.LittleEndian.AppendUint64(nil, r.id))
		}
	}
}

// effects lets everything come out that the events so far call for. The caller
// owns the result until the next call.
func (c *core) effects() *effects {
	c.ready()
	c.campaignAlone()
	c.issueReads()
	c.flush()
	c.ready()
	return &c.fx
}

// reset empties the effects for the next round and keeps their memory.
func (fx *effects) reset() {
	clear(fx.sends)
	clear(fx.forwards)
	clear(fx.appends)
	clear(fx.applies)
	clear(fx.snapshots)
	clear(fx.finished)
	*fx = effects{
		sends: fx.sends[:0], forwards: fx.forwards[:0], appends: fx.appends[:0], applies: fx.applies[:0],
		snapshots: fx.snapshots[:0], reads: fx.reads[:0], finished: fx.finished[:0],
	}
}

func (c *core) ready() {
	for c.rn.HasReady() {
		rd := c.rn.Ready()
		if rd.HardState != nil {
			c.hardState(rd.HardState)
		}
		if rd.SoftState != nil {
			c.softState(rd.SoftState)
		}
		for _, m := range rd.Messages {
			c.route(m)
		}
		for _, rs := range rd.ReadStates {
			c.readAnswered(rs)
		}
	}
}

func (c *core) readAnswered(rs etcdraft.ReadState) {
	if len(rs.RequestCtx) != 8 {
		return
	}
	id := binary.LittleEndian.Uint64(rs.RequestCtx)
	if slices.ContainsFunc(c.reads, func(r readState) bool { return r.id == id }) {
		c.dropReads(id) // whose readers came before these
		c.fx.reads = append(c.fx.reads, readReady{id: id, index: rs.Index})
	}
}

func (c *core) hardState(hs *raftpb.HardState) {
	if hs.GetTerm() != c.term {
		c.term = hs.GetTerm()
		c.newTerm()
		c.fx.changed = true
	}
	if v := hs.GetVote(); v != c.vote {
		c.vote = v
		if v != 0 && v != uint64(c.cfg.id) {
			c.yield()
		}
	}
	c.committed = hs.GetCommit()
}

func (c *core) softState(ss *etcdraft.SoftState) {
	if ss.Lead != c.lead {
		c.lead = ss.Lead
		c.leadSince = c.now
		for i := range c.reads {
			c.reads[i].issued = false
		}
		c.leaderChanged()
	}
	c.role = ss.RaftState
	c.proposals.blocked = false
	c.fx.changed = true
}

func (c *core) route(m *raftpb.Message) {
	switch {
	case m.GetTo() == etcdraft.LocalAppendThread:
		if s := m.GetSnapshot(); !etcdraft.IsEmptySnap(s) {
			c.restored(s)
		}
		for _, answer := range m.GetResponses() {
			if refusesVote(answer) {
				c.tellCommitted(answer)
			}
		}
		c.fx.appends = append(c.fx.appends, m)
	case m.GetTo() == etcdraft.LocalApplyThread:
		c.handOver(m)
	case m.GetType() == raftpb.MsgSnap:
		c.fx.snapshots = append(c.fx.snapshots, m)
	case m.GetFrom() != uint64(c.cfg.id):
		// A read request that came too late for the leader that it was meant for.
		// raft passes it on in its sender's name, for which the next member would
		// take our stream for broken. Who asked will ask again.
	default:
		if m.GetType() == raftpb.MsgReadIndex {
			c.vouch(m)
		}
		if n := len(m.GetEntries()); planted.ApplyEarly && m.GetType() == raftpb.MsgApp && n > 0 {
			m.Commit = m.GetEntries()[n-1].Index
		}
		c.fx.sends = append(c.fx.sends, m)
	}
}

// handOver prepares committed entries for the apply goroutine: it finds this
// member's own frames among them and makes the membership changes, in order.
func (c *core) handOver(m *raftpb.Message) {
	t := applyTask{msg: m}
	for i, e := range m.GetEntries() {
		if e.GetTerm() > c.handedTerm {
			c.handedTerm = e.GetTerm()
			c.bury(e.GetTerm())
		}
		var own *ownFrame
		if e.GetType() == raftpb.EntryNormal {
			if key, _, err := peekFrame(e.GetData()); err == nil {
				own = c.resolve(key)
			}
		} else {
			var change *ConfChange
			change, own = c.changeConf(e)
			t.confs = append(t.confs, change)
		}
		if own != nil {
			if t.own == nil {
				t.own = make([]*ownFrame, len(m.GetEntries()))
			}
			t.own[i] = own
		}
	}
	c.fx.applies = append(c.fx.applies, t)
}

// changeConf makes the membership change of a committed entry. Raft allows it
// to take effect as soon as it is committed; the state machine learns of it in
// its turn. An entry that would leave no voter is refused on every member.
func (c *core) changeConf(e *raftpb.Entry) (*ConfChange, *ownFrame) {
	cc := &raftpb.ConfChange{}
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		panic("raft: membership entry " + err.Error())
	}
	change := &ConfChange{Op: ConfOp(cc.GetType()), Member: api.MemberID(cc.GetNodeId()), Command: &Command{}}
	var own *ownFrame
	if f, err := decodeFrame(cc.GetContext()); err == nil && f.conf != nil {
		change.Context = f.conf.context
		if own = c.resolve(f.frameKey); own != nil {
			change.Command = own.commands[0]
		}
	}
	c.confIndex = e.GetIndex()
	if change.Err = c.judge(change); change.Err != nil {
		change.State, change.Command.Err = c.conf, change.Err
		return change, own
	}
	c.conf = c.rn.ApplyConfChange(cc)
	c.fx.changed = true
	change.State = c.conf
	return change, own
}

// judge says why a change must not be made. What would leave no voter is not
// even shown to the judge.
func (c *core) judge(change *ConfChange) error {
	lastVoter := len(c.conf.GetVoters()) == 1 && c.conf.GetVoters()[0] == uint64(change.Member)
	if lastVoter && (change.Op == ConfRemove || change.Op == ConfAddLearner) {
		return api.ErrMemberNotEnoughStarted
	}
	if c.cfg.judge == nil {
		return nil
	}
	return c.cfg.judge(change.Op, change.Member, change.Context)
}

// restored accounts for a snapshot that replaces the log.
func (c *core) restored(s *raftpb.Snapshot) {
	c.conf = s.GetMetadata().GetConfState()
	c.fx.changed = true // it may have been a learner
	c.handedTerm = max(c.handedTerm, s.GetMetadata().GetTerm())
	c.loseSight(s.GetMetadata().GetTerm())
}

// installed accounts for the state machine having taken a snapshot.
func (c *core) installed(index, term uint64) {
	c.applied, c.appliedTerm = max(c.applied, index), max(c.appliedTerm, term)
}
