package raft

import (
	"errors"
	"sync"
	"sync/atomic"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/wal"
)

const (
	// cacheBytes bounds the newest entries kept in memory: what followers that
	// keep up, and the apply goroutine, ask for.
	cacheBytes = 16 << 20
	// entryOverhead is about what an entry takes beside its data.
	entryOverhead = 24
	// markBytes is the distance, at most, of the marks by which a log position is
	// found for a number of bytes.
	markBytes = 1 << 20
)

// logStore is the log as raft reads it: the newest entries in memory, all in
// the WAL. The append goroutine writes; any goroutine reads.
type logStore struct {
	wal    *wal.WAL
	hard   *raftpb.HardState // at start
	conf   *raftpb.ConfState // at start
	mark   int64             // distance of marks
	fatal  func(error)       // told of read errors
	unread atomic.Bool       // there was one

	mu struct {
		sync.RWMutex
		entries []*raftpb.Entry // the newest, consecutive, up to last
		bytes   int64           // of entries
		last    wal.Position
		start   wal.Position // the log begins after it, or later
		total   int64        // bytes ever appended, and those found at start
		marks   []logMark
		applied transport.SnapshotMeta // what a snapshot would hold at least
	}
}

// logMark: total was bytes when index was the last entry.
type logMark struct {
	index api.Index
	bytes int64
}

func newLogStore(w *wal.WAL, hard *raftpb.HardState, conf *raftpb.ConfState, retention int64) (*logStore, error) {
	l := &logStore{wal: w, hard: hard, conf: conf, mark: min(markBytes, retention/8), fatal: func(error) {}}
	l.mu.start = w.Start()
	l.mu.last = wal.Position{Index: w.Last()}
	l.mu.total = w.Bytes()
	l.mu.marks = []logMark{{w.First() - 1, 0}, {w.Last(), l.mu.total}}
	l.mu.last.Term = l.mu.start.Term
	if l.mu.last.Index > l.mu.start.Index {
		term, err := w.Term(l.mu.last.Index)
		if err != nil {
			return nil, err
		}
		l.mu.last.Term = term
	}
	return l, nil
}

// appended adds entries that the WAL has taken; they replace all from their
// first index on.
func (l *logStore) appended(entries []*raftpb.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := entries[0].GetIndex()
	for len(l.mu.entries) > 0 && l.mu.entries[len(l.mu.entries)-1].GetIndex() >= first {
		n := len(l.mu.entries) - 1
		l.mu.bytes -= entrySize(l.mu.entries[n])
		l.mu.entries = l.mu.entries[:n]
	}
	for _, e := range entries {
		l.mu.bytes += entrySize(e)
		l.mu.total += entrySize(e)
	}
	l.mu.entries = append(l.mu.entries, entries...)
	last := entries[len(entries)-1]
	l.mu.last = wal.Position{Index: api.Index(last.GetIndex()), Term: api.Term(last.GetTerm())}
	if m := l.mu.marks[len(l.mu.marks)-1]; l.mu.total-m.bytes >= l.mark {
		l.mu.marks = append(l.mu.marks, logMark{l.mu.last.Index, l.mu.total})
	}
	n := 0
	for ; l.mu.bytes > cacheBytes && n < len(l.mu.entries)-1; n++ {
		l.mu.bytes -= entrySize(l.mu.entries[n])
		l.mu.entries[n] = nil
	}
	l.mu.entries = l.mu.entries[n:]
}

// restarted empties the log, which begins anew after start.
func (l *logStore) restarted(start wal.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.entries, l.mu.bytes = nil, 0
	l.mu.start, l.mu.last = start, start
	l.mu.marks = []logMark{{start.Index, l.mu.total}}
}

// setApplied notes the state from which the next snapshot will be made.
func (l *logStore) setApplied(m transport.SnapshotMeta) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.applied = m
}

