package vfs

import (
	"io"
	"io/fs"
	"sync/atomic"
)

// SectorSize is the unit in which Mem keeps or loses what was not synced.
const SectorSize = 512

// memFile is one file's content; guarded by Mem.mu.
//
// Invariant: a sector without pending versions may still differ between now
// and durable: that is what a failed sync leaves when the kernel drops dirty
// pages but keeps their content cached (LoseDirty).
type memFile struct {
	size        int64 // as programs see it
	durableSize int64
	sizeDirty   bool
	sectors     map[int64]*sector // absent sectors are zero everywhere
	dirty       []int64           // the sectors with pending versions
}

type sector struct {
	now     *[SectorSize]byte   // nil is zeros; never changed in place once pending or durable
	durable *[SectorSize]byte   // nil is zeros
	pending []*[SectorSize]byte // versions written since the last sync, oldest first
}

func newMemFile() *memFile { return &memFile{sectors: map[int64]*sector{}} }

func (f *memFile) sector(n int64) *sector {
	s := f.sectors[n]
	if s == nil {
		s = &sector{}
		f.sectors[n] = s
	}
	return s
}

// put makes version the sector's newest, pending content.
func (f *memFile) put(n int64, s *sector, version *[SectorSize]byte) {
	if len(s.pending) == 0 {
		f.dirty = append(f.dirty, n)
	}
	s.now, s.pending = version, append(s.pending, version)
}

// write puts p at off as a new pending version of each sector it touches.
func (f *memFile) write(p []byte, off int64) {
	for len(p) > 0 {
		number, in := off/SectorSize, off%SectorSize
		s, version := f.sector(number), new([SectorSize]byte)
		if s.now != nil {
			*version = *s.now
		}
		n := copy(version[in:], p)
		f.put(number, s, version)
		p, off = p[n:], off+int64(n)
	}
	f.resize(max(f.size, off))
}

func (f *memFile) resize(size int64) {
	if size == f.size {
		return
	}
	if size < f.size {
		f.zeroFrom(size)
	}
	f.size, f.sizeDirty = size, true
}

// zeroFrom clears what a truncation cuts off, so that growing again shows zeros.
func (f *memFile) zeroFrom(size int64) {
	for _, n := range sortedKeys(f.sectors) {
		s, start := f.sectors[n], n*SectorSize
		if s.now == nil || start+SectorSize <= size {
			continue
		}
		version := new([SectorSize]byte)
		copy(version[:max(0, size-start)], s.now[:])
		f.put(n, s, version)
	}
}

func (f *memFile) read(p []byte, off int64) (int, error) {
	if off >= f.size {
		return 0, io.EOF
	}
	want := len(p)
	p = p[:min(int64(want), f.size-off)]
	for done := 0; done < len(p); {
		at := off + int64(done)
		in := at % SectorSize
		rest := p[done:min(len(p), done+int(SectorSize-in))]
		if s := f.sectors[at/SectorSize]; s != nil && s.now != nil {
			copy(rest, s.now[in:])
		} else {
			clear(rest)
		}
		done += len(rest)
	}
	if len(p) < want {
		return len(p), io.EOF
	}
	return len(p), nil
}

// sync makes pending versions durable; content that LoseDirty marked clean
// stays lost, as in a page cache.
func (f *memFile) sync() {
	for _, n := range f.dirty {
		s := f.sectors[n]
		s.durable, s.pending = s.now, nil
	}
	f.dirty = f.dirty[:0]
	f.durableSize, f.sizeDirty = f.size, false
}

func (f *memFile) loseDirty() {
	for _, n := range f.dirty {
		f.sectors[n].pending = nil
	}
	f.dirty = f.dirty[:0]
	f.sizeDirty = false
}

// memHandle is an open file. Its methods take Mem.mu.
type memHandle struct {
	fs     *Mem
	file   *memFile
	name   string
	closed atomic.Bool
}

func (h *memHandle) Name() string { return h.name }

// enter locks the file system, unless the handle is closed.
func (h *memHandle) enter(op string) error {
	if h.closed.Load() {
		return &fs.PathError{Op: op, Path: h.name, Err: fs.ErrClosed}
	}
	h.fs.mu.Lock()
	return nil
}

func (h *memHandle) Size() (int64, error) {
	if err := h.enter("size"); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	return h.file.size, nil
}

func (h *memHandle) ReadAt(p []byte, off int64) (int, error) {
	if err := h.enter("read"); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	return h.file.read(p, off)
}

func (h *memHandle) WriteAt(p []byte, off int64) (int, error) {
	if err := h.enter("write"); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	if err := h.growLocked("write", off+int64(len(p))); err != nil {
		return 0, err
	}
	h.file.write(p, off)
	return len(p), nil
}

func (h *memHandle) growLocked(op string, size int64) error {
	growth := size - h.file.size
	if growth > 0 && h.fs.mu.space >= 0 && h.fs.usedLocked()+growth > h.fs.mu.space {
		return &fs.PathError{Op: op, Path: h.name, Err: ErrNoSpace}
	}
	return nil
}

func (h *memHandle) Preallocate(size int64) error {
	if err := h.enter("preallocate"); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	if err := h.growLocked("preallocate", size); err != nil {
		return err
	}
	h.file.resize(max(size, h.file.size))
	return nil
}

func (h *memHandle) Truncate(size int64) error {
	if err := h.enter("truncate"); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	h.file.resize(size)
	return nil
}

func (h *memHandle) Sync() error {
	if err := h.enter("sync"); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	h.file.sync()
	return nil
}

// LoseDirty is what a kernel does after a sync has failed: the pages count as
// clean and are never written again, but reads still show them.
func (h *memHandle) LoseDirty() {
	if h.enter("lose") != nil {
		return
	}
	defer h.fs.mu.Unlock()
	h.file.loseDirty()
}

func (h *memHandle) Close() error {
	if h.closed.Swap(true) {
		return &fs.PathError{Op: "close", Path: h.name, Err: fs.ErrClosed}
	}
	return nil
}
