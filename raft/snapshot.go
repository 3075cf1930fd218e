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

// snapshotRetry is a member that does not take snapshots. Raft would send it one
// after each heartbeat; it is told of the failure after a pause that doubles.
type snapshotRetry struct {
	failures int
	at       uint64 // tick at which raft is told; 0: it has been
	term     uint64 // of the failure: a new leader begins anew
}

// maxSnapshotPause is the longest pause, in election timeouts.
const maxSnapshotPause = 16

// sendSnapshot answers raft's wish to send one. The envelope says what raft
// believes the state to be; what is sent is newer, and the envelope is changed to
// say so. Raft takes any index from which the log goes on, but no entry of a later
// term than the envelope's: a state that has one says that this member leads no
// more, and whoever does will send its own.
func (n *Node) sendSnapshot(m *raftpb.Message) {
	to := m.GetTo()
	n.holds[to] = snapshotHold{index: n.Status().First - 1}
	n.prepare(func() {
		s, err := n.cfg.StateMachine.Snapshot()
		if err == nil && uint64(s.Meta().Term) > m.GetTerm() {
			s.Release()
			err = ErrNotLeader
		}
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
	h, held := n.holds[to]
	if !ok {
		delete(n.holds, to)
		n.pauseSnapshots(to)
		return
	}
	n.core.snapshotSent(to, true)
	delete(n.retries, to)
	if !held {
		return
	}
	h.until = n.core.now + holdElections*uint64(n.cfg.ElectionTicks)
	n.holds[to] = h
}

// pauseSnapshots keeps raft from sending the member another one for a while.
func (n *Node) pauseSnapshots(to uint64) {
	r := n.retries[to]
	if r.term != n.core.term {
		r = snapshotRetry{term: n.core.term}
	}
	pause := uint64(1) << min(r.failures, 32)
	r.failures++
	r.at = n.core.now + min(pause, maxSnapshotPause*uint64(n.cfg.ElectionTicks))
	n.retries[to] = r
}

// retrySnapshots tells raft of the failures whose pause is over. A member that
// has just come up, perhaps with more room, need not wait.
func (n *Node) retrySnapshots(up uint64) {
	for to, r := range n.retries {
		if r.at == 0 || to != up && n.core.now < r.at && n.core.term == r.term {
			continue
		}
		n.core.snapshotSent(to, false)
		if r.at = 0; n.core.term != r.term {
			delete(n.retries, to)
			continue
		}
		n.retries[to] = r
	}
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
// A log with entries of a later term than its own would be none.
func (n *Node) snapshotReceived(m *raftpb.Message, meta transport.SnapshotMeta, path string) {
	m.Snapshot = &raftpb.Snapshot{Metadata: snapshotMetadata(meta)}
	if uint64(meta.Term) > m.GetTerm() || !n.files.add(meta, path) {
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
