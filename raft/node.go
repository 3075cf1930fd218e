package raft

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/wal"
)

// Node is a member's half of the replicated log.
type Node struct {
	cfg          Config
	logger       *slog.Logger
	timeoutTicks uint64

	// Shared; each guards itself.
	wal      *wal.WAL
	log      *logStore
	inbox    *inbox
	applies  *queue[applyWork]
	waits    *readWaits
	files    *snapshotFiles
	handlers [256]CallHandler // fixed before Run
	ticks    atomic.Uint64    // written by the loop
	ids      atomic.Uint64    // of commands
	applied  atomic.Uint64    // written by the apply goroutine
	commit   atomic.Uint64    // written by the loop
	view     atomic.Pointer[view]
	changes  struct {
		sync.Mutex
		c chan struct{} // closed at the next change of view
	}
	failure struct {
		sync.Mutex
		err  error
		stop context.CancelFunc
	}
	work sync.WaitGroup // snapshots being prepared

	// A Stepper replaces these, as it has no goroutines: what prepares a snapshot
	// runs at once, and a snapshot is installed by whoever waits for it.
	prepare  func(func())
	applyNow func() // nil: the apply goroutine does

	// Owned by the loop goroutine.
	core       *core
	reading    []*readBatch // the barriers that the core works on, the oldest first
	readID     uint64
	holds      map[uint64]snapshotHold
	retries    map[uint64]snapshotRetry
	handed     uint64 // last entry given to the append goroutine
	released   api.Index
	unmarked   int    // looks at the log until it counts as idle and is marked; 0: it is
	full       bool   // the core holds much of what it may
	askedAside uint64 // tick before which the disk is not complained of again

	append *appender // its goroutine's
	apply  *applier  // its goroutine's
}

// view is the part of Status that changes rarely.
type view struct {
	leader api.MemberID
	term   api.Term
	role   Role
	learn  bool
}

// Open recovers the log and prepares the node; nothing runs yet.
func Open(cfg Config) (*Node, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	rng := rand.New(cfg.Rand)
	r, err := recoverLog(&cfg)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, logger: cfg.Logger, wal: r.wal, log: r.log,
		timeoutTicks: uint64((cfg.RequestTimeout + cfg.TickInterval - 1) / cfg.TickInterval),
		inbox:        newInbox(), applies: newQueue[applyWork](), waits: &readWaits{},
		files: newSnapshotFiles(cfg.FS, cfg.Logger),
		holds: map[uint64]snapshotHold{}, retries: map[uint64]snapshotRetry{},
	}
	n.log.fatal = n.fail
	n.prepare = n.work.Go
	n.handlers[callRepair] = n.answerRepair
	n.changes.c = make(chan struct{})
	n.ids.Store(rng.Uint64())
	n.readID = n.ids.Load() // an answer to this member's life before is no answer
	n.append = &appender{n: n, tasks: newQueue[appendTask](), hard: r.hard}
	n.apply = &applier{n: n, meta: r.state}
	n.apply.publish()
	n.core, err = newCore(coreConfig{
		id: cfg.ID, storage: n.log, applied: r.state.Index, appliedTerm: r.state.Term,
		electionTicks: cfg.ElectionTicks, heartbeatTicks: cfg.HeartbeatTicks, tick: cfg.TickInterval,
		timeoutTicks: n.timeoutTicks, rng: rng, judge: cfg.Judge, logger: raftLogger{cfg.Logger},
	})
	if err != nil {
		r.wal.Close()
		return nil, err
	}
	n.publish(true)
	return n, nil
}

func (c *Config) complete() error {
	switch {
	case c.ID == 0 || c.FS == nil || c.Dir == "" || c.Clock == nil || c.Rand == nil || c.Transport == nil || c.StateMachine == nil:
		return fmt.Errorf("raft: incomplete configuration")
	case c.Bootstrap && len(c.Peers) == 0:
		return fmt.Errorf("raft: bootstrap without members")
	}
	if c.TickInterval == 0 {
		c.TickInterval = 100 * time.Millisecond
	}
	if c.HeartbeatTicks == 0 {
		c.HeartbeatTicks = 1
	}
	if c.ElectionTicks == 0 {
		c.ElectionTicks = 10
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = api.RequestTimeout + 2*time.Duration(c.ElectionTicks)*c.TickInterval
	}
	if c.LogRetention == 0 {
		c.LogRetention = 64 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Run starts the transport and the node's goroutines:
//
//	loop    owns the core; never blocks
//	append  owns the WAL's writing half
//	apply   owns the state machine's writing half
//
// It returns nil when ctx ends and everything has stopped, or the failure that
// stopped the node. The transport and the log are closed then.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.failure.Lock()
	n.failure.stop = cancel
	if n.failure.err != nil {
		cancel()
	}
	n.failure.Unlock()
	if err := n.cfg.Transport.Start(handler{n}); err != nil {
		n.fail(fmt.Errorf("start the transport: %w", err))
	}
	n.cfg.Transport.SetPeers(n.cfg.others())

	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{n.loop, n.append.run, n.apply.run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				n.fail(err)
			}
		})
	}
	n.inbox.signal() // a single voter elects itself at once
	running.Wait()
	n.end()
	return n.failed()
}

