package raft

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/wal"
)

// recovered is a member's durable state, made consistent.
type recovered struct {
	wal   *wal.WAL
	log   *logStore
	hard  wal.HardState
	state transport.SnapshotMeta // of the state machine
}

// recoverLog opens or creates the log and fits it to the state machine, which
// may be ahead of it: a snapshot is installed before the log is told.
//
// Afterwards start <= applied <= commit <= last.
func recoverLog(cfg *Config) (*recovered, error) {
	r := &recovered{}
	r.state.Index, r.state.Term, r.state.ConfState = cfg.StateMachine.Applied()
	if err := r.open(cfg); err != nil {
		return nil, err
	}
	if err := r.fit(cfg); err != nil {
		r.wal.Close()
		return nil, err
	}
	hs := &raftpb.HardState{
		Term:   new(uint64(r.hard.Term)),
		Vote:   new(uint64(r.hard.Vote)),
		Commit: new(uint64(r.hard.Commit)),
	}
	var err error
	if r.log, err = newLogStore(r.wal, hs, r.state.ConfState, cfg.LogRetention); err != nil {
		r.wal.Close()
		return nil, err
	}
	return r, nil
}

func (r *recovered) open(cfg *Config) error {
	id := wal.Identity{Cluster: cfg.Cluster, Member: cfg.ID}
	opt := wal.Options{SegmentSize: cfg.SegmentSize, Salt: rand.New(cfg.Rand).Uint64()}
	exists, err := wal.Exists(cfg.FS, cfg.Dir)
	if err != nil {
		return err
	}
	if !exists {
		// Without its log a member does not know what it has promised.
		if cfg.Rebuild != nil {
			return cfg.Rebuild
		}
		if r.state.Index > 0 {
			return fmt.Errorf("raft: there is a state of index %d but no log in %s", r.state.Index, cfg.Dir)
		}
		r.wal, err = wal.Create(cfg.FS, cfg.Dir, id, opt)
		return err
	}
	w, found, err := wal.Open(cfg.FS, cfg.Dir, id, opt)
	if err != nil {
		return damaged(err, found)
	}
	if cfg.Rebuild != nil {
		return errors.Join(&DamagedError{cfg.Rebuild, found.HardState}, w.Close())
	}
	if found.TornBytes > 0 {
		cfg.Logger.Info("cut an unfinished write off the log", "bytes", found.TornBytes)
	}
	r.wal, r.hard = w, found.HardState
	return nil
}

// fit brings log, hard state and state machine together.
func (r *recovered) fit(cfg *Config) error {
	applied := r.state.Index
	if start := r.wal.Start(); applied < start.Index {
		cause := fmt.Errorf("raft: the state is of index %d, but the log begins after %d", applied, start.Index)
		return &DamagedError{cause, r.hard}
	}
	// A crash inside bootstrap may leave its hard state, torn off its entries. What
	// bootstraps has promised nothing yet.
	if r.wal.Last() == 0 && r.hard.Term <= bootstrapTerm && r.hard.Vote == 0 && applied == 0 && cfg.Bootstrap {
		return r.bootstrap(cfg)
	}
	matches, err := r.holds(wal.Position{Index: applied, Term: r.state.Term})
	if err != nil {
		return err
	}
	if !matches {
		// The crash came after a snapshot was installed and before the log began
		// anew after it.
		if err := r.wal.Reset(wal.Position{Index: applied, Term: r.state.Term}); err != nil {
			return err
		}
	}
	if planted.ForgetVote {
		r.hard.Term, r.hard.Vote = 0, 0
	}
	lastTerm := r.state.Term
	if last := r.wal.Last(); last > applied {
		if lastTerm, err = r.wal.Term(last); err != nil {
			return err
		}
	}
	if r.hard.Term < lastTerm {
		// A vote in a term is durable before it is told; there was none.
		r.hard.Term, r.hard.Vote = lastTerm, 0
	}
	r.hard.Commit = min(max(r.hard.Commit, applied), r.wal.Last())
	if cfg.Alone {
		if err := r.standAlone(cfg); err != nil {
			return err
		}
	}
	if r.hard.Term == 0 {
		return nil // nothing to remember yet
	}
	if err := r.wal.Append(&r.hard, nil); err != nil {
		return err
	}
	return r.wal.Sync()
}

// holds reports whether the log reaches the position with the same term.
func (r *recovered) holds(p wal.Position) (bool, error) {
	if p.Index > r.wal.Last() {
		return false, nil
	}
	if p.Index == r.wal.Start().Index {
		return r.wal.Start().Term == p.Term, nil
	}
	term, err := r.wal.Term(p.Index)
	return term == p.Term, err
}

// bootstrapTerm is that of a new cluster's first entries.
const bootstrapTerm = 1

// bootstrap begins the log of a new cluster: equal entries on all members, one
// for each, committed by agreement of the operator.
func (r *recovered) bootstrap(cfg *Config) error {
	peers := slices.SortedFunc(slices.Values(cfg.Peers), func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
	var entries []*raftpb.Entry
	for i, p := range peers {
		op := ConfAddVoter
		if p.Learner {
			op = ConfAddLearner
		}
		data, typ, err := confEntry(op, p.ID, p.Context)
		if err != nil {
			return err
		}
		entries = append(entries, &raftpb.Entry{Term: new(uint64(bootstrapTerm)), Index: new(uint64(i + 1)), Type: typ.Enum(), Data: data})
	}
	r.hard = wal.HardState{Term: bootstrapTerm, Commit: api.Index(len(entries))}
	// A crash before the sync leaves a log without all of the entries, and the next
	// start does this again; after it the cluster exists.
	if err := r.wal.Append(&r.hard, entries); err != nil {
		return err
	}
	return r.wal.Sync()
}
