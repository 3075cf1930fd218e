package raft

import (
	"slices"
	"time"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
)

// Proposals travel in frames: many callers' commands, one log entry.
//
// A frame is meant for one term. The leader of that term appends it at most
// once; a leader of another term drops it. So once an entry of a later term is
// committed and the frame was not among the entries before it, the frame can
// never be committed: terms only grow along the log. Then, and only then, its
// commands are proposed again in a new frame. Nothing is applied twice, and a
// change of leader needs no retry by the caller.
//
// Within a term, frames to the leader form a chain: each names the one before
// it. The leader takes a frame only when it has taken the one before, so lost
// frames may be sent again and repeated ones do no harm.

const (
	// maxInflightFrames bounds this member's frames under way.
	maxInflightFrames = 4
	// While a frame is under way, commands gather for the next, which leaves when
	// the frame is committed or when there are so many that they are worth an
	// entry: batches grow with the load, and an idle member waits for nothing.
	// Where a commit takes long, one more frame leaves each maxGather.
	worthCommands = 128
	worthBytes    = 64 << 10
	maxGather     = time.Millisecond
	// maxSessions bounds what a leader remembers of the starts of members
	// within its term.
	maxSessions = 4096
	// resendTicks is after how many ticks without progress frames are sent
	// again; it doubles up to resendTicksMax.
	resendTicks    = 3
	resendTicksMax = 48
)

// ownFrame is a frame of this member whose outcome is not known yet.
type ownFrame struct {
	key      frameKey
	term     uint64 // for which it is meant
	commands []*Command
	oldest   uint64 // birth of the oldest command
	batch    []byte // as forwarded; nil when this member led
}

// proposals is the core's part about commands.
type proposals struct {
	queue    []*Command // not proposed yet, oldest first
	confs    []*Command // membership changes, likewise
	inflight []*ownFrame
	bytes    int // of queue and inflight
	count    int // likewise
	session  uint64
	lastSeq  uint64
	blocked  bool // raft refused a proposal; try again after the next tick or change
	buf      []byte
	holding  bool // the shell's gather timer runs
	due      bool // it has run out

	// As a follower: the newest frame forwarded in this term, 0 when none.
	forwarded uint64
	resendAt  uint64 // tick
	resendGap uint64

	// As a leader: the newest frame accepted in this term from each session.
	accepted map[uint64]uint64
}

// propose queues commands; flush sends them on their way.
func (c *core) propose(cmds []*Command) {
	p := &c.proposals
	for _, cmd := range cmds {
		if cmd.conf != nil {
			p.confs = append(p.confs, cmd)
		} else {
			p.queue = append(p.queue, cmd)
		}
		p.bytes += cmd.frameSize()
		p.count++
	}
}

// let forgets a command: it is applied, or ended.
func (p *proposals) let(cmd *Command) {
	p.bytes -= cmd.frameSize()
	p.count--
}

// flush proposes what is queued as far as the frames under way allow.
func (c *core) flush() {
	p := &c.proposals
	if p.blocked || c.lead == 0 {
		return
	}
	for n := c.inflightNow(); n < maxInflightFrames; n++ {
		if n > 0 && !p.due && !p.worth() {
			if len(p.queue) > 0 && !p.holding {
				p.holding = true
				c.fx.gather = maxGather
			}
			return
		}
		p.due = false
		f := c.nextFrame()
		if f == nil {
			return
		}
		if !c.send(f) {
			p.blocked = true
			c.requeue(f)
			return
		}
		p.inflight = append(p.inflight, f)
	}
}

// worth reports whether what is queued deserves a frame although others are
// under way.
func (p *proposals) worth() bool {
	if len(p.confs) > 0 || len(p.queue) >= worthCommands {
		return true
	}
	bytes := 0
	for _, cmd := range p.queue {
		bytes += cmd.frameSize()
	}
	return bytes >= worthBytes
}

// gatherDue is the event of the gather timer.
func (c *core) gatherDue() {
	p := &c.proposals
	p.holding, p.due = false, len(p.queue) > 0
}

// inflightNow counts the frames of the present term.
func (c *core) inflightNow() (n int) {
	for _, f := range c.proposals.inflight {
		if f.term == c.term {
			n++
		}
	}
	return n
}

