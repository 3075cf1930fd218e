package vfs

import (
	"errors"
	"slices"
)

// faultFile is an open file of a Fault.
type faultFile struct {
	File
	fs *Fault
}

// dirtyLoser is implemented by files of Mem.
type dirtyLoser interface{ LoseDirty() }

func (f *faultFile) call(op Op, off, length int64) Call {
	return Call{Op: op, Name: f.Name(), Offset: off, Length: length}
}

func (f *faultFile) Size() (size int64, err error) {
	err = f.fs.do(f.call(OpSize, 0, 0), func() (err error) {
		size, err = f.File.Size()
		return err
	})
	return size, err
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	e := f.fs.enter(f.call(OpRead, off, int64(len(p))))
	if e.err != nil && !e.apply && !e.short {
		return 0, e.err
	}
	if e.short {
		p = p[:len(p)/2]
	}
	n, err := f.File.ReadAt(p, off)
	if e.flip && n > 0 {
		p[n/2] ^= 1
	}
	if e.err != nil {
		return n, errors.Join(e.err, err)
	}
	return n, err
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	e := f.fs.enter(f.call(OpWrite, off, int64(len(p))))
	if e.err != nil && !e.apply && !e.short {
		return 0, e.err
	}
	if e.short {
		p = p[:len(p)/2]
	}
	if e.flip && len(p) > 0 {
		p = slices.Clone(p)
		p[len(p)/2] ^= 1
	}
	n, err := f.File.WriteAt(p, off)
	if e.err != nil {
		return n, errors.Join(e.err, err)
	}
	return n, err
}

func (f *faultFile) Preallocate(size int64) error {
	return f.fs.do(f.call(OpPreallocate, 0, size), func() error { return f.File.Preallocate(size) })
}

func (f *faultFile) Truncate(size int64) error {
	return f.fs.do(f.call(OpTruncate, 0, size), func() error { return f.File.Truncate(size) })
}

// Sync with a rule that loses dirty pages behaves as Linux does after a failed
// write-back: this sync fails, the next one succeeds, and the data is gone.
func (f *faultFile) Sync() error {
	e := f.fs.enter(f.call(OpSync, 0, 0))
	if e.lose {
		if l, ok := f.File.(dirtyLoser); ok {
			l.LoseDirty()
		}
	}
	if e.err != nil && !e.apply {
		return e.err
	}
	return errors.Join(e.err, f.File.Sync())
}

func (f *faultFile) Close() error {
	return f.fs.do(f.call(OpClose, 0, 0), f.File.Close)
}
