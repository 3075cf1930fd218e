package wal

import (
	"errors"
	"fmt"
	"slices"

	"github.com/keelson-io/keelson/planted"
	"github.com/keelson-io/keelson/raft/vfs"
)

// Open recovers the log in dir. A zero id accepts any owner.
//
// What a crash left unfinished is cut off. What is complete but not proven
// durable is written again, into a new segment, and synced, before it counts:
// the page cache may show bytes that a failed sync never brought to the disk.
//
// When it finds damage it returns a *DamageError, no log, and in Recovered what
// is sure all the same: the newest term and vote that survived, and the range
// of entries before the damage. It changes nothing then.
func Open(fs vfs.FS, dir string, id Identity, opt Options) (*WAL, *Recovered, error) {
	l := &loader{fs: fs, dir: dir, id: id, table: newTable(Position{})}
	err := l.load()
	rec := l.recovered()
	if err != nil {
		if damage := (*DamageError)(nil); !errors.As(err, &damage) {
			rec = nil
		}
		return nil, rec, errors.Join(err, l.close())
	}
	w := newWAL(fs, dir, l.id, opt)
	w.mu.table, w.mu.state = l.table, l.state
	w.synced, w.sequence = l.table.active().end, l.sequence
	if err := l.carryOver(w); err != nil {
		err = w.poison(err) // so that Close writes nothing
		return nil, nil, errors.Join(err, w.Close())
	}
	rec.Last = w.Last()
	rec.Start, rec.First = w.Start(), w.First()
	return w, rec, nil
}

// loader reads a log without changing it.
type loader struct {
	fs    vfs.FS
	dir   string
	id    Identity
	visit func(Record)

	files    []segmentFile // what counts, oldest first
	void     []string      // the names of segments that a reset made void
	table    *table        // what is proven
	tail     tail          // what is complete but unproven, in the last segment
	state    HardState     // of the last complete batch
	sequence uint64        // of the next footer after what is proven
	torn     int64
	buf      []byte // the scanners read into it, one after the other
}

// segmentFile is a segment on disk.
type segmentFile struct {
	name string
	header
	intact  bool // the header verified
	legible bool // it did, or its copy, which serves salvage alone
	file    vfs.File
	size    int64
}

func (l *loader) load() error {
	if err := l.openFiles(); err != nil {
		return err
	}
	err := l.checkFiles()
	if err == nil {
		l.table.reset(l.files[0].position)
	}
	for k := 0; err == nil && k < len(l.files); k++ {
		err = l.loadSegment(k)
	}
	if err == nil && l.state.Commit > l.tail.last.Index {
		err = l.damage(len(l.files)-1, l.table.active().end, "entries up to %d were committed, but the last one is %d", l.state.Commit, l.tail.last.Index)
	}
	if damage := (*DamageError)(nil); errors.As(err, &damage) {
		l.salvage()
	}
	return err
}

func (l *loader) damage(k int, off int64, format string, args ...any) error {
	return &DamageError{l.files[k].name, off, fmt.Sprintf(format, args...)}
}

// openFiles opens every segment and reads its header.
func (l *loader) openFiles() error {
	infos, err := l.fs.List(l.dir)
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	for _, info := range infos {
		if _, ok := parseSegmentName(info.Name); !ok {
			continue
		}
		file, err := l.fs.Open(path(l.dir, info.Name))
		if err != nil {
			return fmt.Errorf("wal: %w", err)
		}
		l.files = append(l.files, segmentFile{name: info.Name, file: file, size: info.Size})
		if err := l.files[len(l.files)-1].readHeader(); err != nil {
			return err
		}
	}
	if len(l.files) == 0 {
		return fmt.Errorf("wal: open %s: %w", l.dir, vfs.ErrNotExist)
	}
	return nil
}

// readHeader decodes the header, or else its copy.
func (f *segmentFile) readHeader() error {
	in := window{file: f.file, size: min(f.size, recordsStart)}
	p, err := in.at(0, recordsStart)
	if err != nil {
		return err
	}
	f.header, err = decodeHeader(p)
	if err == nil && segmentName(f.number) != f.name {
		err = errBadHeader // another segment's, misdirected
	}
	f.intact = err == nil
	if errors.Is(err, errBadHeader) && len(p) == recordsStart {
		f.header, err = decodeHeader(p[headerCopy:])
	}
	f.legible = err == nil
	if errors.Is(err, errBadHeader) {
		return nil
	}
	return err
}

// checkFiles lets go of segments that a reset made void, whatever state they are
// in, and checks that the rest are one log of the right owner.
func (l *loader) checkFiles() error {
	first := 0
	for k, f := range l.files {
		if f.intact && f.reset {
			first = k
		}
	}
	for _, f := range l.files[:first] {
		l.void = append(l.void, f.name)
		if err := f.file.Close(); err != nil {
			return fmt.Errorf("wal: %w", err)
		}
	}
	l.files = l.files[first:]
	for k, f := range l.files {
		if !f.intact {
			return l.damage(k, 0, "segment header does not verify")
		}
		if l.id == (Identity{}) {
			l.id = f.id
		}
		if f.id != l.id {
			return &IdentityError{Want: l.id, Found: f.id}
		}
	}
	for k, f := range l.files {
		if want := l.files[0].number + uint64(k); f.number != want {
			return &DamageError{segmentName(want), 0, "segment is missing"}
		}
	}
	k := len(l.files) - 1
	if f := l.files[k]; f.size < f.header.size {
		return l.damage(k, f.size, "file was created with %d bytes: its end is missing, or the next segment", f.header.size)
	}
	return nil
}

