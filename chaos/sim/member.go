package sim

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/server"
)

// member is one machine: a disk, a clock, and a process that comes and goes.
type member struct {
	s    *Sim
	n    int
	name string
	id   api.MemberID // known once it has started
	disk *disk

	// Its place in the cluster.
	port   int    // of its peer URL
	joins  bool   // it was added to a cluster that runs
	mark   uint64 // of its directory, as the others know it
	wiped  bool   // it has lost its directory, and is refused for it
	left   bool   // it has stopped for good
	voters []uint64

	// The process. life counts them: what was planned for one ends with it.
	node      *server.Stepped // nil: down
	life      int
	started   time.Duration
	fs        *vfs.Fault
	wire      *wire
	parked    []*task
	streams   []*stream
	repairing bool             // it has no Node yet
	rotten    bool             // a fault has damaged its database, and it is not rebuilt
	damaged   bool             // a fault has damaged its log, and it is not repaired
	proven    map[string]int64 // of each file of the log: what lies below was proven durable
	cutOff    int              // faults that keep clients away
	crashAt   int              // calls of the file system until the power fails; 0: it does not
	dead      *disk            // the power has failed inside a call: what is left
	failing   error            // what the next commit of the store ends with
	applied   bool             // that commit reaches the disk all the same

	writing, applying, expiring, polling bool
	campaign, expiries                   int // numbers of the timers set last
	role                                 raft.Status
	ticks                                int                  // of this process
	heard                                map[api.MemberID]int // tick at which something came from another member
	leads                                int                  // tick since which it leads these voters
	elected                              uint64               // newest entry applied anywhere when it was elected; 0: checked
	paused                               time.Duration        // until when it stands still
	stalled                              time.Duration        // until when its disk does

	drift int           // of its clock; see memberClock
	wall  time.Duration // by which its date is wrong
}

func newMember(s *Sim, n int) *member {
	m := &member{s: s, n: n, port: n, name: fmt.Sprint("m", n), disk: newDisk(s.cfg.Seed<<8 + uint64(n))}
	if d := s.cfg.Drift; d > 0 {
		m.drift = s.chance.member.IntN(2*d+1) - d
	}
	return m
}

func peerURL(n int) string { return fmt.Sprintf("http://127.0.0.1:%d", 20000+n) }

func (m *member) config() server.Config {
	s := m.s
	cfg := server.DefaultConfig()
	cfg.Name, cfg.DataDir, cfg.ClusterToken = m.name, "/data", "sim"
	cfg.InitialCluster, cfg.NewCluster = s.initialCluster(m), !m.joins
	peer, err := url.Parse(peerURL(m.port))
	if err != nil {
		panic(err) // we made it
	}
	cfg.ListenPeerURLs, cfg.AdvertisePeerURLs = []url.URL{*peer}, []url.URL{*peer}
	cfg.HeartbeatInterval, cfg.ElectionTimeout = s.cfg.Tick, time.Duration(s.cfg.ElectionTicks)*s.cfg.Tick
	cfg.LogRetentionBytes, cfg.CompactionBatch, cfg.QuotaBytes = s.cfg.LogRetention, s.cfg.CompactBatch, s.cfg.Quota
	cfg.Clock, cfg.FS, cfg.Seed, cfg.Logger = memberClock{m}, m.fs, s.chance.member.Uint64(), s.logger(m.name)
	return cfg
}

