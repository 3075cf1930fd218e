package wal

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
)

// Append adds entries and, when hs is not nil, replaces the hard state. Both
// are buffered: they are durable when the next Sync has returned. The first
// entry's index may be any in [First, Last+1] above the commit index; it
// replaces all entries from there on. Append keeps none of its arguments.
//
// A batch begins with the first Append after a Sync; when the active segment
// has no room for it, Append starts the next segment, which is durable at once
// and holds none of the batch.
func (w *WAL) Append(hs *HardState, entries []*raftpb.Entry) error {
	if err := w.usable(); err != nil {
		return err
	}
	if err := w.validate(hs, entries); err != nil {
		return err
	}
	old := w.mu.state
	voted := hs != nil && (hs.Term != old.Term || hs.Vote != old.Vote)
	if len(w.mu.batch.buf) == 0 && (voted || len(entries) > 0) {
		if err := w.makeRoom(batchSize(entries)); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.appendEntriesLocked(entries)
	if hs != nil {
		w.setStateLocked(*hs)
	}
	return nil
}

// validate refuses what Raft never asks for, before anything is changed:
//
//	start < first entry <= last+1, commit < first entry
//	indexes follow each other, terms never fall
//	the hard state's term never falls, its vote never changes within a term
//	commit <= last, and commit never falls
func (w *WAL) validate(hs *HardState, entries []*raftpb.Entry) error {
	t, state := w.mu.table, w.mu.state
	last := t.last
	for k, e := range entries {
		p := positionOf(e)
		if k == 0 {
			if p.Index <= t.start.Index || p.Index > last.Index+1 || p.Index <= state.Commit {
				return fmt.Errorf("%w: entry %d; the log is (%d, %d], committed up to %d",
					ErrInvalid, p.Index, t.start.Index, last.Index, state.Commit)
			}
			term, _ := t.term(p.Index - 1)
			last = Position{p.Index - 1, term}
		}
		if p.Index != last.Index+1 || p.Term < last.Term {
			return fmt.Errorf("%w: entry %d of term %d after entry %d of term %d",
				ErrInvalid, p.Index, p.Term, last.Index, last.Term)
		}
		last = p
	}
	if hs == nil {
		return nil
	}
	revoted := hs.Term == state.Term && state.Vote != 0 && hs.Vote != state.Vote
	if hs.Term < state.Term || revoted || hs.Commit < state.Commit || hs.Commit > last.Index {
		return fmt.Errorf("%w: hard state %+v after %+v; last entry is %d", ErrInvalid, *hs, state, last.Index)
	}
	return nil
}

func positionOf(e *raftpb.Entry) Position {
	return Position{api.Index(e.GetIndex()), api.Term(e.GetTerm())}
}

func (w *WAL) appendEntriesLocked(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	t, b := w.mu.table, &w.mu.batch
	if before := api.Index(entries[0].GetIndex() - 1); before < t.last.Index {
		term, _ := t.term(before)
		b.cut(Position{before, term})
		must(t.cut(Position{before, term}))
	}
	for _, e := range entries {
		off := b.end()
		b.entry(e)
		must(t.add(positionOf(e), off, b.end()-off))
	}
}

// must turns a broken invariant, which validate excludes, into a stop.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("wal: %v", err))
	}
}

func (w *WAL) setStateLocked(hs HardState) {
	old := w.mu.state
	w.mu.state = hs
	if hs.Term != old.Term || hs.Vote != old.Vote {
		w.mu.batch.state(w.footerBody())
	}
}

func (w *WAL) footerBody() footer {
	return footer{synced: w.synced, last: w.mu.table.last.Index, state: w.mu.state}
}

// Sync makes everything appended so far durable, with one write and one sync;
// it does nothing if there is nothing new. Before it returns nil nothing of the
// batch may be relied upon, afterwards all of it. After an error the log is
// poisoned.
func (w *WAL) Sync() error {
	if err := w.usable(); err != nil {
		return err
	}
	if len(w.mu.batch.buf) == 0 && w.mu.state == w.syncedState {
		return nil
	}
	active, b := w.mu.table.active(), &w.mu.batch
	w.mu.Lock()
	b.footer(w.sequence, w.footerBody())
	content := b.bytes(active.older)
	w.mu.Unlock()

	if _, err := active.file.WriteAt(content, b.base); err != nil {
		return w.poison(err)
	}
	// A crash before this sync returns may leave any part of the batch, which
	// recovery accepts as a whole or cuts off as a whole. A crash after it
	// leaves all of it.
	if !planted.SkipSomeSyncs || w.sequence%20 != 0 {
		if err := active.file.Sync(); err != nil {
			return w.poison(err)
		}
	}
	w.sequence++
	w.synced, w.syncedState = b.end(), w.mu.state

	w.mu.Lock()
	defer w.mu.Unlock()
	b.begin(w.synced, active.checksum)
	return nil
}

// Mark writes, without a sync, a proof that the last Sync succeeded, with the
// newest hard state in it. The next footer would prove the same; until then,
// damage in the last batch could pass for a torn write. An owner that has
// nothing else to do calls Mark. It does nothing while a batch is open or if
// there is nothing new to prove.
//
// The proof does not follow the batch, where one bad sector could take both,
// but stands near the segment's header, twice in turn: a torn proof leaves the
// one before, which is as true as when it was written.
func (w *WAL) Mark() error {
	if err := w.usable(); err != nil {
		return err
	}
	proof := w.footerBody()
	if len(w.mu.batch.buf) > 0 || w.proof == proof {
		return nil
	}
	active, off := w.mu.table.active(), proofs[w.proofs%len(proofs)]
	body := proof.encode()
	record := appendRecord(nil, head{kind: kindState}, body[:], active.checksum, off)
	if _, err := active.file.WriteAt(record, off); err != nil {
		return w.poison(err)
	}
	w.proof = proof
	w.proofs++
	return nil
}
