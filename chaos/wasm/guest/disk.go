//go:build wasip1

package main

import (
	"encoding/json"
	"io"
	"io/fs"

	"github.com/keelson-io/keelson/chaos/wasm/wire"
	"github.com/keelson-io/keelson/raft/vfs"
)

// disk is the host's disk.
type disk struct{}

func (disk) handle(op wire.Op, name string) (*file, error) {
	r, err := ask(op, wire.Request{Name: name})
	if err != nil {
		return nil, err
	}
	return &file{name: name, handle: uint32(r.N)}, nil
}

func (d disk) Create(name string) (vfs.File, error) { return opened(d.handle(wire.Create, name)) }
func (d disk) Open(name string) (vfs.File, error)   { return opened(d.handle(wire.Open, name)) }

// opened keeps a nil *file from becoming a File that is not nil.
func opened(f *file, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d disk) Lock(name string) (io.Closer, error) {
	f, err := d.handle(wire.Lock, name)
	if err != nil {
		return nil, err
	}
	return lock{f}, nil
}

type lock struct{ *file }

func (l lock) Close() error { return l.tell(wire.Unlock, 0) }

func (disk) Rename(from, to string) error {
	_, err := ask(wire.Rename, wire.Request{Name: from, To: to})
	return err
}

func (disk) Remove(name string) error {
	_, err := ask(wire.Remove, wire.Request{Name: name})
	return err
}

func (disk) MkdirAll(dir string, _ fs.FileMode) error {
	_, err := ask(wire.Mkdir, wire.Request{Name: dir})
	return err
}

func (disk) List(dir string) (infos []vfs.Info, err error) {
	r, err := ask(wire.List, wire.Request{Name: dir})
	if err == nil {
		err = json.Unmarshal(r.Data, &infos)
	}
	return infos, err
}

func (disk) Stat(name string) (info vfs.Info, err error) {
	r, err := ask(wire.Stat, wire.Request{Name: name})
	if err == nil {
		err = json.Unmarshal(r.Data, &info)
	}
	return info, err
}

func (disk) SyncDir(dir string) error {
	if err := await(); err != nil {
		return err
	}
	_, err := ask(wire.SyncDir, wire.Request{Name: dir})
	return err
}

func (disk) Free(dir string) (uint64, error) {
	r, err := ask(wire.Free, wire.Request{Name: dir})
	return uint64(r.N), err
}

// file is an open file, or a lock.
type file struct {
	name   string
	handle uint32
}

// tell asks for what has no answer.
func (f *file) tell(op wire.Op, size int64) error {
	_, err := ask(op, wire.Request{Handle: f.handle, Size: size})
	return err
}

func (f *file) Name() string                 { return f.name }
func (f *file) Close() error                 { return f.tell(wire.Close, 0) }
func (f *file) Preallocate(size int64) error { return f.tell(wire.Preallocate, size) }
func (f *file) Truncate(size int64) error    { return f.tell(wire.Truncate, size) }

func (f *file) Sync() error {
	if err := await(); err != nil {
		return err
	}
	return f.tell(wire.Sync, 0)
}

func (f *file) Size() (int64, error) {
	r, err := ask(wire.Size, wire.Request{Handle: f.handle})
	return r.N, err
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	r, err := ask(wire.Read, wire.Request{Handle: f.handle, Off: off, Size: int64(len(p))})
	n := copy(p, r.Data)
	if err == nil && r.Code == wire.Eof {
		err = io.EOF
	}
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	r, err := ask(wire.Write, wire.Request{Handle: f.handle, Off: off, Data: p})
	return int(r.N), err
}
