package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
)

// Op names one kind of call. The empty Op in a Rule matches every kind.
type Op string

// The kinds of calls that Fault counts, logs and breaks.
const (
	OpCreate      Op = "create"
	OpOpen        Op = "open"
	OpRename      Op = "rename"
	OpRemove      Op = "remove"
	OpMkdir       Op = "mkdir"
	OpList        Op = "list"
	OpStat        Op = "stat"
	OpSyncDir     Op = "syncdir"
	OpLock        Op = "lock"
	OpFree        Op = "free"
	OpSize        Op = "size"
	OpRead        Op = "read"
	OpWrite       Op = "write"
	OpPreallocate Op = "preallocate"
	OpTruncate    Op = "truncate"
	OpSync        Op = "sync"
	OpClose       Op = "close"
)

// ErrInjected is the error of a rule that names none.
var ErrInjected = errors.New("injected fault")

// Call is one call that reached the file system, numbered from 1.
type Call struct {
	N      int
	Op     Op
	Name   string
	To     string // of a rename
	Offset int64  // of reads and writes
	Length int64  // of reads and writes; the size for preallocate and truncate
}

// String prints the call as one line of a golden list, with base names only.
func (c Call) String() string {
	base := filepath.Base(c.Name)
	switch c.Op {
	case OpRead, OpWrite:
		return fmt.Sprintf("%s %s %d+%d", c.Op, base, c.Offset, c.Length)
	case OpPreallocate, OpTruncate:
		return fmt.Sprintf("%s %s %d", c.Op, base, c.Length)
	case OpRename:
		return fmt.Sprintf("%s %s %s", c.Op, base, filepath.Base(c.To))
	}
	return fmt.Sprintf("%s %s", c.Op, base)
}

// Rule breaks some calls. A zero field does not restrict or does nothing.
type Rule struct {
	Op    Op
	Match string // glob on the base name
	Nth   int    // only the n-th call that fits the fields above, from 1
	Times int    // with Nth: how many calls from the n-th on (default 1)

	Hook  func(Call) // runs before the call: latency, a crash, a cancelled test
	Err   error      // the call fails with it
	Apply bool       // with Err: the call takes effect all the same
	Short bool       // a write or read stops half-way, with Err or ErrInjected
	Flip  bool       // one bit in the middle of a read's or write's bytes turns
	Lose  bool       // a sync fails and the kernel forgets that pages were dirty

	seen int
}

// Fault passes calls on to another FS, keeps a log of them, and breaks the
// ones that its rules name. The first rule that fits a call decides.
type Fault struct {
	inner FS
	mu    struct {
		sync.Mutex
		rules []*Rule
		calls []Call
		total int
	}
}

// NewFault wraps inner.
func NewFault(inner FS, rules ...Rule) *Fault {
	f := &Fault{inner: inner}
	f.SetRules(rules...)
	return f
}

// SetRules replaces the rules and starts their counts again.
func (f *Fault) SetRules(rules ...Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.rules = nil
	for _, r := range rules {
		f.mu.rules = append(f.mu.rules, &r)
	}
}

// Calls returns the log since the last TakeCalls.
func (f *Fault) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.mu.calls)
}

// TakeCalls returns the log and empties it.
func (f *Fault) TakeCalls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.mu.calls
	f.mu.calls = nil
	return calls
}

// Count returns how many calls were made in all.
func (f *Fault) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.total
}

// effect is what a rule does to one call.
type effect struct {
	err                      error
	apply, short, flip, lose bool
}

// enter logs the call and decides what happens to it.
func (f *Fault) enter(c Call) effect {
	f.mu.Lock()
	f.mu.total++
	c.N = f.mu.total
	f.mu.calls = append(f.mu.calls, c)
	var rule Rule
	for _, r := range f.mu.rules {
		if r.fits(c) {
			rule = *r
			break
		}
	}
	f.mu.Unlock()
	if rule.Hook != nil {
		rule.Hook(c)
	}
	e := effect{err: rule.Err, apply: rule.Apply, short: rule.Short, flip: rule.Flip, lose: rule.Lose}
	if e.err == nil && (e.short || e.lose) {
		e.err = ErrInjected
	}
	if e.err != nil {
		e.err = &fs.PathError{Op: string(c.Op), Path: c.Name, Err: e.err}
	}
	return e
}

// fits counts the call and reports whether it is one to break.
func (r *Rule) fits(c Call) bool {
	if r.Op != "" && r.Op != c.Op {
		return false
	}
	if r.Match != "" {
		if ok, err := filepath.Match(r.Match, filepath.Base(c.Name)); err != nil || !ok {
			return false
		}
	}
	r.seen++
	return r.Nth == 0 || (r.seen >= r.Nth && r.seen < r.Nth+max(1, r.Times))
}

// do runs a call without bytes.
func (f *Fault) do(c Call, call func() error) error {
	e := f.enter(c)
	if e.err != nil && !e.apply {
		return e.err
	}
	return errors.Join(e.err, call())
}

// Create and Open wrap the file. A call that fails but takes effect leaves the
// file behind, closed.
func (f *Fault) Create(name string) (File, error) { return f.open(OpCreate, name, f.inner.Create) }

// Open: see Create.
func (f *Fault) Open(name string) (File, error) { return f.open(OpOpen, name, f.inner.Open) }

func (f *Fault) open(op Op, name string, open func(string) (File, error)) (File, error) {
	var file File
	err := f.do(Call{Op: op, Name: name}, func() (err error) {
		file, err = open(name)
		return err
	})
	if err != nil {
		if file != nil {
			err = errors.Join(err, file.Close())
		}
		return nil, err
	}
	return &faultFile{File: file, fs: f}, nil
}

// Rename implements FS.
func (f *Fault) Rename(oldName, newName string) error {
	c := Call{Op: OpRename, Name: oldName, To: newName}
	return f.do(c, func() error { return f.inner.Rename(oldName, newName) })
}

// Remove implements FS.
func (f *Fault) Remove(name string) error {
	return f.do(Call{Op: OpRemove, Name: name}, func() error { return f.inner.Remove(name) })
}

// MkdirAll implements FS.
func (f *Fault) MkdirAll(dir string, perm fs.FileMode) error {
	return f.do(Call{Op: OpMkdir, Name: dir}, func() error { return f.inner.MkdirAll(dir, perm) })
}

// List implements FS.
func (f *Fault) List(dir string) (infos []Info, err error) {
	err = f.do(Call{Op: OpList, Name: dir}, func() (err error) {
		infos, err = f.inner.List(dir)
		return err
	})
	return infos, err
}

// Stat implements FS.
func (f *Fault) Stat(name string) (info Info, err error) {
	err = f.do(Call{Op: OpStat, Name: name}, func() (err error) {
		info, err = f.inner.Stat(name)
		return err
	})
	return info, err
}

// SyncDir implements FS.
func (f *Fault) SyncDir(dir string) error {
	return f.do(Call{Op: OpSyncDir, Name: dir}, func() error { return f.inner.SyncDir(dir) })
}

// Lock implements FS.
func (f *Fault) Lock(name string) (lock io.Closer, err error) {
	err = f.do(Call{Op: OpLock, Name: name}, func() (err error) {
		lock, err = f.inner.Lock(name)
		return err
	})
	return lock, err
}

// Free implements FS.
func (f *Fault) Free(dir string) (n uint64, err error) {
	err = f.do(Call{Op: OpFree, Name: dir}, func() (err error) {
		n, err = f.inner.Free(dir)
		return err
	})
	return n, err
}
