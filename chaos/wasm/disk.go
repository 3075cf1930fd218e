package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/keelson-io/keelson/chaos/wasm/wire"
	"github.com/keelson-io/keelson/raft/vfs"
)

// call serves wire's calls. A machine may die at any of them.
func (m *machine) call(s []uint64) {
	op := wire.Op(s[0])
	m.calls++
	m.world.now += tick
	if m.dead {
		panic(errCrashed)
	}
	if m.dieAt == m.calls {
		m.death()
		panic(errCrashed)
	}
	r, err := wire.DecodeRequest(m.bytes(s[1], s[2]))
	if err != nil {
		panic(err)
	}
	m.world.note(m.node, "call", int64(op), m.bytes(s[1], s[2]))
	answer, err := m.serve(op, r)
	if err != nil {
		answer.Code, answer.Data = codeOf(err), []byte(err.Error())
	}
	b := answer.Append(nil)
	if uint64(len(b)) > s[4] {
		panic(fmt.Sprintf("an answer of %d bytes, and room for %d", len(b), s[4]))
	}
	s[0] = uint64(copy(m.bytes(s[3], uint64(len(b))), b))
}

func codeOf(err error) wire.Code {
	switch {
	case errors.Is(err, io.EOF):
		return wire.Eof
	case errors.Is(err, vfs.ErrNotExist):
		return wire.NotExist
	case errors.Is(err, vfs.ErrExist):
		return wire.Exist
	case errors.Is(err, vfs.ErrLocked):
		return wire.Locked
	case errors.Is(err, vfs.ErrNoSpace):
		return wire.NoSpace
	}
	return wire.Failed
}

// serve answers one question.
func (m *machine) serve(op wire.Op, r wire.Request) (a wire.Reply, err error) {
	switch op {
	case wire.Create:
		return m.opened(m.disk.Create(r.Name))
	case wire.Open:
		return m.opened(m.disk.Open(r.Name))
	case wire.Lock:
		return m.opened(m.disk.Lock(r.Name))
	case wire.Rename:
		return a, m.disk.Rename(r.Name, r.To)
	case wire.Remove:
		return a, m.disk.Remove(r.Name)
	case wire.Mkdir:
		return a, m.disk.MkdirAll(r.Name, 0o700)
	case wire.List:
		return described(m.disk.List(r.Name))
	case wire.Stat:
		return described(m.disk.Stat(r.Name))
	case wire.Free:
		n, err := m.disk.Free(r.Name)
		return wire.Reply{N: int64(n)}, err
	case wire.SyncBegin:
		return wire.Reply{N: int64(m.syncTakes())}, nil
	case wire.SyncDir:
		return a, m.disk.SyncDir(r.Name)
	case wire.Begin:
		m.world.began = m.world.now
		m.world.torment()
		return a, nil
	case wire.Unlock:
		return a, m.files[r.Handle].(io.Closer).Close()
	case wire.Listen, wire.Unlisten, wire.Dial, wire.Send, wire.Disconnect:
		return a, m.world.net.serve(m, op, r)
	}
	return m.serveFile(op, r, m.files[r.Handle].(vfs.File))
}

func (m *machine) serveFile(op wire.Op, r wire.Request, f vfs.File) (a wire.Reply, err error) {
	switch op {
	case wire.Size:
		a.N, err = f.Size()
	case wire.Read:
		a.Data = make([]byte, r.Size)
		n, err := f.ReadAt(a.Data, r.Off)
		a.Data = a.Data[:n]
		if errors.Is(err, io.EOF) {
			a.Code, err = wire.Eof, nil
		}
		return a, err
	case wire.Write:
		n, err := f.WriteAt(r.Data, r.Off)
		return wire.Reply{N: int64(n)}, err
	case wire.Preallocate:
		err = f.Preallocate(r.Size)
	case wire.Truncate:
		err = f.Truncate(r.Size)
	case wire.Sync:
		err = f.Sync()
	case wire.Close:
		err = f.Close()
		delete(m.files, r.Handle)
	default:
		err = fmt.Errorf("there is no question %d", op)
	}
	return a, err
}

// opened gives what was opened a handle.
func (m *machine) opened(f io.Closer, err error) (wire.Reply, error) {
	if err != nil {
		return wire.Reply{}, err
	}
	m.handles++
	m.files[m.handles] = f
	return wire.Reply{N: int64(m.handles)}, nil
}

func described(v any, err error) (wire.Reply, error) {
	if err != nil {
		return wire.Reply{}, err
	}
	b, err := json.Marshal(v)
	return wire.Reply{Data: b}, err
}

// syncTakes is how long a sync takes that begins now.
func (m *machine) syncTakes() time.Duration {
	d := m.world.between(m.world.cfg.DiskDelay/2, 2*m.world.cfg.DiskDelay)
	return max(d, m.stalled-m.world.now)
}