// scanner returns the scanner of file k.
func (l *loader) scanner(k int) *scanner {
	f := l.files[k]
	s := &scanner{head: f.header, name: f.name, seed: f.seed(), in: window{file: f.file, size: f.size, buf: l.buf}, size: f.size, limit: f.size, visit: l.visit}
	if k+1 < len(l.files) {
		s.limit, s.closed = l.files[k+1].prevEnd, true
	}
	return s
}

// loadSegment scans file k and adds what is proven in it to the table; in the
// last segment the rest becomes the tail.
func (l *loader) loadSegment(k int) error {
	f, s := l.files[k], l.scanner(k)
	if err := s.scan(); err != nil {
		return err
	}
	l.buf = s.in.buf[:0]
	l.state.adopt(s.newest)
	if k > 0 && (f.sequence != l.sequence || f.position != l.table.last) {
		return l.damage(k, 0, "segment begins after %+v, the one before ends at %+v", f.position, l.table.last)
	}
	seg := newSegment(f.header, f.file)
	l.table.segs = append(l.table.segs, seg)
	l.sequence, seg.end = f.sequence, recordsStart
	unproven := len(s.batches)
	for i, b := range s.batches {
		if b.end > s.proven {
			unproven = i
			break
		}
		if err := l.table.apply(b); err != nil {
			return l.damage(k, b.end, "%v", err)
		}
		l.sequence, seg.end = b.sequence+1, b.end
	}
	if (s.accepted < s.proven || s.closed && s.accepted != s.limit) && !planted.DamageIsTorn {
		return s.damage()
	}
	l.tail = tail{last: l.table.last}
	if planted.TruncateTooFar && s.garbage > s.accepted && len(s.batches) > unproven {
		s.batches = s.batches[:max(unproven, len(s.batches)-1)]
	}
	for _, b := range s.batches[unproven:] {
		if err := l.tail.apply(l.table, b); err != nil {
			return l.damage(k, b.end, "%v", err)
		}
	}
	// Its term and vote may be older than a torn batch's.
	l.state.Commit = max(s.batches[len(s.batches)-1].state.Commit, s.marked)
	l.torn = s.garbage - s.accepted
	return nil
}

// apply does what a complete batch says.
func (t *table) apply(b readBatch) error {
	for _, o := range b.ops {
		err := error(nil)
		if o.kind == kindCut {
			err = t.cut(o.at)
		} else {
			err = t.add(o.at, o.off, o.size)
		}
		if err != nil {
			return err
		}
	}
	if t.last.Index != b.last {
		return fmt.Errorf("footer says the last entry is %d, it is %d", b.last, t.last.Index)
	}
	return nil
}

// tail is the sum of the batches behind what is proven: where they cut the log,
// and the entries they left.
type tail struct {
	batches int
	cut     *Position
	entries []op
	last    Position
}

// apply adds one batch, by the rules of table.cut and table.add.
func (l *tail) apply(t *table, b readBatch) error {
	l.batches++
	for _, o := range b.ops {
		if o.kind == kindEntry {
			if o.at.Index != l.last.Index+1 || o.at.Term < l.last.Term {
				return fmt.Errorf("entry %+v follows entry %+v", o.at, l.last)
			}
			l.entries = append(l.entries, o)
			l.last = o.at
			continue
		}
		if o.at.Index > l.last.Index {
			return fmt.Errorf("cut after entry %d, the last being %d", o.at.Index, l.last.Index)
		}
		l.entries = slices.DeleteFunc(l.entries, func(e op) bool { return e.at.Index > o.at.Index })
		if base := t.last.Index; o.at.Index < base && (l.cut == nil || o.at.Index < l.cut.Index) {
			if term, ok := t.term(o.at.Index); ok && term != o.at.Term {
				return fmt.Errorf("cut after entry %+v, which has term %d", o.at, term)
			}
			l.cut = &o.at
		}
		l.last = o.at
	}
	if l.last.Index != b.last {
		return fmt.Errorf("footer says the last entry is %d, it is %d", b.last, l.last.Index)
	}
	return nil
}

// salvage collects terms and votes from everything that still verifies.
func (l *loader) salvage() {
	for k, f := range l.files {
		if !f.legible {
			continue
		}
		s := l.scanner(k)
		if s.readProofs() == nil && s.search(recordsStart) == nil {
			l.state.adopt(s.newest)
		}
	}
}

func (l *loader) recovered() *Recovered {
	return &Recovered{
		HardState: l.state, Start: l.table.start,
		First: l.table.start.Index + 1, Last: l.table.last.Index, TornBytes: l.torn,
	}
}

func (l *loader) close() (err error) {
	for _, f := range l.files {
		err = errors.Join(err, f.file.Close())
	}
	return err
}

// carryOver starts a new segment with the tail in it and removes what is void.
// A crash before its commit point changes nothing, and the next Open does the
// same again.
func (l *loader) carryOver(w *WAL) error {
	if err := removeUnfinished(l.fs, l.dir); err != nil {
		return err
	}
	p := plan{cut: l.tail.cut}
	s := l.scanner(len(l.files) - 1)
	for _, o := range l.tail.entries {
		h, body, err := s.record(o.off)
		if err != nil {
			return err
		}
		if body == nil {
			return &DamageError{s.name, o.off, "record changed while the log was opened"}
		}
		p.entries = append(p.entries, new(block).set(h, slices.Clone(body)))
	}
	if err := w.startSegment(p); err != nil {
		return err
	}
	// A crash may have undone the shortening of older segments.
	for k, f := range l.files[:len(l.files)-1] {
		if end := l.files[k+1].prevEnd; end < f.size {
			if err := f.file.Truncate(end); err != nil {
				return err
			}
		}
	}
	return w.removeVoid(l.void)
}
