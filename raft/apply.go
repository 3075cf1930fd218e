package raft

import (
	"context"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
)

// applier is the apply goroutine: the only caller of the state machine's
// writing half.
type applier struct {
	n    *Node
	meta transport.SnapshotMeta // of the applied state

	entries []Entry
	left    []*raftpb.Message
}

// applyWork is committed entries, or a snapshot to install.
type applyWork struct {
	applyTask
	install *installTask
}

type installTask struct {
	meta transport.SnapshotMeta
	path string
	done chan error
}

func (a *applier) run(ctx context.Context) error {
	var work []applyWork
	for {
		stopping := false
		select {
		case <-ctx.Done():
			stopping = true // after what is committed and at hand
		case <-a.n.applies.wake:
		}
		work = a.n.applies.take(work)
		if err := a.process(work); err != nil {
			return err
		}
		if stopping {
			return nil
		}
	}
}

// process gives the state machine as much at once as it can.
func (a *applier) process(work []applyWork) error {
	from := 0
	for i, w := range work {
		if w.install == nil {
			continue
		}
		if err := a.apply(work[from:i]); err != nil {
			return err
		}
		from = i + 1
		err := a.install(w.install)
		w.install.done <- err
		if err != nil {
			return err
		}
	}
	return a.apply(work[from:])
}

// apply applies the entries of the tasks. When the state machine returns, its
// new state is published; only then do callers and readers learn of it.
func (a *applier) apply(work []applyWork) error {
	if len(work) == 0 {
		return nil
	}
	a.entries = a.entries[:0]
	for _, w := range work {
		if err := a.decode(&w.applyTask); err != nil {
			return err
		}
	}
	last := a.entries[len(a.entries)-1]
	if first := a.entries[0].Index; first != a.meta.Index+1 {
		panic(fmt.Sprintf("raft: entry %d follows applied %d", first, a.meta.Index))
	}
	a.n.cfg.StateMachine.Apply(a.entries)
	for _, e := range a.entries {
		if e.Conf != nil {
			a.meta.ConfState = e.Conf.State
		}
	}
	a.meta.Index, a.meta.Term = last.Index, last.Term
	a.publish()
	a.left = a.left[:0]
	for _, w := range work {
		a.left = append(a.left, w.msg.GetResponses()...)
	}
	a.n.inbox.put(a.left...) // the callers below are woken last, so that they run first
	for _, w := range work {
		for _, f := range w.own {
			if f == nil {
				continue
			}
			for _, cmd := range f.commands {
				cmd.finish(nil)
			}
		}
	}
	clear(a.entries)
	return nil
}

func (a *applier) publish() {
	a.n.log.setApplied(a.meta)
	a.n.applied.Store(uint64(a.meta.Index))
	a.n.waits.advance(uint64(a.meta.Index))
}

// decode turns a task's raft entries into the state machine's. Commands proposed
// here are the proposers' own values and need no decoding.
func (a *applier) decode(t *applyTask) error {
	confs := t.confs
	for i, e := range t.msg.GetEntries() {
		out := Entry{Index: api.Index(e.GetIndex()), Term: api.Term(e.GetTerm())}
		var own *ownFrame
		if t.own != nil {
			own = t.own[i]
		}
		switch {
		case e.GetType() != raftpb.EntryNormal:
			out.Conf, confs = confs[0], confs[1:]
		case own != nil:
			out.Commands = own.commands
		case len(e.GetData()) > 0:
			f, err := decodeFrame(e.GetData())
			if err != nil {
				return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
			}
			out.Commands = f.commands
		}
		if own != nil {
			for _, cmd := range own.commands {
				cmd.Wanted = cmd.waiting()
			}
		}
		a.entries = append(a.entries, out)
	}
	return nil
}

// install replaces the state by a snapshot's. It is durable when Install returns.
func (a *applier) install(t *installTask) error {
	if t.meta.Index <= a.meta.Index {
		return fmt.Errorf("snapshot of index %d is older than the state of index %d", t.meta.Index, a.meta.Index)
	}
	if err := a.n.cfg.StateMachine.Install(t.meta, t.path); err != nil {
		return fmt.Errorf("install snapshot of index %d: %w", t.meta.Index, err)
	}
	a.meta = t.meta
	a.publish()
	a.n.inbox.post(func() { a.n.core.installed(uint64(t.meta.Index), uint64(t.meta.Term)) })
	a.n.files.remove(t.path)
	return nil
}
