package server

import (
	"encoding/json"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/membershippb"
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
	if cc.Refused {
		return
	}
	tx := a.store.Begin()
	if err := a.s.members.applyConf(tx, cc); err != nil && cc.Command != nil {
		cc.Command.Err = err
	}
	row, err := json.Marshal(cc.State)
	if err != nil {
		panic(fmt.Sprintf("apply: cannot encode %v: %v", cc.State, err)) // numbers only
	}
	tx.SetRaw(engine.Meta, []byte(confStateKey), row)
	tx.End()
}

// applyConf brings the member rows in line with a change. The context of an
// addition or update is the member's row in JSON.
func (m *members) applyConf(tx rawWriter, cc *raft.ConfChange) error {
	if cc.Op == raft.ConfRemove {
		m.remove(tx, cc.Member)
		return nil
	}
	row, _ := m.find(cc.Member)
	if len(cc.Context) > 0 {
		if err := json.Unmarshal(cc.Context, &row); err != nil {
			return fmt.Errorf("membership change of %s: %w", cc.Member, err)
		}
	}
	row.ID = cc.Member
	row.Learner = cc.Op == raft.ConfAddLearner || cc.Op == raft.ConfUpdate && row.Learner
	m.set(tx, row)
	return nil
}

func (a *applier) attributes(tx *mvcc.WriteTxn, body []byte) error {
	var r membershippb.ClusterMemberAttrSetRequest
	if err := proto.Unmarshal(body, &r); err != nil {
		return err
	}
	if !a.s.members.setAttributes(tx, &r) {
		return api.ErrMemberNotFound
	}
	return nil
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
	return a.s.members.load(store)
}
