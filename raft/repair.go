package raft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/wal"
)

// DamagedError is Open's answer to a log that is damaged, or that begins after
// the state machine's state, or to Config.Rebuild: the member has lost something
// that it may have acknowledged. Repair gives it back.
type DamagedError struct {
	cause error
	hard  wal.HardState // the newest term and vote that survived
}

func (e *DamagedError) Error() string { return e.cause.Error() }
func (e *DamagedError) Unwrap() error { return e.cause }

// damaged turns damage of the log into a *DamagedError and leaves other errors.
func damaged(err error, found *wal.Recovered) error {
	if damage := (*wal.DamageError)(nil); errors.As(err, &damage) && found != nil {
		return &DamagedError{err, found.HardState}
	}
	return err
}

// Repair replaces a damaged log, and the state, by what the other members have.
// It is a phase before the node runs: the member only calls and takes snapshots.
// It hears no Raft message, so it casts no vote and acknowledges nothing. It
// waits for as long as there is no leader, and returns an error only if it cannot
// go on, or ctx ends.
//
// cfg is as for Open. Repair starts cfg.Transport; the one it returns goes on
// with it and takes its place in cfg for Open. The caller closes it if Open never
// comes.
//
// # Why nothing is lost
//
// Let A be everything that this member had acknowledged, as a follower or to
// itself as a leader, and that counts or may yet count as committed thanks to its
// disk. A member that leads term T, asked after this one fell silent, confirms
// with a quorum, in which this one takes no part, that it still leads; the last
// index of its log is then the bound Q. A lies at or below Q in its log, and in
// that of every later leader:
//
//   - Terms before T. An entry of A is on a quorum C. If this member still had its
//     disk when it helped to elect the leader, Raft's own argument holds. If not,
//     the election quorum is without it, so it meets C in an intact member, which
//     elects nobody whose log lacks the entry. The same goes for later leaders.
//   - Term T. What this member acknowledged, the leader had sent before it was
//     asked: its index is at most Q.
//   - Terms after T. Whoever led one was elected by a quorum of such a term, which
//     meets the confirming quorum in a member other than this one; but that member
//     has just confirmed T.
//
// So a committed state of an index >= Q contains all of A, whoever sends it, and
// the log may begin after it. Each bound is good for ever, because the member
// stays silent until it is repaired.
//
// The log keeps its vote twice, so that one bad sector cannot take it; in the
// leader's term it is the leader's in any case. Two members that are damaged at
// once leave three without a leader: they wait for the third or for the operator.
//
// # Crash states
//
// The damage itself is the mark that the phase has not ended: only wal.Replace
// removes it, last. A crash before leaves the damaged log, beside the old state or
// the installed one, and the next Open comes here again. After it: a sound log
// that begins at the state.
func Repair(ctx context.Context, cfg Config, damage *DamagedError) (transport.Transport, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	peers := cfg.others()
	if len(peers) == 0 || cfg.Alone {
		return nil, fmt.Errorf("raft: nobody else has what this member lost: %w", damage)
	}
	r := &repairer{cfg: &cfg, relay: newRelay(&cfg), logged: cfg.Clock.Now()}
	for _, p := range peers {
		r.peers = append(r.peers, p.ID)
	}
	cfg.Logger.Warn("stored data is damaged; this member neither votes nor serves until the others have repaired it",
		slog.Any("damage", damage.cause))
	if err := cfg.Transport.Start(r.relay); err != nil {
		return nil, fmt.Errorf("start the transport: %w", err)
	}
	cfg.Transport.SetPeers(peers)
	got, err := r.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.install(got, damage.hard); err != nil {
		return nil, fmt.Errorf("raft: repair: %w", err)
	}
	cfg.Logger.Warn("repaired the stored data", slog.Any("damage", damage.cause),
		slog.Any("from", got.from), slog.Uint64("index", uint64(got.meta.Index)))
	return relayed{cfg.Transport, r.relay}, nil
}

// others are the members beside this one.
func (c *Config) others() (peers []transport.Peer) {
	for _, p := range c.Peers {
		if p.ID != c.ID {
			peers = append(peers, transport.Peer{ID: p.ID, URLs: p.URLs, Incarnation: p.Incarnation})
		}
	}
	return peers
}

// repairer is the asking side of a repair. One goroutine uses it.
type repairer struct {
	cfg   *Config
	relay *relay
	peers []api.MemberID

	leader api.MemberID // who got the leader's answer last, 0 when nobody did
	bound  api.Index    // the lowest one told; 0: none yet
	term   api.Term     // the highest term in which a bound was told,
	led    api.MemberID // and who led it

	logged time.Time // when the wait was logged last
}

