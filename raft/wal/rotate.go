package wal

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
	"github.com/keelson-io/keelson/raft/vfs"
)

// Exists reports whether dir holds a log. What a crash inside Create leaves
// does not count.
func Exists(fs vfs.FS, dir string) (bool, error) {
	infos, err := fs.List(dir)
	if errors.Is(err, vfs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("wal: %w", err)
	}
	for _, info := range infos {
		if _, ok := parseSegmentName(info.Name); ok {
			return true, nil
		}
	}
	return false, nil
}

// Create makes an empty log in dir, which it makes, too, if need be; dir's own
// parent must be durable. The log starts after index 0, term 0.
func Create(fs vfs.FS, dir string, id Identity, opt Options) (*WAL, error) {
	exists, err := Exists(fs, dir)
	if err != nil {
		return nil, err
	}
	if exists {
		return nil, fmt.Errorf("wal: create %s: %w", dir, vfs.ErrExist)
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	if err := fs.SyncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	if err := removeUnfinished(fs, dir); err != nil {
		return nil, err
	}
	w := newWAL(fs, dir, id, opt)
	if err := w.startSegment(plan{reset: true}); err != nil {
		return nil, err
	}
	return w, nil
}

func newWAL(fs vfs.FS, dir string, id Identity, opt Options) *WAL {
	if opt.SegmentSize == 0 {
		opt.SegmentSize = defaultSegmentSize
	}
	opt.SegmentSize = max(opt.SegmentSize, minSegmentSize)
	w := &WAL{fs: fs, dir: dir, id: id, opt: opt, sequence: 1}
	w.mu.table = newTable(Position{})
	return w
}

// removeUnfinished removes segments that a crash left before they counted.
func removeUnfinished(fs vfs.FS, dir string) error {
	infos, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	for _, info := range infos {
		if strings.HasSuffix(info.Name, newSuffix) {
			if err := fs.Remove(path(dir, info.Name)); err != nil {
				return fmt.Errorf("wal: %w", err)
			}
		}
	}
	return nil
}

// makeRoom starts the next segment if the active one cannot take a batch of
// this size. The owner calls it between batches: all entries are durable.
func (w *WAL) makeRoom(size int64) error {
	// A batch may grow by further Appends; the reserve makes it rare that it
	// outgrows the preallocated file, which costs speed but no safety.
	reserve := min(w.opt.SegmentSize/8, 1<<20)
	if w.mu.batch.base+size+reserve <= w.mu.table.active().size {
		return nil
	}
	return w.startSegment(plan{room: size + reserve})
}

// Reset empties the log and makes it start after the given position: a
// snapshot of the state up to there was installed and is durable. What was
// appended but not synced is gone, too. The commit index becomes start's, the
// term rises to start's if it was lower. Reset is durable when it returns.
//
// A crash leaves the log as it was after the last Sync, or the empty one: a
// segment that says reset makes all before it void, present or not.
func (w *WAL) Reset(start Position) error {
	if err := w.usable(); err != nil {
		return err
	}
	old := w.mu.table.segs
	if err := w.startSegment(plan{reset: true, position: start}); err != nil {
		return err
	}
	var names []string
	for _, s := range old {
		names = append(names, s.name())
		if err := s.release(); err != nil {
			return w.poison(err)
		}
	}
	return w.removeVoid(names)
}

// Replace begins a new log in the place of one that Open found damaged. It
// starts after the given position and has the given hard state, but for the
// commit index, which is start's. The caller answers for both: a member whose
// log was damaged may have acknowledged entries that it no longer has, and must
// not vote or lead before its peers have given them back.
//
// The old files are kept as *.damaged for whoever wants to know why; those of an
// earlier time go, or a disk that damages again and again would fill up. A crash
// leaves the damaged log or the new one.
func Replace(fs vfs.FS, dir string, id Identity, hs HardState, start Position, opt Options) (*WAL, error) {
	infos, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	if err := removeUnfinished(fs, dir); err != nil {
		return nil, err
	}
	w := newWAL(fs, dir, id, opt)
	w.mu.state = hs
	p := plan{reset: true, position: start}
	var old []string
	for _, info := range infos {
		if number, ok := parseSegmentName(info.Name); ok {
			p.after = max(p.after, number)
			old = append(old, info.Name)
		} else if strings.HasSuffix(info.Name, damagedSuffix) {
			if err := fs.Remove(path(dir, info.Name)); err != nil {
				return nil, fmt.Errorf("wal: %w", err)
			}
		}
	}
	if err := w.startSegment(p); err != nil {
		return nil, err
	}
	for _, name := range old {
		if err := fs.Rename(path(dir, name), path(dir, name+damagedSuffix)); err != nil {
			return nil, errors.Join(w.poison(err), w.Close())
		}
	}
	if err := fs.SyncDir(dir); err != nil {
		return nil, errors.Join(w.poison(err), w.Close())
	}
	return w, nil
}

// removeVoid removes segments that a reset made void.
func (w *WAL) removeVoid(names []string) error {
	for _, name := range names {
		if err := w.fs.Remove(path(w.dir, name)); err != nil {
			return w.poison(err)
		}
	}
	if len(names) == 0 {
		return nil
	}
	if err := w.fs.SyncDir(w.dir); err != nil {
		return w.poison(err)
	}
	return nil
}

// Release drops the oldest segments whose entries are all <= upTo, but never
// the active one. What was appended is made durable first: an entry may only
// go when what replaced it is there to stay.
//
// Each removal is made durable before the next, so that a crash leaves no gap.
func (w *WAL) Release(upTo api.Index) error {
	if err := w.usable(); err != nil {
		return err
	}
	for len(w.mu.table.segs) > 1 {
		s := w.mu.table.segs[0]
		if len(s.offsets) > 0 && s.last() > upTo {
			return nil
		}
		if len(w.mu.batch.buf) > 0 {
			if err := w.Sync(); err != nil {
				return err
			}
		}
		w.mu.Lock()
		w.mu.table.dropOldest()
		w.mu.Unlock()
		if err := w.retire(s); err != nil {
			return w.poison(err)
		}
	}
	return nil
}

// retire takes away the file of a segment that is not in the table any more. It
// becomes the spare, which the next segment writes over, if there is none yet, it
// is no larger than a segment shall be, and nobody reads it: nobody new can.
func (w *WAL) retire(s *segment) (err error) {
	name := path(w.dir, s.name())
	if w.spare == 0 && s.end <= w.opt.SegmentSize && s.users.Load() == 1 {
		err = w.fs.Rename(name, path(w.dir, spareName))
		w.spare = s.end
	} else {
		err = w.fs.Remove(name)
	}
	if err == nil {
		err = w.fs.SyncDir(w.dir)
	}
	return errors.Join(err, s.release())
}

// plan says what a new segment begins with.
type plan struct {
	reset    bool     // the log starts anew,
	position Position // after this
	room     int64    // what the next batch will take
	after    uint64   // the highest segment number in use, if the table has none

	// What recovery carries over: records that end the log after cut, if it is
	// not nil, and add entries.
	cut     *Position
	entries []*raftpb.Entry
}

// startSegment makes the next segment and makes it the active one:
//
//  1. create the file under a name that does not count, or give the spare one,
//     preallocate it, write header and first batch, sync
//  2. rename it to its own name
//  3. sync the directory: the commit point
//  4. cut the preallocated rest off the segment before
//
// A crash before 2 leaves a file that Open removes; between 2 and 3 either
// name, both complete; after 3 the new segment, whose header says up to where
// the one before counts. Step 4 is only for the space: what it cuts off is
// void already. It also shows, should the newest segment ever vanish, that
// there was one: the last segment of a log is never shorter than it was made.
func (w *WAL) startSegment(p plan) error {
	h, state := w.nextHeader(p)
	content, offsets := firstBatch(&h, p, state)
	file, err := w.writeSegment(h, content)
	if err != nil {
		return w.poison(err)
	}
	var before *segment
	w.mu.Lock()
	t, s := w.mu.table, newSegment(h, file)
	if p.reset {
		t.reset(p.position)
	} else {
		before = t.active()
		before.end = h.prevEnd
	}
	t.segs = append(t.segs, s)
	if p.cut != nil {
		must(t.cut(*p.cut))
	}
	for k, e := range p.entries {
		must(t.add(positionOf(e), offsets[k], recordSize(len(e.GetData()))))
	}
	w.mu.state = state
	w.mu.batch.begin(h.proven, s.checksum)
	w.mu.Unlock()

	w.sequence = h.sequence + 1
	w.synced, w.syncedState = h.proven, state
	w.proof, w.proofs = w.footerBody(), 0 // the header proves the first batch
	if before != nil && before.end < before.size {
		if err := before.file.Truncate(before.end); err != nil {
			return w.poison(err)
		}
	}
	return nil
}

// nextHeader returns the header of the next segment, but for its proven end,
// and the hard state it begins with.
func (w *WAL) nextHeader(p plan) (header, HardState) {
	t, state := w.mu.table, w.mu.state
	h := header{id: w.id, number: p.after + 1, sequence: w.sequence, prevEnd: w.synced, position: t.last}
	salt := w.opt.Salt
	if len(t.segs) > 0 {
		h.number = t.active().number + 1
		salt += t.active().salt
	}
	h.salt = scramble(salt + h.number)
	if p.reset {
		h.reset, h.position = true, p.position
		if state.Commit = p.position.Index; state.Term < p.position.Term {
			state.Term, state.Vote = p.position.Term, 0
		}
	}
	h.older, h.size = w.spare, w.opt.SegmentSize
	need := recordsStart + batchSize(p.entries) + p.room + batchSize(nil)
	if need > h.size {
		h.size = (need + statesApart - 1) &^ (statesApart - 1)
	}
	return h, state
}

// scramble spreads the bits of x (the finalizer of splitmix64).
func scramble(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// firstBatch returns headers and first batch, and where its entries stand. It
// holds both copies of the hard state, so that every segment does.
func firstBatch(h *header, p plan, state HardState) (content []byte, offsets []int64) {
	last := h.position
	if p.cut != nil {
		last = *p.cut
	}
	if n := len(p.entries); n > 0 {
		last = positionOf(p.entries[n-1])
	}
	f := footer{synced: recordsStart, last: last.Index, state: state}
	b := &batch{base: recordsStart, seed: h.seed()}
	b.state(f)
	if p.cut != nil {
		b.cut(*p.cut)
	}
	for _, e := range p.entries {
		offsets = append(offsets, b.end())
		b.entry(e)
	}
	b.footer(h.sequence, f)
	h.proven = b.end()
	content = make([]byte, recordsStart, h.proven)
	copy(content, h.encode())
	copy(content[headerCopy:], h.encode())
	return append(content, b.bytes(h.older)...), offsets
}

// writeSegment takes steps 1 to 3.
func (w *WAL) writeSegment(h header, content []byte) (vfs.File, error) {
	final := path(w.dir, segmentName(h.number))
	unfinished := strings.TrimSuffix(final, segmentSuffix) + newSuffix
	file, err := w.newFile(unfinished)
	if err != nil {
		return nil, err
	}
	err = file.Preallocate(h.size)
	if err == nil {
		_, err = file.WriteAt(content, 0)
	}
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = w.fs.Rename(unfinished, final)
	}
	if err == nil && !planted.SkipSyncDir {
		err = w.fs.SyncDir(w.dir)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	return w.fs.Open(final) // so that the file knows its name
}

// newFile makes a file for a segment, of the spare if there is one: its blocks are
// in place and have been written, so that writing them again changes no block map.
func (w *WAL) newFile(name string) (vfs.File, error) {
	if w.spare == 0 {
		return w.fs.Create(name)
	}
	w.spare = 0
	if err := w.fs.Rename(path(w.dir, spareName), name); err != nil {
		return nil, err
	}
	return w.fs.Open(name)
}