// end lets nobody wait for ever and closes what Open and Run have opened.
func (n *Node) end() {
	left := n.inbox.stop()
	n.core.propose(left.commands)
	n.core.endAll(ErrStopped)
	for _, f := range n.core.fx.finished {
		f.command.finish(f.err)
	}
	for _, t := range n.core.fx.applies {
		t.finish(ErrStopped)
	}
	for _, w := range n.applies.take(nil) {
		w.finish(ErrStopped)
	}
	n.waits.stop(ErrStopped)
	for _, b := range append(n.reading, left.reads) {
		if b != nil {
			b.end(ErrStopped)
		}
	}
	for _, fn := range left.events {
		fn() // some answer a waiting caller
	}
	n.work.Wait()
	if err := n.cfg.Transport.Close(); err != nil {
		n.logger.Warn("closing the transport", slog.Any("error", err))
	}
	if err := n.wal.Close(); err != nil && n.failed() == nil {
		n.logger.Warn("closing the log", slog.Any("error", err))
	}
}

// finish ends the commands of a task that is not applied any more.
func (t *applyTask) finish(err error) {
	for _, f := range t.own {
		if f == nil {
			continue
		}
		for _, cmd := range f.commands {
			cmd.finish(err)
		}
	}
}

// fail stops the node: it cannot go on without risking what it promised.
func (n *Node) fail(err error) {
	n.failure.Lock()
	first := n.failure.err == nil
	if first {
		n.failure.err = err
	}
	stop := n.failure.stop
	n.failure.Unlock()
	if !first {
		return
	}
	n.logger.Error("the node stops", slog.Any("error", err))
	if n.cfg.OnFatal != nil {
		n.cfg.OnFatal(err)
	}
	if stop != nil {
		stop()
	}
}

func (n *Node) failed() error {
	n.failure.Lock()
	defer n.failure.Unlock()
	return n.failure.err
}

// publish makes the core's state visible to other goroutines.
func (n *Node) publish(changed bool) {
	n.commit.Store(n.core.committed)
	if !changed {
		return
	}
	v := &view{leader: api.MemberID(n.core.lead), term: api.Term(n.core.term), role: Role(n.core.role)}
	for _, id := range n.core.conf.GetLearners() {
		v.learn = v.learn || id == uint64(n.cfg.ID)
	}
	old := n.view.Swap(v)
	if old != nil && *old == *v {
		return
	}
	if old != nil && old.leader != v.leader {
		n.logger.Info("leader changed", slog.Any("leader", v.leader), slog.Uint64("term", uint64(v.term)), slog.String("role", v.role.String()))
	}
	n.changes.Lock()
	defer n.changes.Unlock()
	close(n.changes.c)
	n.changes.c = make(chan struct{})
}

// Status returns the member's present view.
func (n *Node) Status() Status {
	v := n.view.Load()
	last, _ := n.log.LastIndex()
	// Applied is read first and the others only grow, so applied <= committed.
	applied := api.Index(n.applied.Load())
	return Status{
		ID: n.cfg.ID, Leader: v.leader, Role: v.role, Learner: v.learn, Term: v.term,
		Applied: applied, Committed: max(applied, api.Index(n.commit.Load())),
		First: n.wal.First(), Last: api.Index(last),
	}
}

// LeaderChanges returns a channel that is closed at the next change of leader,
// term or role. Take the channel first, then look at Status, then wait.
func (n *Node) LeaderChanges() <-chan struct{} {
	n.changes.Lock()
	defer n.changes.Unlock()
	return n.changes.c
}

// Progress returns what this member, if it leads, knows of all members.
func (n *Node) Progress(ctx context.Context) ([]Progress, error) {
	var all []Progress
	err := n.ask(ctx, func() { all = n.core.progress() })
	if err == nil && all == nil {
		err = ErrNotLeader
	}
	return all, err
}

// ask has the loop run fn and waits for it. After an error fn may still run.
func (n *Node) ask(ctx context.Context, fn func()) error {
	done := make(chan struct{})
	if !n.inbox.post(func() { fn(); close(done) }) {
		return ErrStopped
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// handler is the transport's way in.
type handler struct{ n *Node }

var _ transport.Handler = handler{}

func (h handler) Message(m *raftpb.Message) {
	if m.GetTo() != uint64(h.n.cfg.ID) || m.GetType() == raftpb.MsgSnap || isLocal(m.GetFrom()) {
		return // not for us, or of a kind that no peer sends this way
	}
	h.n.inbox.put(m)
}

func (h handler) Forwarded(_ api.MemberID, term api.Term, batch []byte) {
	h.n.inbox.forwarded(forwardedBatch{term: uint64(term), batch: batch})
}

func (h handler) Unreachable(id api.MemberID) {
	h.n.inbox.post(func() { h.n.core.unreachable(uint64(id)) })
}

func (h handler) PeerDown(id api.MemberID) {
	h.n.inbox.post(func() { h.n.core.peerDown(uint64(id)) })
}

func (h handler) PeerUp(id api.MemberID) {
	h.n.inbox.post(func() {
		h.n.core.peerUp(uint64(id))
		h.n.retrySnapshots(uint64(id))
	})
}

func (h handler) Refused(by api.MemberID, err error) {
	if h.n.cfg.OnRefused != nil {
		h.n.cfg.OnRefused(by, err)
	}
}

func (h handler) SnapshotSent(to api.MemberID, ok bool) {
	h.n.inbox.post(func() { h.n.snapshotSent(uint64(to), ok) })
}

func (h handler) SnapshotReceived(m *raftpb.Message, meta transport.SnapshotMeta, path string) {
	if !h.n.inbox.post(func() { h.n.snapshotReceived(m, meta, path) }) {
		h.n.files.remove(path)
	}
}

func (h handler) Call(ctx context.Context, from api.MemberID, kind uint8, payload []byte) ([]byte, error) {
	fn := h.n.handlers[kind]
	if fn == nil {
		return nil, fmt.Errorf("raft: no handler for calls of kind %d", kind)
	}
	return fn(ctx, from, payload)
}