// nextFrame takes commands off the queue for one frame; nil when there are none.
func (c *core) nextFrame() *ownFrame {
	p := &c.proposals
	if len(p.queue)+len(p.confs) == 0 {
		return nil
	}
	f := &ownFrame{term: c.term, commands: make([]*Command, 0, len(p.queue)+1)}
	if c.mayProposeConf() {
		for len(p.confs) > 0 && len(f.commands) == 0 {
			f.take(p, p.confs[0])
			p.confs = p.confs[1:]
		}
	}
	bytes, n := 0, 0
	for len(f.commands) == 0 || f.commands[0].conf == nil {
		if n == len(p.queue) {
			break
		}
		cmd := p.queue[n]
		if bytes += cmd.frameSize(); bytes > api.MaxEntryBytes && len(f.commands) > 0 {
			break
		}
		f.take(p, cmd)
		n++
	}
	p.queue = slices.Delete(p.queue, 0, n)
	if len(f.commands) == 0 {
		return nil
	}
	p.lastSeq++
	f.key = frameKey{p.session, p.lastSeq}
	return f
}

// take adds a command to the frame, unless its caller has gone: what was not
// proposed yet need not be.
func (f *ownFrame) take(p *proposals, cmd *Command) {
	if !cmd.waiting() {
		p.let(cmd)
		return
	}
	if len(f.commands) == 0 || cmd.born < f.oldest {
		f.oldest = cmd.born
	}
	f.commands = append(f.commands, cmd)
}

// mayProposeConf: one membership change of this member at a time, and on a
// leader only when raft would take it.
func (c *core) mayProposeConf() bool {
	if planted.TwoConfs {
		return true
	}
	for _, f := range c.proposals.inflight {
		if f.commands[0].conf != nil {
			return false
		}
	}
	return c.role != etcdraft.StateLeader || c.confReady()
}

// confReady reports whether this leader has applied every membership change of
// its log: raft replaces a change by an empty entry otherwise.
func (c *core) confReady() bool { return c.appliedTerm == c.term && c.applied >= c.confIndex }

// send proposes the frame or forwards it to the leader. False: not accepted,
// and it will never be in the log.
func (c *core) send(f *ownFrame) bool {
	p := &c.proposals
	conf := f.commands[0].conf
	encode := func(b []byte) []byte {
		if conf != nil {
			return appendConfFrame(b, f.key, conf)
		}
		return appendCommandsFrame(b, f.key, f.commands)
	}
	if c.role == etcdraft.StateLeader {
		p.buf = encode(p.buf[:0]) // raft copies it
		ok := c.append(p.buf, conf)
		if cap(p.buf) > 2*api.MaxEntryBytes {
			p.buf = nil
		}
		return ok
	}
	size := frameOverhead
	for _, cmd := range f.commands {
		size += cmd.frameSize()
	}
	f.batch = encode(appendUint(append(make([]byte, 0, size), 0x92), p.forwarded))
	if p.forwarded == 0 {
		p.resendGap = resendTicks
	}
	if c.oldestForwarded() == nil {
		p.resendAt = c.now + p.resendGap
	}
	p.forwarded = f.key.seq
	c.fx.forwards = append(c.fx.forwards, forwardTask{to: c.lead, term: c.term, batch: f.batch})
	return true
}

// append puts a frame into the leader's log.
func (c *core) append(data []byte, conf *confFrame) bool {
	if conf == nil {
		return c.rn.Propose(data) == nil
	}
	if !c.confReady() {
		return false
	}
	typ, body, err := raftpb.MarshalConfChange(&raftpb.ConfChange{
		Type:    raftpb.ConfChangeType(conf.op).Enum(),
		NodeId:  new(uint64(conf.member)),
		Context: data,
	})
	if err != nil {
		return false
	}
	m := &raftpb.Message{
		Type:    raftpb.MsgProp.Enum(),
		From:    new(uint64(c.cfg.id)),
		Entries: []*raftpb.Entry{{Type: typ.Enum(), Data: body}},
	}
	if c.rn.Step(m) != nil {
		return false
	}
	// Raft swaps a change that it refuses for an empty entry.
	return m.GetEntries()[0].GetType() != raftpb.EntryNormal
}

// accept takes a batch that another member meant for the leader of term.
func (c *core) accept(term uint64, batch []byte) {
	p := &c.proposals
	if c.role != etcdraft.StateLeader || term != c.term {
		return // never to be in the log: the sender learns it from a later term
	}
	r := frameReader{b: batch}
	if r.arrayLen() != 2 {
		return
	}
	prev := r.uint(1<<64 - 1)
	data := r.b
	key, kind, err := checkFrame(data)
	if err != nil || r.err != nil || key.session == 0 || key.seq <= prev || p.accepted[key.session] != prev && !planted.RetryUnknown {
		return // malformed, repeated, or one before it is missing
	}
	if prev == 0 && len(p.accepted) >= maxSessions {
		return
	}
	var conf *confFrame
	if kind == frameConf {
		f, _ := decodeFrame(data)
		if conf = f.conf; conf.op > ConfAddLearner || conf.member == 0 {
			return
		}
	}
	if c.append(data, conf) {
		p.accepted[key.session] = key.seq
	}
}

