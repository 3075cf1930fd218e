package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft"
	"github.com/keelson-io/keelson/raft/transport"
)

// confStateKey is etcd's row for the membership as Raft sees it, in JSON.
const confStateKey = "confState"

// confChange applies a membership change: the members' rows and Raft's own view
// of them go to disk with the entry that brought them.
func (a *applier) confChange(e *raft.Entry) {
	cc := e.Conf
	if cc.Err != nil {
		return // as on all other members
	}
	tx := a.store.Begin()
	a.s.members.applyConf(tx, cc)
	if cc.Command.Wanted {
		cc.Command.Result = a.s.members.list()
	}
	row, err := json.Marshal(cc.State)
	if err != nil {
		panic(fmt.Sprintf("apply: cannot encode %v: %v", cc.State, err)) // numbers only
	}
	tx.SetRaw(engine.Meta, []byte(confStateKey), row)
	tx.End()
}

func (a *applier) attributes(tx *mvcc.WriteTxn, body []byte) error {
	var p publication
	if err := json.Unmarshal(body, &p); err != nil {
		return err
	}
	return a.s.members.publish(tx, &p)
}

// followMembers tells the parts of this member that are about others, when the
// members have changed.
func (a *applier) followMembers() {
	if now := a.s.members.current.Load(); a.followed != nil && now != a.followed {
		a.s.membersChanged(a.followed, now)
		a.followed = now
		a.s.noteMembers()
	}
}

// Applied tells raft where the store stands at start.
func (a *applier) Applied() (api.Index, api.Term, *raftpb.ConfState) {
	index, term := a.store.Applied()
	if index == 0 {
		return 0, 0, nil
	}
	return index, term, a.s.startConf
}

// readConfState reads the membership row of a store.
func readConfState(store rawReader) (*raftpb.ConfState, error) {
	var state *raftpb.ConfState
	var err error
	store.Raw(engine.Meta, func(key, value []byte) bool {
		if string(key) != confStateKey {
			return true
		}
		state = &raftpb.ConfState{}
		if err = json.Unmarshal(value, state); err != nil {
			err = fmt.Errorf("the store's row %s: %w", confStateKey, err)
		}
		return false
	})
	return state, err
}

// Durable is the entry up to which the log may go. Any goroutine.
func (a *applier) Durable() api.Index { return a.s.Store().Durable() }

// Snapshot returns the store's last flushed state. Any goroutine.
func (a *applier) Snapshot() (transport.Snapshot, error) {
	snap, err := a.s.Store().Snapshot()
	if err != nil {
		return nil, err
	}
	conf, err := readConfState(snap)
	if err == nil && conf == nil {
		err = fmt.Errorf("the state at entry %d names no membership", snap.Index)
	}
	if err != nil {
		snap.Release()
		return nil, err
	}
	return &snapshot{snap, transport.SnapshotMeta{Index: snap.Index, Term: snap.Term, ConfState: conf}}, nil
}

// snapshot is a state of the store on its way to another member.
type snapshot struct {
	state *mvcc.Snapshot
	meta  transport.SnapshotMeta
}

func (s *snapshot) Meta() transport.SnapshotMeta       { return s.meta }
func (s *snapshot) Size() int64                        { return s.state.Size() }
func (s *snapshot) WriteTo(w io.Writer) (int64, error) { return s.state.WriteTo(w) }
func (s *snapshot) Release()                           { s.state.Release() }

// Install replaces all state by a snapshot's. See Server.replaceStore for what
// a crash on the way leaves.
func (a *applier) Install(meta transport.SnapshotMeta, path string) error {
	store, err := a.s.replaceStore(path)
	if err != nil {
		return err
	}
	index, term := store.Applied()
	if index != meta.Index || term != meta.Term {
		return fmt.Errorf("snapshot of entry %d (term %d) holds the state of entry %d (term %d)", meta.Index, meta.Term, index, term)
	}
	a.store = store
	if err := errors.Join(a.s.members.load(store), a.s.auth.load(store), a.s.upkeep.load(store)); err != nil {
		return err
	}
	a.s.judge.replace(a.s.members.current.Load())
	a.followMembers()
	return nil
}
