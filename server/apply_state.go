package server

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"

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
	a.conf.add(e.Index, cc.State)
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

// confHistory remembers the membership at recent entries, so that a snapshot of
// an older state names the membership of that state. Any goroutine.
type confHistory struct {
	mu struct {
		sync.Mutex
		changes []confAt // by index; the first covers all before the second
	}
}

type confAt struct {
	index api.Index
	state *raftpb.ConfState
}

// maxConfHistory is far more than can happen between two flushes.
const maxConfHistory = 64

func (h *confHistory) add(index api.Index, state *raftpb.ConfState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.changes = append(h.mu.changes, confAt{index, state})
	if n := len(h.mu.changes); n > maxConfHistory {
		h.mu.changes = append([]confAt(nil), h.mu.changes[n-maxConfHistory:]...)
	}
}

// at returns the membership after the entry at index; nil if none is known.
func (h *confHistory) at(index api.Index) *raftpb.ConfState {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.mu.changes) - 1; i >= 0; i-- {
		if h.mu.changes[i].index <= index {
			return h.mu.changes[i].state
		}
	}
	return nil
}

// reset forgets all and starts with what the store has.
func (h *confHistory) reset(index api.Index, state *raftpb.ConfState) {
	h.mu.Lock()
	h.mu.changes = nil
	h.mu.Unlock()
	if state != nil {
		h.add(index, state)
	}
}

// Applied tells raft where the store stands at start.
func (a *applier) Applied() (api.Index, api.Term, *raftpb.ConfState) {
	index, term := a.store.Applied()
	if index == 0 {
		return 0, 0, nil
	}
	return index, term, a.conf.at(index)
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
	conf := a.conf.at(snap.Index)
	if conf == nil {
		snap.Release()
		return nil, fmt.Errorf("no membership is known at entry %d", snap.Index)
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
	a.conf.reset(meta.Index, meta.ConfState)
	return a.s.members.load(store)
}