// start begins a process on the member's disk.
func (m *member) start() {
	s := m.s
	m.life++
	m.started = s.now
	m.crashAt, m.dead, m.failing = 0, nil, nil
	if !s.calm && s.now > 0 && s.chance.disk.IntN(6) == 0 {
		m.crashAt = 1 + s.chance.disk.IntN(40) // while it recovers, if it makes so many calls
	}
	m.writing, m.applying, m.expiring, m.polling = false, false, false, false
	m.role, m.elected = raft.Status{}, 0
	m.ticks, m.heard = 0, map[api.MemberID]int{}
	m.fs = vfs.NewFault(m.diskFiles(), vfs.Rule{Hook: m.beforeCall})
	m.wire = &wire{m: m, refused: map[api.MemberID]bool{}, strangers: map[api.MemberID]bool{}, told: map[api.MemberID]time.Duration{}}
	node, err := server.OpenStepped(m.config(), server.SteppedWorld{
		Engine:       m.openEngine,
		Transport:    func(id api.MemberID) transport.Transport { m.id = id; s.byID[id] = m; return m.wire },
		Ask:          m.ask,
		Park:         s.park,
		Observe:      m.observe,
		SegmentBytes: s.cfg.SegmentBytes,
	})
	switch {
	case m.dead != nil: // in the middle of its recovery
		s.stats.PowerCuts++
		m.disk = m.dead
		s.after(m.downTime(), m.revive)
		return
	case errors.Is(err, vfs.ErrInjected), errors.Is(err, vfs.ErrNoSpace):
		s.say("%s does not start: %v", m.name, err)
		m.disk = m.disk.killed()
		s.after(m.downTime()+100*time.Millisecond, m.revive)
		return
	case m.leaves(err):
		m.disk = m.disk.killed()
		return
	case m.waitsToJoin(err):
		s.say("%s cannot join: %v", m.name, err)
		m.disk = m.disk.killed()
		s.after(joinPause, m.revive)
		return
	case err != nil:
		s.fail("O12", "member %s does not start: %v", m.name, err)
		return
	}
	m.node, m.repairing, m.mark = node, node.Damaged(), node.Incarnation()
	m.seeCalls()
	for _, o := range s.members {
		if o != m && o.node != nil {
			m.meet(o)
			o.meet(m)
		}
	}
	if m.repairing {
		s.say("%s starts damaged", m.name)
		s.watch.Damaged(m.key())
		m.spawn(m.repair)
		m.turn()
		return
	}
	m.begin()
}

// diskFiles are the member's files, on a disk that may be about to fail.
func (m *member) diskFiles() vfs.FS {
	if m.s.breaks != nil && m.n == 0 {
		return m.s.breaks.wrap(m)
	}
	return m.disk.files
}

// repair is the phase before the node of a damaged member.
func (m *member) repair() {
	life := m.life
	err := m.node.Repair()
	if m.life != life || m.dead != nil {
		return // it died meanwhile
	}
	switch {
	case errors.Is(err, vfs.ErrInjected), errors.Is(err, vfs.ErrNoSpace):
		m.after(0, func() { m.kill(m.downTime()) }) // not from inside its own task
		return
	case err != nil:
		m.s.fail("O12", "the repair of %s: %v", m.name, err)
		return
	}
	m.repairing, m.rotten = false, false
	m.s.stats.Repairs++
	m.begin()
}

// begin is the life of a member that has its node.
func (m *member) begin() {
	s := m.s
	s.say("%s starts", m.name)
	m.damaged = false
	m.checkStart()
	m.after(time.Duration(s.chance.member.Int64N(int64(s.cfg.Tick))), m.tick)
	m.after(m.flushPause(), m.flush)
	m.after(0, m.join)
	m.after(refusalPause, m.knock)
	if s.cfg.Quota > 0 {
		m.after(time.Second, m.checkSpace)
	}
	m.turn()
}

// join makes the member known to the others, as often as it takes.
func (m *member) join() {
	life := m.life
	m.spawn(func() {
		if err := m.node.Join(); err != nil && m.life == life {
			m.after(joinPause, m.join)
		}
	})
	m.turn()
}

const joinPause = 200 * time.Millisecond

// checkStart compares what the member has found with what its disk surely held.
func (m *member) checkStart() {
	st := m.node.Node.Status()
	m.s.must("O6", m.s.watch.Started(m.key(), uint64(st.Applied), uint64(st.Term)))
	last := oracle.Position{Index: uint64(st.Last), Term: uint64(m.node.Node.EntryTerm(st.Last))}
	m.s.must("O6", m.s.watch.Recovered(m.key(), last, m.entryTerm))
}

