package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Mem is a file system in memory that forgets what was not synced.
//
// It is strict: a file's data and a directory's entries are kept apart in a
// durable state and what happened since. CrashClone picks, sector by sector
// and entry by entry, what a power cut would have left.
//
//	file data         durable after File.Sync of that file
//	directory entries durable after SyncDir of that directory, and of no other
//
// A process that merely dies loses nothing: open the same Mem again.
type Mem struct {
	mu struct {
		sync.Mutex
		root   map[string]*memDir // by cleaned path; what running programs see
		locks  map[string]bool
		space  int64 // bytes that files may take; < 0 is unlimited
		random *rand.Rand
	}
}

// A node is a *memFile or a *memDir.
type node any

// memDir is guarded by Mem.mu.
type memDir struct {
	now     map[string]node
	durable map[string]node
	pending []dirOp // since the last SyncDir, in order
}

// dirOp is one atomic change of a directory: a nil node removes the name.
type dirOp map[string]node

// NewMem returns an empty file system. The seed drives CrashClone(nil).
func NewMem(seed uint64) *Mem {
	m := &Mem{}
	m.mu.root = map[string]*memDir{}
	m.mu.locks = map[string]bool{}
	m.mu.space = -1
	m.mu.random = rand.New(rand.NewPCG(seed, 0))
	for _, top := range []string{".", "/"} {
		m.mu.root[top] = newMemDir()
	}
	return m
}

func newMemDir() *memDir {
	return &memDir{now: map[string]node{}, durable: map[string]node{}}
}

func (d *memDir) change(op dirOp) {
	op.apply(d.now)
	d.pending = append(d.pending, op)
}

func (op dirOp) apply(entries map[string]node) {
	for name, n := range op {
		if n == nil {
			delete(entries, name)
		} else {
			entries[name] = n
		}
	}
}

// SetSpace bounds the bytes that all files together may take; a write beyond
// fails with ErrNoSpace. A negative number removes the bound.
func (m *Mem) SetSpace(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.space = bytes
}

func (m *Mem) usedLocked() (used int64) {
	for _, d := range m.mu.root {
		for _, n := range d.now {
			if f, ok := n.(*memFile); ok {
				used += f.size
			}
		}
	}
	return used
}

// lookupLocked finds the directory and the last element of a path.
func (m *Mem) lookupLocked(op, name string) (*memDir, string, error) {
	name = filepath.Clean(name)
	d := m.mu.root[filepath.Dir(name)]
	if d == nil {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: ErrNotExist}
	}
	return d, filepath.Base(name), nil
}

func (m *Mem) fileLocked(op, name string) (*memFile, error) {
	d, base, err := m.lookupLocked(op, name)
	if err != nil {
		return nil, err
	}
	f, ok := d.now[base].(*memFile)
	if !ok {
		return nil, &fs.PathError{Op: op, Path: name, Err: ErrNotExist}
	}
	return f, nil
}

// Create makes a new file; its entry is pending until SyncDir.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.lookupLocked("create", name)
	if err != nil {
		return nil, err
	}
	if d.now[base] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: ErrExist}
	}
	f := newMemFile()
	d.change(dirOp{base: f})
	return &memHandle{fs: m, file: f, name: name}, nil
}

// Open opens an existing file.
func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.fileLocked("open", name)
	if err != nil {
		return nil, err
	}
	return &memHandle{fs: m, file: f, name: name}, nil
}

// Rename is atomic within a directory: a crash leaves the old name or the new.
// Across directories a crash may leave both or neither.
func (m *Mem) Rename(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, oldBase, err := m.lookupLocked("rename", oldName)
	if err != nil {
		return err
	}
	to, newBase, err := m.lookupLocked("rename", newName)
	if err != nil {
		return err
	}
	n, ok := from.now[oldBase].(*memFile)
	if !ok {
		return &fs.PathError{Op: "rename", Path: oldName, Err: ErrNotExist}
	}
	if from == to {
		from.change(dirOp{oldBase: nil, newBase: n})
		return nil
	}
	to.change(dirOp{newBase: n})
	from.change(dirOp{oldBase: nil})
	return nil
}

// Remove takes a file or an empty directory out of its directory; open
// handles stay usable.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.lookupLocked("remove", name)
	if err != nil {
		return err
	}
	switch n := d.now[base].(type) {
	case nil:
		return &fs.PathError{Op: "remove", Path: name, Err: ErrNotExist}
	case *memDir:
		if len(n.now) > 0 {
			return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrInvalid}
		}
		delete(m.mu.root, filepath.Clean(name))
	}
	d.change(dirOp{base: nil})
	return nil
}

// MkdirAll makes dir and its parents; each entry is pending in its parent.
func (m *Mem) MkdirAll(dir string, perm fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mkdirLocked(filepath.Clean(dir))
}

func (m *Mem) mkdirLocked(dir string) error {
	if m.mu.root[dir] != nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := m.mkdirLocked(parent); err != nil {
		return err
	}
	up, base := m.mu.root[parent], filepath.Base(dir)
	if up.now[base] != nil {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: ErrExist}
	}
	d := newMemDir()
	m.mu.root[dir] = d
	up.change(dirOp{base: d})
	return nil
}

// List returns the entries of dir in byte order.
func (m *Mem) List(dir string) ([]Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.mu.root[filepath.Clean(dir)]
	if d == nil {
		return nil, &fs.PathError{Op: "list", Path: dir, Err: ErrNotExist}
	}
	var infos []Info
	for name, n := range d.now {
		infos = append(infos, infoOfNode(name, n))
	}
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

func infoOfNode(name string, n node) Info {
	if f, ok := n.(*memFile); ok {
		return Info{Name: name, Size: f.size, Mode: 0o600}
	}
	return Info{Name: name, IsDir: true, Mode: fs.ModeDir | 0o700}
}

// Stat describes one file or directory.
func (m *Mem) Stat(name string) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.mu.root[filepath.Clean(name)]; d != nil {
		return infoOfNode(filepath.Base(name), d), nil
	}
	f, err := m.fileLocked("stat", name)
	if err != nil {
		return Info{}, err
	}
	return infoOfNode(filepath.Base(name), f), nil
}

// SyncDir makes the directory's entries durable, but not what they name.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.mu.root[filepath.Clean(dir)]
	if d == nil {
		return &fs.PathError{Op: "syncdir", Path: dir, Err: ErrNotExist}
	}
	for _, op := range d.pending {
		op.apply(d.durable)
	}
	d.pending = nil
	return nil
}

// Lock takes the named lock until Close. A crash clone holds no locks.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if m.mu.locks[name] {
		return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
	}
	d, base, err := m.lookupLocked("lock", name)
	if err != nil {
		return nil, err
	}
	if d.now[base] == nil {
		d.change(dirOp{base: newMemFile()})
	}
	m.mu.locks[name] = true
	return &memLock{fs: m, name: name}, nil
}

type memLock struct {
	fs   *Mem
	name string
	once sync.Once
}

func (l *memLock) Close() error {
	l.once.Do(func() {
		l.fs.mu.Lock()
		defer l.fs.mu.Unlock()
		delete(l.fs.mu.locks, l.name)
	})
	return nil
}

// Free returns what SetSpace leaves.
func (m *Mem) Free(dir string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.root[filepath.Clean(dir)] == nil {
		return 0, &fs.PathError{Op: "free", Path: dir, Err: ErrNotExist}
	}
	if m.mu.space < 0 {
		return 1 << 40, nil
	}
	return uint64(max(0, m.mu.space-m.usedLocked())), nil
}
