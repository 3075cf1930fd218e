package raft

import (
	"errors"
	"log/slog"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/vfs"
)

// holdElections is for how many election timeouts after a snapshot was taken the
// log after it is kept, so that the follower can go on from there.
const holdElections = 20

// snapshotHold keeps the log after a snapshot that is on its way.
type snapshotHold struct {
	index api.Index
	until uint64 // tick; 0: as long as it is under way
}

// sendSnapshot answers raft's wish to send one. The envelope says what raft
// believes the state to be; what is sent is newer, and the envelope is changed to
// say so. Raft takes any index from which the log goes on.
func (n *Node) sendSnapshot(m *raftpb.Message) {
	to := m.GetTo()
	n.holds[to] = snapshotHold{index: n.Status().First - 1}
	n.prepare(func() {
		s, err := n.cfg.StateMachine.Snapshot()
		if err != nil {
			n.logger.Warn("no snapshot to send", slog.Any("to", api.MemberID(to)), slog.Any("error", err))
			n.inbox.post(func() { n.snapshotSent(to, false) })
			return
		}
		meta := s.Meta()
		ok := n.inbox.post(func() {
			if _, held := n.holds[to]; held {
				n.holds[to] = snapshotHold{index: meta.Index}
			}
		})
		if !ok {
			s.Release()
			return
		}
		m.Snapshot = &raftpb.Snapshot{Metadata: snapshotMetadata(meta)}
		n.logger.Info("sending a snapshot", slog.Any("to", api.MemberID(to)), slog.Uint64("index", uint64(meta.Index)))
		n.cfg.Transport.SendSnapshot(api.MemberID(to), m, s)
	})
}

// snapshotSent is an event of the loop.
func (n *Node) snapshotSent(to uint64, ok bool) {
	n.core.snapshotSent(to, ok)
	h, held := n.holds[to]
	if !held || !ok {
		delete(n.holds, to)
		return
	}
	h.until = n.core.now + holdElections*uint64(n.cfg.ElectionTicks)
	n.holds[to] = h
}

// retain releases the log that nobody needs: more than the bytes to keep, in the
// durable state, and not after a snapshot that is on its way.
func (n *Node) retain() {
	to := min(n.log.releasable(n.cfg.LogRetention), n.cfg.StateMachine.Durable())
	for id, h := range n.holds {
		if h.until != 0 && h.until <= n.core.now {
			delete(n.holds, id)
			continue
		}
		to = min(to, h.index)
	}
	if to > n.released {
		n.released = to
		n.append.tasks.put(appendTask{release: to})
	}
}

// snapshotReceived is an event of the loop: the file is whole, m is its envelope.
func (n *Node) snapshotReceived(m *raftpb.Message, meta transport.SnapshotMeta, path string) {
	m.Snapshot = &raftpb.Snapshot{Metadata: snapshotMetadata(meta)}
	if !n.files.add(meta, path) {
		n.files.remove(path)
		return
	}
	n.core.step(m)
	for _, a := range n.core.effects().appends {
		if a.GetSnapshot().GetMetadata().GetIndex() == uint64(meta.Index) {
			return // the append goroutine takes it from here
		}
	}
	if path := n.files.take(meta); path != "" {
		n.files.remove(path)
	}
}

// snapshotFiles are the received snapshots that wait to be installed.
type snapshotFiles struct {
	fs     vfs.FS
	logger *slog.Logger
	mu     struct {
		sync.Mutex
		paths map[snapshotKey]string
	}
}

type snapshotKey struct {
	index api.Index
	term  api.Term
}

func newSnapshotFiles(fs vfs.FS, logger *slog.Logger) *snapshotFiles {
	f := &snapshotFiles{fs: fs, logger: logger}
	f.mu.paths = map[snapshotKey]string{}
	return f
}

// add reports false when a file of the same state already waits to be installed.
func (f *snapshotFiles) add(meta transport.SnapshotMeta, path string) bool {
	key := snapshotKey{meta.Index, meta.Term}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.mu.paths[key]; ok {
		return false
	}
	f.mu.paths[key] = path
	return true
}

func (f *snapshotFiles) take(meta transport.SnapshotMeta) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := snapshotKey{meta.Index, meta.Term}
	path := f.mu.paths[key]
	delete(f.mu.paths, key)
	return path
}

func (f *snapshotFiles) remove(path string) {
	if err := f.fs.Remove(path); err != nil && !errors.Is(err, vfs.ErrNotExist) {
		f.logger.Warn("a received snapshot stays behind", slog.String("file", path), slog.Any("error", err))
	}
}
