//go:build linux

package real

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is an ext4 file system in an image file, on a loop device that goes away
// with the mount.
type Disk struct {
	image, dir string
	bytes      int64
	mounted    bool
}

// newDisk makes and mounts a file system of the given size.
func newDisk(dir string, bytes int64) (*Disk, error) {
	d := &Disk{image: dir + ".img", dir: dir, bytes: bytes}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.Create(d.image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(bytes), f.Close()); err != nil {
		return nil, err
	}
	// No reserved blocks: kvd runs as root, and a full disk must be full for root.
	out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,nodiscard", d.image).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return d, d.mount()
}

func (d *Disk) mount() error {
	loop, err := attach(d.image)
	if err != nil {
		return err
	}
	defer loop.Close() // the mount holds it from now on
	if err := unix.Mount(loop.Name(), d.dir, "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s: %w", d.image, err)
	}
	d.mounted = true
	return nil
}

// attach gives an image a loop device, which lets go of it when nobody uses it.
func attach(image string) (*os.File, error) {
	back, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("a free loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprint("/dev/loop", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		conf := &unix.LoopConfig{Fd: uint32(back.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), conf)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return nil, fmt.Errorf("loop device %d: %w", n, err)
		}
	}
}

// Fates of the journal in a power cut.
const (
	journalFlushed = 1 // what the file system had in its journal's memory is written first
	journalLost    = 2 // it is not: names that nobody synced are gone, too
)

// ext4Shutdown is EXT4_IOC_SHUTDOWN: _IOR('X', 125, uint32).
const ext4Shutdown = 0x8004587d

// cutPower makes the file system fail every call from now on and forget what it
// has not written. Who has files open on it must end before restorePower.
func (d *Disk) cutPower(journal int) error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, journal); err != nil {
		return fmt.Errorf("shut %s down: %w", d.dir, err)
	}
	return nil
}

// restorePower mounts the file system again, which recovers from its journal.
func (d *Disk) restorePower() error {
	if err := d.unmount(); err != nil {
		return err
	}
	return d.mount()
}

func (d *Disk) unmount() error {
	if !d.mounted {
		return nil
	}
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Unmount(d.dir, 0)
		if err == nil {
			d.mounted = false
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Since(begin) > 10*time.Second {
			return fmt.Errorf("unmount %s: %w", d.dir, err)
		}
	}
}

// readOnly turns writing off, or on again.
func (d *Disk) readOnly(on bool) error {
	flags := uintptr(unix.MS_REMOUNT | unix.MS_NOATIME)
	if on {
		flags |= unix.MS_RDONLY
	}
	return unix.Mount("", d.dir, "", flags, "")
}

// fill takes all space but left bytes, and returns what gives it back.
func (d *Disk) fill(left int64) (free func(), err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		return nil, err
	}
	name := filepath.Join(d.dir, "ballast")
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if n := int64(st.Bavail)*st.Bsize - left; n > 0 {
		err = unix.Fallocate(int(f.Fd()), 0, 0, n)
	}
	return func() { os.Remove(name) }, err
}

// close gives everything back. It may be called twice.
func (d *Disk) close() error {
	err := d.unmount()
	if e := os.Remove(d.image); !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}