func (m *member) entryTerm(index uint64) uint64 {
	return uint64(m.node.Node.EntryTerm(api.Index(index)))
}

func (m *member) openEngine(path string) (engine.Engine, error) {
	if m.dead != nil {
		return nil, errPower // what it would leave must not be found
	}
	e, err := m.disk.open(m.fs, path)
	if err != nil {
		return nil, err
	}
	life := m.life
	e.FailCommit = func(*engine.Batch) (bool, error) {
		switch {
		case m.dead != nil || m.life != life:
			return false, errPower
		case m.failing != nil:
			err := m.failing
			m.failing = nil
			m.cutShort(commitPoint)
			return m.applied, err
		case m.s.breaks != nil && m.n == 0:
			return m.s.breaks.commit(m)
		}
		return false, nil
	}
	return sizedEngine{e}, nil
}

var (
	errPower = errors.New("sim: the power is off")
	errFlush = errors.New("sim: the commit failed")
)

// after runs fn on the member, unless its process has ended; a process that
// stands still does it later, and what has waited comes in no particular order.
func (m *member) after(d time.Duration, fn func()) {
	m.afterWait(d, func() time.Duration { return time.Duration(m.s.chance.sched.Int64N(int64(resumeTime))) }, fn)
}

// afterFrom is after for what comes over the connection with another member,
// whose order stays as it is.
func (m *member) afterFrom(from *member, d time.Duration, fn func()) {
	m.afterWait(d, func() time.Duration {
		mixed := (uint64(m.paused) + uint64(from.n)) * 0x9e3779b97f4a7c15
		return time.Duration(mixed >> 32 % uint64(resumeTime))
	}, fn)
}

// resumeTime is how long a process that stood still takes to catch up.
const resumeTime = 2 * time.Millisecond

func (m *member) afterWait(d time.Duration, wait func() time.Duration, fn func()) {
	life := m.life
	var run func()
	run = func() {
		switch {
		case m.life != life || m.node == nil:
		case m.s.now < m.paused:
			m.s.at(m.paused+wait(), run)
		default:
			fn()
		}
	}
	m.s.after(d, run)
}

func (m *member) tick() {
	m.ticks++
	m.node.Node.Tick()
	m.turn()
	m.checkQuorum()
	if m.node != nil {
		m.after(memberClock{m}.pace(m.s.cfg.Tick), m.tick)
	}
}

// checkQuorum: a leader that hears nothing from a majority steps down within two
// election timeouts of its own ticks, so that nobody goes on believing it.
func (m *member) checkQuorum() {
	patience := 3 * m.s.cfg.ElectionTicks
	if m.node == nil || m.role.Role != raft.Leader || m.ticks-m.leads <= patience {
		return
	}
	voters := m.node.Node.Voters()
	near := 0
	for _, id := range voters {
		if at, ok := m.heard[api.MemberID(id)]; id == uint64(m.id) || ok && m.ticks-at <= patience {
			near++
		}
	}
	if near <= len(voters)/2 {
		m.s.fail("O9", "%s leads term %d, and has heard nothing from a majority for %d ticks", m.name, m.role.Term, patience)
	}
}

// turn lets the member react, and plans the work of what would be its other
// goroutines.
func (m *member) turn() {
	for round := 0; m.node != nil && m.dead == nil; round++ {
		if m.repairing {
			if m.wake() {
				continue
			}
			break
		}
		m.timers(m.node.Node.Turn())
		m.node.Follow()
		if m.node.LeasesDue() {
			m.expire()
		}
		if !m.wake() || round > 100 {
			break
		}
	}
	switch {
	case m.node == nil:
		return
	case m.dead != nil:
		m.done(nil)
		return
	case m.repairing || m.ended():
		return
	}
	if !m.writing && m.node.Node.Writes() {
		m.writing = true
		m.node.Node.Begin()
		m.after(m.diskTime(), m.write)
	}
	if !m.applying && m.node.Node.Applies() {
		m.applying = true
		m.after(time.Duration(m.s.chance.sched.Int64N(int64(time.Millisecond))), m.apply)
	}
	m.lookAtRaft()
	m.pollSoon()
}

