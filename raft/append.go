package raft

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/wal"
)

// appender is the append goroutine: the only one that writes the WAL. It takes
// all that waits, writes it, syncs once and then delivers the answers.
type appender struct {
	n     *Node
	tasks *queue[appendTask]

	// Owned by the goroutine.
	hard    wal.HardState // as raft has it
	pending bool          // hard is not in the WAL: only its commit index is newer
	dirty   bool          // something written must be synced before answers leave

	// busySince is the tick (plus one) at which the present write began, 0 when
	// none is under way. The loop reads it to see that the disk has stalled.
	busySince atomic.Uint64
}

// appendTask is a MsgStorageAppend, an index up to which to release the log, or
// neither: the log is idle, and its last batch is to be proven durable.
type appendTask struct {
	msg     *raftpb.Message
	release api.Index
}

func (a *appender) run(ctx context.Context) error {
	var tasks []appendTask
	for {
		select {
		case <-ctx.Done():
			return a.end()
		case <-a.tasks.wake:
		}
		yield()
		tasks = a.tasks.take(tasks)
		if err := a.process(ctx, tasks); err != nil {
			return err
		}
	}
}

// yield lets the messages of the turn that brought the work leave first. The
// sync that follows holds this goroutine's processor for a while, and with few
// of them the followers would hear of the entries only after it. A message goes
// through two goroutines: the peer's sender, and gRPC's writer, which itself
// yields once.
func yield() {
	runtime.Gosched()
	runtime.Gosched()
}

// end writes the newest commit index, so that the next start replays without
// asking anybody. Without it nothing is lost.
func (a *appender) end() error {
	if !a.pending {
		return nil
	}
	if err := a.n.wal.Append(&a.hard, nil); err != nil {
		return err
	}
	return a.n.wal.Sync()
}

// process carries out tasks in order with one sync. Answers that depend on
// nothing unsynced leave before it.
func (a *appender) process(ctx context.Context, tasks []appendTask) error {
	a.busySince.Store(a.n.ticks.Load() + 1)
	defer a.busySince.Store(0)
	answered := 0
	for i, t := range tasks {
		if t.msg == nil {
			if err := a.keep(t.release); err != nil {
				return err
			}
			continue
		}
		if s := t.msg.GetSnapshot(); !etcdraft.IsEmptySnap(s) {
			if err := a.sync(); err != nil {
				return err
			}
			a.answer(tasks[answered:i])
			answered = i
			if err := a.install(ctx, s); err != nil {
				return err
			}
		}
		if err := a.write(t.msg); err != nil {
			return err
		}
		if !a.dirty {
			a.answer(tasks[answered : i+1])
			answered = i + 1
		}
	}
	if planted.ReplyBeforeSync {
		a.answer(tasks[answered:])
		answered = len(tasks)
	}
	if err := a.sync(); err != nil {
		return err
	}
	a.answer(tasks[answered:])
	return nil
}

// keep releases the log up to an index, or marks it when there is none.
func (a *appender) keep(release api.Index) error {
	if release == 0 {
		if err := a.n.wal.Mark(); err != nil {
			return fmt.Errorf("mark the log: %w", err)
		}
		return nil
	}
	if err := a.n.wal.Release(release); err != nil {
		return fmt.Errorf("release the log up to %d: %w", release, err)
	}
	return nil
}

// write appends what the message carries. A newer commit index alone waits for
// company: raft finds it again after a crash.
func (a *appender) write(m *raftpb.Message) error {
	if m.GetTerm() != 0 {
		hs := wal.HardState{Term: api.Term(m.GetTerm()), Vote: api.MemberID(m.GetVote()), Commit: api.Index(m.GetCommit())}
		a.dirty = a.dirty || (hs.Term != a.hard.Term || hs.Vote != a.hard.Vote) && !planted.VoteUnsynced
		a.hard, a.pending = hs, true
	}
	entries := m.GetEntries()
	a.dirty = a.dirty || len(entries) > 0
	if !a.dirty {
		return nil
	}
	var hs *wal.HardState
	if a.pending {
		hs = &a.hard
	}
	if hs == nil && len(entries) == 0 {
		return nil
	}
	if err := a.n.wal.Append(hs, entries); err != nil {
		return fmt.Errorf("append to the log: %w", err)
	}
	a.pending = false
	if len(entries) > 0 {
		a.n.log.appended(entries)
	}
	return nil
}

// sync is the point where entries and votes become durable. A crash before it
// leaves them out or, by luck, in; nobody has been told of them. A crash after
// it leaves them in.
func (a *appender) sync() error {
	if !a.dirty {
		return nil
	}
	if err := a.n.wal.Sync(); err != nil {
		return fmt.Errorf("sync the log: %w", err)
	}
	a.dirty = false
	return nil
}

// answer delivers the responses that the messages carry.
func (a *appender) answer(tasks []appendTask) {
	var own, others []*raftpb.Message
	for _, t := range tasks {
		if t.msg == nil {
			continue
		}
		for _, r := range t.msg.GetResponses() {
			if r.GetTo() == uint64(a.n.cfg.ID) {
				own = append(own, r)
			} else {
				others = append(others, r)
			}
		}
	}
	if len(others) > 0 {
		a.n.send(others)
	}
	if len(own) > 0 {
		a.n.inbox.put(own...)
	}
}

// install has the apply goroutine take the snapshot, then lets the log begin
// after it. A crash between the two leaves a state newer than the log; Open then
// finishes the second half.
func (a *appender) install(ctx context.Context, s *raftpb.Snapshot) error {
	meta := transport.SnapshotMeta{
		Index:     api.Index(s.GetMetadata().GetIndex()),
		Term:      api.Term(s.GetMetadata().GetTerm()),
		ConfState: s.GetMetadata().GetConfState(),
	}
	path := a.n.files.take(meta)
	if path == "" {
		return fmt.Errorf("snapshot of index %d has no file", meta.Index)
	}
	done := make(chan error, 1)
	a.n.applies.put(applyWork{install: &installTask{meta: meta, path: path, done: done}})
	if a.n.applyNow != nil {
		a.n.applyNow()
	}
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return nil // the write that follows is lost with this process's memory
	}
	start := wal.Position{Index: meta.Index, Term: meta.Term}
	if err := a.n.wal.Reset(start); err != nil {
		return fmt.Errorf("begin the log after snapshot %d: %w", meta.Index, err)
	}
	a.n.log.restarted(start)
	a.pending, a.dirty = true, true // the hard state goes into the new log
	return nil
}
