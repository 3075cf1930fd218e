//go:build unix

package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// filePerm is for the owner alone: the log holds every value of the store.
const filePerm = 0o600

// OS returns the machine's file system.
func OS() FS { return osFS{} }

type osFS struct{}

type osFile struct{ *os.File }

func (osFS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
	return wrapFile(f, err)
}

func (osFS) Open(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	return wrapFile(f, err)
}

func wrapFile(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, translate(err)
	}
	return osFile{f}, nil
}

func (osFS) Rename(oldName, newName string) error { return translate(os.Rename(oldName, newName)) }
func (osFS) Remove(name string) error             { return translate(os.Remove(name)) }

func (osFS) MkdirAll(dir string, perm os.FileMode) error { return translate(os.MkdirAll(dir, perm)) }

func (osFS) List(dir string) ([]Info, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, translate(err)
	}
	infos := make([]Info, 0, len(entries))
	for _, e := range entries {
		fi, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // removed since the directory was read
		}
		if err != nil {
			return nil, translate(err)
		}
		infos = append(infos, infoOf(fi))
	}
	return infos, nil
}

func (osFS) Stat(name string) (Info, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return Info{}, translate(err)
	}
	return infoOf(fi), nil
}

func infoOf(fi os.FileInfo) Info {
	return Info{Name: fi.Name(), Size: fi.Size(), IsDir: fi.IsDir(), Mode: fi.Mode()}
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return translate(err)
	}
	err = d.Sync()
	return translate(errors.Join(err, d.Close()))
}

// Lock uses flock: the kernel drops it when the holder dies, however it dies,
// and a second Lock by the same process fails as another's would.
func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.Clean(name), os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return nil, translate(err)
	}
	err = retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err == nil {
		return f, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
}

func (osFS) Free(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, translate(err))
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}

func (f osFile) Size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, translate(err)
	}
	return fi.Size(), nil
}

func (f osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, translate(err)
}

func (f osFile) Truncate(size int64) error { return translate(f.File.Truncate(size)) }

func (f osFile) Preallocate(size int64) error {
	if err := preallocate(f.File, size); err != nil {
		return fmt.Errorf("preallocate %s: %w", f.Name(), translate(err))
	}
	return nil
}

func (f osFile) Sync() error {
	if err := syncData(f.File); err != nil {
		return fmt.Errorf("sync %s: %w", f.Name(), translate(err))
	}
	return nil
}

// writeZeros extends f with zeros to size, for file systems that cannot
// reserve space otherwise.
func writeZeros(f *os.File, size int64) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	for off := fi.Size(); off < size; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// translate makes a full disk or quota testable as ErrNoSpace and keeps the cause.
func translate(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