func (m *member) timers(t raft.Timers) {
	if t.Campaign != 0 {
		m.campaign++
	}
	if number := m.campaign; t.Campaign > 0 {
		m.after(memberClock{m}.pace(t.Campaign), func() {
			if m.campaign == number {
				m.node.Node.CampaignDue()
				m.turn()
			}
		})
	}
	if t.Gather > 0 {
		m.after(memberClock{m}.pace(t.Gather), func() { m.node.Node.GatherDue(); m.turn() })
	}
}

// checkSpace is the turn of the watch over the quota.
func (m *member) checkSpace() {
	life := m.life
	m.spawn(func() {
		m.node.CheckSpace()
		if m.life == life {
			m.after(time.Second, m.checkSpace)
		}
	})
	m.turn()
}

func (m *member) diskTime() time.Duration {
	s := m.s
	d := s.cfg.DiskDelay/4 + time.Duration(s.chance.disk.ExpFloat64()*float64(s.cfg.DiskDelay))
	return max(d, m.stalled-s.now)
}

func (m *member) write() {
	if m.s.now < m.stalled {
		m.after(m.stalled-m.s.now, m.write)
		return
	}
	m.writing = false
	term := m.node.Node.Status().Term
	err := m.node.Node.Write()
	m.seeCalls()
	if m.dead == nil && err == nil {
		st := m.node.Node.Status()
		m.s.watch.Wrote(m.key(), oracle.Position{Index: uint64(st.Last), Term: m.entryTerm(uint64(st.Last))})
		m.s.watch.Promised(m.key(), uint64(term))
		if at, _ := m.node.Store().Applied(); m.s.watch.Behind(m.key(), uint64(at)) {
			m.s.stats.Snapshots++ // one was installed
			m.s.must("O6", m.s.watch.Started(m.key(), uint64(at), uint64(term)))
		}
	}
	m.done(err)
}

func (m *member) apply() {
	m.applying = false
	m.done(m.node.Node.Apply())
}

// compactRest is how long the flusher rests when it has more to compact: clients
// may wait for it.
const compactRest = 50 * time.Millisecond

// flush is the flusher's turn, with some steps of compaction.
func (m *member) flush() {
	err := m.node.Store().Flush()
	more := err == nil
	for goes := more; goes; {
		more, err = m.node.Store().CompactStep()
		more = more && err == nil
		goes = more && m.s.chance.disk.IntN(4) > 0
	}
	m.done(err)
	if m.node == nil {
		return
	}
	pause := m.flushPause()
	if more {
		pause = min(pause, compactRest)
	}
	m.after(pause, m.flush)
}

func (m *member) flushPause() time.Duration {
	return m.s.cfg.FlushEvery/2 + time.Duration(m.s.chance.disk.Int64N(int64(m.s.cfg.FlushEvery)))
}

// done ends a piece of work: the power may have failed in it.
func (m *member) done(err error) {
	switch {
	case m.dead != nil:
		m.s.say("%s loses power inside a call", m.name)
		m.s.stats.PowerCuts++
		m.down(m.dead)
		m.s.after(m.downTime(), m.revive)
	case errors.Is(err, vfs.ErrInjected), errors.Is(err, vfs.ErrNoSpace):
		m.s.say("%s stops: %v", m.name, err)
		m.kill(m.downTime())
	case err != nil && !errors.Is(err, errFlush):
		m.s.fail("O12", "member %s: %v", m.name, err)
	default:
		m.turn()
	}
}