// resolve takes the frame off the ones under way: it is committed.
func (c *core) resolve(key frameKey) *ownFrame {
	p := &c.proposals
	for i, f := range p.inflight {
		if f.key != key {
			continue
		}
		p.inflight = slices.Delete(p.inflight, i, i+1)
		for _, cmd := range f.commands {
			p.let(cmd)
		}
		p.resendGap = resendTicks
		p.resendAt = c.now + p.resendGap
		return f
	}
	return nil
}

// bury finds the frames of terms before term dead and queues their commands
// again, oldest first.
func (c *core) bury(term uint64) {
	p := &c.proposals
	for i := len(p.inflight) - 1; i >= 0; i-- {
		if f := p.inflight[i]; f.term < term {
			p.inflight = slices.Delete(p.inflight, i, i+1)
			c.requeue(f)
		}
	}
}

// requeue puts a frame's commands back to the head of the queue.
func (c *core) requeue(f *ownFrame) {
	p := &c.proposals
	if f.commands[0].conf != nil {
		p.confs = slices.Concat(f.commands, p.confs)
	} else {
		p.queue = slices.Concat(f.commands, p.queue)
	}
}

// loseSight ends the commands whose frames may be inside a snapshot of the
// given term: whether they were applied cannot be known here.
func (c *core) loseSight(term uint64) {
	p := &c.proposals
	p.inflight = slices.DeleteFunc(p.inflight, func(f *ownFrame) bool {
		if f.term > term {
			return false
		}
		for _, cmd := range f.commands {
			c.finish(cmd, c.timeout(cmd.born))
			p.let(cmd)
		}
		return true
	})
	// A frame that was lost on its way to the leader is not sent again now, so
	// the chain of this term is broken: begin another.
	c.newSession()
}

// newSession draws a name for the frames to come that no frame had before.
func (c *core) newSession() {
	p := &c.proposals
	p.session, p.forwarded = 0, 0
	for p.session == 0 {
		p.session = c.cfg.rng.Uint64()
	}
}

func (c *core) finish(cmd *Command, err error) {
	c.fx.finished = append(c.fx.finished, finishedCommand{cmd, err})
}

// expire ends commands that have waited too long and forgets queued ones whose
// callers have gone. One that is in a frame under way stays there, for it may
// still be applied, but nobody waits for it.
func (c *core) expire() {
	p := &c.proposals
	p.blocked = false
	old := func(born uint64) bool { return born+c.cfg.timeoutTicks <= c.now }
	drop := func(cmd *Command) bool {
		if old(cmd.born) {
			c.finish(cmd, ErrNotProposed) // or only in a term that is over: it is in no log
		} else if cmd.waiting() {
			return false
		}
		p.let(cmd)
		return true
	}
	p.queue = slices.DeleteFunc(p.queue, drop)
	p.confs = slices.DeleteFunc(p.confs, drop)
	for _, f := range p.inflight {
		if !old(f.oldest) {
			continue
		}
		f.oldest = c.now
		for _, cmd := range f.commands {
			if !old(cmd.born) {
				f.oldest = min(f.oldest, cmd.born)
			} else if cmd.waiting() {
				c.finish(cmd, c.timeout(cmd.born))
			}
		}
	}
}

// oldestForwarded is the oldest frame forwarded in this term, or nil.
func (c *core) oldestForwarded() *ownFrame {
	for _, f := range c.proposals.inflight {
		if f.term == c.term && f.batch != nil {
			return f
		}
	}
	return nil
}

// resend forwards the frames of this term again when nothing came of them.
func (c *core) resend() {
	p := &c.proposals
	if c.oldestForwarded() == nil || c.now < p.resendAt {
		return
	}
	p.resendGap = min(2*p.resendGap, resendTicksMax)
	c.resendNow()
}

// resendNow forwards all frames of this term again, in order.
func (c *core) resendNow() {
	p := &c.proposals
	if c.lead == 0 || c.role == etcdraft.StateLeader {
		return
	}
	p.resendAt = c.now + p.resendGap
	for _, f := range p.inflight {
		if f.term == c.term && f.batch != nil {
			c.fx.forwards = append(c.fx.forwards, forwardTask{to: c.lead, term: c.term, batch: f.batch})
		}
	}
}

// newTerm begins the chains anew, on both sides.
func (c *core) newTerm() {
	p := &c.proposals
	p.forwarded = 0
	p.resendGap = resendTicks
	clear(p.accepted)
}

// endAll ends every command with err; the node stops.
func (c *core) endAll(err error) {
	p := &c.proposals
	for _, cmd := range slices.Concat(p.queue, p.confs) {
		c.finish(cmd, err)
	}
	for _, f := range p.inflight {
		for _, cmd := range f.commands {
			c.finish(cmd, err)
		}
	}
	p.queue, p.confs, p.inflight = nil, nil, nil
}