// repairLogEvery is the time between two lines about a repair that waits.
const repairLogEvery = 10 * time.Second

// fetch asks until a state that reaches the bound has come.
func (r *repairer) fetch(ctx context.Context) (*receivedSnapshot, error) {
	election := time.Duration(r.cfg.ElectionTicks) * r.cfg.TickInterval
	for wait := r.cfg.TickInterval; ; wait = min(2*wait, election) {
		err := r.ask(ctx)
		if !r.pause(ctx, wait) {
			return nil, ErrStopped
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if got := r.relay.take(); got != nil {
			if r.bound > 0 && got.meta.Index >= r.bound {
				return got, nil
			}
			// Too old, or there is no bound to hold it to; the next comes soon.
			r.relay.files.remove(got.path)
		}
		if now := r.cfg.Clock.Now(); now.Sub(r.logged) >= repairLogEvery {
			r.logged = now
			if err != nil {
				r.cfg.Logger.Warn("the repair waits for a leader among the other members", slog.Any("error", err))
			} else {
				r.cfg.Logger.Info("the repair waits for a snapshot", slog.Any("from", r.leader), slog.Uint64("bound", uint64(r.bound)))
			}
		}
	}
}

// pause waits for a snapshot, but not longer than d; false: the member is gone.
func (r *repairer) pause(ctx context.Context, d time.Duration) bool {
	timer := r.cfg.Clock.NewTimer(d)
	defer timer.Stop()
	if r.cfg.Park != nil && !r.cfg.Park(func() bool { return len(r.relay.wake) > 0 || len(timer.C()) > 0 || ctx.Err() != nil }) {
		return false
	}
	select {
	case <-r.relay.wake:
	case <-timer.C():
	case <-ctx.Done():
	}
	return true
}

// ask looks for the leader and has it tell a bound and send its state.
func (r *repairer) ask(ctx context.Context) error {
	queue := append([]api.MemberID{r.leader}, r.peers...)
	asked := map[api.MemberID]bool{0: true, r.cfg.ID: true} // who has lost its log does not lead
	r.leader = 0
	err := error(ErrNoLeader)
	for len(queue) > 0 && ctx.Err() == nil {
		id := queue[0]
		if queue = queue[1:]; asked[id] {
			continue
		}
		asked[id] = true
		a, e := r.call(ctx, id, nil)
		if e == nil && a.bound == 0 && a.leader != 0 && a.leader != r.cfg.ID && !slices.Contains(r.peers, a.leader) {
			a, e = r.call(ctx, id, repairFor(r.cfg.ID)) // it joined after what is damaged was written
		}
		if e != nil {
			err = errors.Join(err, fmt.Errorf("member %s: %w", id, e))
			continue
		}
		if a.bound == 0 {
			queue = append([]api.MemberID{a.leader}, queue...)
			continue
		}
		r.leader = id
		if r.bound == 0 || a.bound < r.bound {
			r.bound = a.bound
		}
		if a.term > r.term {
			r.term, r.led = a.term, a.leader
		}
		return nil
	}
	return err
}

func (r *repairer) call(ctx context.Context, to api.MemberID, payload []byte) (repairAnswer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := r.cfg.Clock.AfterFunc(r.cfg.RequestTimeout, func() { cancel(context.DeadlineExceeded) })
	defer timer.Stop()
	b, err := r.cfg.Transport.Call(ctx, to, callRepair, payload)
	if err != nil {
		return repairAnswer{}, err
	}
	return decodeRepairAnswer(b)
}

// install makes the snapshot the state and begins the log after it, in this
// order; see Repair for what a crash leaves.
func (r *repairer) install(got *receivedSnapshot, hard wal.HardState) error {
	if err := r.cfg.StateMachine.Install(got.meta, got.path); err != nil {
		return fmt.Errorf("install the snapshot of index %d: %w", got.meta.Index, err)
	}
	r.relay.files.remove(got.path)
	if hard.Term < r.term {
		hard.Term, hard.Vote = r.term, 0
	}
	if hard.Term == r.term && hard.Vote == 0 {
		hard.Vote = r.led // who won the term; another vote in it may be lost
	}
	w, err := wal.Replace(r.cfg.FS, r.cfg.Dir, wal.Identity{Cluster: r.cfg.Cluster, Member: r.cfg.ID}, hard,
		wal.Position{Index: got.meta.Index, Term: got.meta.Term}, wal.Options{SegmentSize: r.cfg.SegmentSize, Salt: rand.New(r.cfg.Rand).Uint64()})
	if err != nil {
		return err
	}
	return w.Close()
}