// ended reports that the member has stopped by itself, for a reason that the
// simulation gave it.
func (m *member) ended() bool {
	err := errors.Join(m.node.Failure(), m.node.Node.Failure())
	switch {
	case err == nil:
		return false
	case m.rebuild(err):
	case m.leaves(err):
		m.down(m.disk.killed())
	case errors.Is(err, errFlush), errors.Is(err, vfs.ErrInjected), errors.Is(err, vfs.ErrNoSpace):
		m.s.say("%s stops: %v", m.name, err)
		m.down(m.disk.killed())
		m.s.after(m.downTime(), m.revive)
	default:
		m.s.fail("O12", "member %s stops: %v", m.name, err)
	}
	return true
}

// beforeCall fails the power in the middle of what is written.
func (m *member) beforeCall(c vfs.Call) {
	if m.crashAt > 0 && m.dead == nil {
		if m.crashAt--; m.crashAt == 0 {
			m.cutCall(c)
			m.dead = m.disk.powerless(m.s.chance.disk)
		}
	}
}

// down ends the process; what it had told nobody is gone.
func (m *member) down(left *disk) {
	s := m.s
	m.s.stats.Crashes++
	m.cutState()
	m.disk, m.node = left, nil
	m.life++
	m.abandon()
	for _, st := range m.streams {
		st.broken()
	}
	m.streams = nil
	for _, o := range s.members {
		if o != m && o.node != nil && s.chance.net.IntN(4) > 0 {
			o.after(s.net.time(s), func() { o.wire.handler.PeerDown(m.id); o.turn() })
		}
	}
}

func (m *member) downTime() time.Duration {
	return time.Duration(m.s.chance.member.Int64N(int64(2 * time.Second)))
}

// revive starts the process again, unless somebody has.
func (m *member) revive() {
	if m.node == nil && m.s.failed == nil && !m.left {
		m.start()
	}
}

// expire is the turn of the lease clocks.
func (m *member) expire() {
	if m.expiring {
		return
	}
	m.expiring = true
	m.expiries++ // a turn that was planned for later is not needed any more
	life, number := m.life, m.expiries
	m.spawn(func() {
		wait := m.node.ExpireLeases()
		if m.life != life {
			return
		}
		m.expiring = false
		m.after(memberClock{m}.pace(wait), func() {
			if m.expiries == number {
				m.expire()
				m.turn()
			}
		})
	})
}

// lookAtRaft shows the observer what has changed.
func (m *member) lookAtRaft() {
	st := m.node.Node.Status()
	if st == m.role {
		return
	}
	w := m.s.watch
	if st.Role == raft.Leader && (m.role.Role != raft.Leader || m.role.Term != st.Term) {
		m.s.stats.Elections++
		m.leads = m.ticks
		m.s.say("%s leads term %d", m.name, st.Term)
		m.s.must("O6", w.Leads(m.key(), uint64(st.Term)))
		if m.wiped || !slices.Contains(m.node.Node.Voters(), uint64(m.id)) {
			m.s.fail("O6", "%s leads term %d and has no vote", m.name, st.Term)
		}
		m.elected = w.Newest(uint64(st.Term))
	}
	if m.elected > 0 && !m.writing { // what raft counts on may not be written yet
		m.s.must("O6", w.Complete(m.key(), m.elected, uint64(st.Applied), m.entryTerm))
		m.elected = 0
	}
	m.s.must("O6", w.Term(m.key(), uint64(st.Term)))
	if st.Committed > m.role.Committed && st.Role == raft.Leader {
		// What it acted on meanwhile may have changed who counts: one of the two did.
		if term := m.entryTerm(uint64(st.Committed)); term > 0 && w.Committed(uint64(st.Committed), term, m.voters) != nil {
			m.s.must("O6", w.Committed(uint64(st.Committed), term, m.node.Node.Voters()))
		}
	}
	if now := m.node.Node.Voters(); !slices.Equal(now, m.voters) {
		m.voters, m.leads = now, m.ticks // who is new was not to be heard before
	}
	m.role = st
}