// releasable is the newest index with about `keep` bytes of log after it.
func (l *logStore) releasable(keep int64) (to api.Index) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for n < len(l.mu.marks) && l.mu.marks[n].bytes <= l.mu.total-keep {
		to = l.mu.marks[n].index
		n++
	}
	if n > 1 {
		l.mu.marks = append(l.mu.marks[:0], l.mu.marks[n-1:]...)
	}
	return to
}

func entrySize(e *raftpb.Entry) int64 { return int64(len(e.GetData()) + entryOverhead) }

// cachedLocked returns entry i when it is in memory.
func (l *logStore) cachedLocked(i uint64) *raftpb.Entry {
	if len(l.mu.entries) == 0 || i < l.mu.entries[0].GetIndex() || i > uint64(l.mu.last.Index) {
		return nil
	}
	return l.mu.entries[i-l.mu.entries[0].GetIndex()]
}

// InitialState implements etcdraft.Storage.
func (l *logStore) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return l.hard, raftpb.EnsureConfState(l.conf), nil
}

// FirstIndex implements etcdraft.Storage.
func (l *logStore) FirstIndex() (uint64, error) { return uint64(l.wal.First()), nil }

// LastIndex implements etcdraft.Storage.
func (l *logStore) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return uint64(l.mu.last.Index), nil
}

// Term implements etcdraft.Storage.
func (l *logStore) Term(i uint64) (uint64, error) {
	l.mu.RLock()
	e, last, start := l.cachedLocked(i), l.mu.last, l.mu.start
	l.mu.RUnlock()
	switch {
	case e != nil:
		return e.GetTerm(), nil
	case i == uint64(last.Index):
		return uint64(last.Term), nil
	case i == uint64(start.Index):
		return uint64(start.Term), nil
	}
	term, err := l.wal.Term(api.Index(i))
	return uint64(term), l.readError(err)
}

// Entries implements etcdraft.Storage.
func (l *logStore) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	if lo < uint64(l.wal.First()) {
		return nil, etcdraft.ErrCompacted
	}
	l.mu.RLock()
	if l.cachedLocked(lo) != nil {
		defer l.mu.RUnlock()
		if hi > uint64(l.mu.last.Index)+1 {
			return nil, etcdraft.ErrUnavailable
		}
		from := lo - l.mu.entries[0].GetIndex()
		part := l.mu.entries[from : from+hi-lo]
		n, size := 0, uint64(0)
		for n < len(part) && (n == 0 || size+uint64(entrySize(part[n])) <= maxSize) {
			size += uint64(entrySize(part[n]))
			n++
		}
		return append([]*raftpb.Entry(nil), part[:n]...), nil
	}
	l.mu.RUnlock()
	entries, err := l.wal.Entries(api.Index(lo), api.Index(hi), maxSize)
	return entries, l.readError(err)
}

// readError translates what the WAL says. A log that cannot be read stops the
// node; until then raft sees the entries as gone. Where it needs them to go on, it
// panics: see Node.turn.
func (l *logStore) readError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, wal.ErrCompacted):
		return etcdraft.ErrCompacted
	case errors.Is(err, wal.ErrUnavailable):
		return etcdraft.ErrUnavailable
	}
	l.unread.Store(true)
	l.fatal(err)
	return etcdraft.ErrCompacted
}

// Snapshot implements etcdraft.Storage. It only says what a snapshot would hold;
// the shell makes the real one when raft asks to send it.
func (l *logStore) Snapshot() (*raftpb.Snapshot, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.mu.applied.Index == 0 {
		return nil, etcdraft.ErrSnapshotTemporarilyUnavailable
	}
	return &raftpb.Snapshot{Metadata: snapshotMetadata(l.mu.applied)}, nil
}

func snapshotMetadata(m transport.SnapshotMeta) *raftpb.SnapshotMetadata {
	return &raftpb.SnapshotMetadata{
		Index:     new(uint64(m.Index)),
		Term:      new(uint64(m.Term)),
		ConfState: m.ConfState,
	}
}
