package raft

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
)

// relay is the transport's handler of a member under repair, and passes all on
// to the node once there is one. Until then it keeps snapshots and remembers
// which peers are up, and whatever Raft would answer, it drops.
type relay struct {
	files  *snapshotFiles
	wake   chan struct{} // holds one token when a snapshot has come
	target atomic.Pointer[transport.Handler]
	mu     struct {
		sync.Mutex // held over events, so that the node hears them in their order
		up         map[api.MemberID]bool
		got        *receivedSnapshot
	}
}

// receivedSnapshot is a verified file.
type receivedSnapshot struct {
	from api.MemberID
	meta transport.SnapshotMeta
	path string
}

var _ transport.Handler = (*relay)(nil)

func newRelay(cfg *Config) *relay {
	r := &relay{files: newSnapshotFiles(cfg.FS, cfg.Logger), wake: make(chan struct{}, 1)}
	r.mu.up = map[api.MemberID]bool{}
	return r
}

// relayed is a transport that was started for a repair.
type relayed struct {
	transport.Transport
	relay *relay
}

// Start hands the transport over to the node.
func (t relayed) Start(h transport.Handler) error {
	r := t.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.target.Load() != nil {
		return errors.New("raft: the transport was started twice")
	}
	if r.mu.got != nil {
		r.files.remove(r.mu.got.path)
		r.mu.got = nil
	}
	for _, id := range slices.Sorted(maps.Keys(r.mu.up)) {
		h.PeerUp(id)
	}
	r.target.Store(&h)
	return nil
}

// take returns the snapshot that has come, if any.
func (r *relay) take() *receivedSnapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.mu.got
	r.mu.got = nil
	return got
}

func (r *relay) node() transport.Handler {
	if h := r.target.Load(); h != nil {
		return *h
	}
	return nil
}

func (r *relay) Message(m *raftpb.Message) {
	if h := r.node(); h != nil {
		h.Message(m)
	}
}

func (r *relay) Forwarded(from api.MemberID, term api.Term, batch []byte) {
	if h := r.node(); h != nil {
		h.Forwarded(from, term, batch)
	}
}

func (r *relay) Unreachable(id api.MemberID) {
	if h := r.node(); h != nil {
		h.Unreachable(id)
	}
}

func (r *relay) PeerDown(id api.MemberID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.up, id)
	if h := r.node(); h != nil {
		h.PeerDown(id)
	}
}

func (r *relay) PeerUp(id api.MemberID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.up[id] = true
	if h := r.node(); h != nil {
		h.PeerUp(id)
	}
}

func (r *relay) Refused(by api.MemberID, err error) {
	if h := r.node(); h != nil {
		h.Refused(by, err)
	}
}

func (r *relay) SnapshotSent(to api.MemberID, ok bool) {
	if h := r.node(); h != nil {
		h.SnapshotSent(to, ok)
	}
}

func (r *relay) SnapshotReceived(m *raftpb.Message, meta transport.SnapshotMeta, path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.node(); h != nil {
		h.SnapshotReceived(m, meta, path)
		return
	}
	got := &receivedSnapshot{api.MemberID(m.GetFrom()), meta, path}
	if old := r.mu.got; old != nil && old.path != path {
		if old.meta.Index > meta.Index {
			old, got = got, old
		}
		r.files.remove(old.path)
	}
	r.mu.got = got
	select {
	case r.wake <- struct{}{}:
	default: // it is awake already
	}
}

func (r *relay) Call(ctx context.Context, from api.MemberID, kind uint8, payload []byte) ([]byte, error) {
	if h := r.node(); h != nil {
		return h.Call(ctx, from, kind, payload)
	}
	if kind == callRepair {
		return repairAnswer{}.encode(), nil // it cannot help either
	}
	return nil, ErrNoLeader
}
