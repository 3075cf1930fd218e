// Package journal is a storage engine for members that cannot have bbolt: a
// memory engine, and a file from which it is made anew. It keeps the contract of
// package engine on any vfs.FS.
//
// The file is a line that names the format, then records: length, checksum, body.
// The first body is a dump of the memory engine, each later one a batch. A batch
// is committed when its record is synced; a record that is not whole is the torn
// end of a crash. A file that is a bare dump, which is what a snapshot of another
// member is, becomes a journal when it is opened.
package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"

	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft/vfs"
)

const (
	magic    = "keelson-journal\n"
	headSize = 8
	suffix   = ".rewrite" // a rewrite's file until it takes the other's place
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Engine is the memory engine with its file. Views are the memory's own.
type Engine struct {
	*engine.Memory
	fs   vfs.FS
	path string

	// Owned by the committing goroutine.
	file     vfs.File
	size     int64 // of what is whole in the file
	poisoned error
}

// Open opens or makes the file at path.
func Open(fs vfs.FS, path string) (_ *Engine, err error) {
	if err := fs.Remove(path + suffix); err != nil && !errors.Is(err, vfs.ErrNotExist) {
		return nil, err
	}
	e := &Engine{Memory: engine.NewMemory(), fs: fs, path: path}
	content, err := readFile(fs, path)
	switch {
	case errors.Is(err, vfs.ErrNotExist):
		return e, e.Rewrite(nil)
	case err != nil:
		return nil, err
	}
	rest, isJournal := bytes.CutPrefix(content, []byte(magic))
	if !isJournal {
		if e.Memory, err = engine.LoadMemory(bytes.NewReader(content)); err != nil {
			return nil, fmt.Errorf("%w: %w", engine.ErrDamaged, err)
		}
		return e, e.Rewrite(nil)
	}
	if err := e.replay(rest); err != nil {
		return nil, err
	}
	if e.file, err = fs.Open(path); err != nil {
		return nil, err
	}
	// What is behind the whole records was never committed. It must not stand
	// behind the next one.
	return e, errors.Join(e.file.Truncate(e.size), e.file.Sync())
}

// replay applies the records of a file.
func (e *Engine) replay(b []byte) error {
	e.size = int64(len(magic))
	for first := true; ; first = false {
		body, ok := cut(b)
		switch {
		case !ok && first:
			return fmt.Errorf("%w: it begins with no dump", engine.ErrDamaged)
		case !ok:
			return nil
		case first:
			m, err := engine.LoadMemory(bytes.NewReader(body))
			if err != nil {
				return fmt.Errorf("%w: %w", engine.ErrDamaged, err)
			}
			e.Memory = m
		default:
			batch, err := decode(body)
			if err == nil {
				err = e.Memory.Commit(batch)
			}
			if err != nil {
				return fmt.Errorf("%w: %w", engine.ErrDamaged, err)
			}
		}
		b, e.size = b[headSize+len(body):], e.size+int64(headSize+len(body))
	}
}

// cut gives the body of the first record, if it is whole.
func cut(b []byte) (body []byte, ok bool) {
	if len(b) < headSize {
		return nil, false
	}
	n, sum := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	if b = b[headSize:]; n == 0 || uint64(n) > uint64(len(b)) || crc32.Checksum(b[:n], castagnoli) != sum {
		return nil, false
	}
	return b[:n], true
}

func record(body []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(body, castagnoli))
	return append(b, body...)
}

// Commit implements engine.Engine. A crash before the sync returns leaves the
// state before the batch or the one after it.
func (e *Engine) Commit(t *engine.Batch) error {
	if e.poisoned != nil {
		return e.poisoned
	}
	rec := record(encode(t))
	_, err := e.file.WriteAt(rec, e.size)
	if err == nil {
		err = e.file.Sync()
	}
	if err != nil {
		e.poisoned = fmt.Errorf("journal: %w", err)
		return e.poisoned
	}
	e.size += int64(len(rec))
	return e.Memory.Commit(t)
}

// Rewrite implements engine.Engine: the batches become one dump.
func (e *Engine) Rewrite(rest func() error) error {
	if rest != nil {
		if err := rest(); err != nil {
			return err
		}
	}
	view, err := e.Memory.View()
	if err != nil {
		return err
	}
	defer view.Release()
	var dump bytes.Buffer
	if _, err := view.WriteTo(&dump); err != nil {
		return err
	}
	content := append([]byte(magic), record(dump.Bytes())...)
	f, err := e.fs.Create(e.path + suffix)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(content, 0); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = e.fs.Rename(e.path+suffix, e.path)
	}
	if err == nil {
		err = e.fs.SyncDir(filepath.Dir(e.path))
	}
	if err != nil {
		return errors.Join(err, f.Close(), e.fs.Remove(e.path+suffix))
	}
	if e.file != nil {
		err = e.file.Close()
	}
	e.file, e.size = f, int64(len(content))
	return err
}

// View implements engine.Engine.
func (e *Engine) View() (engine.View, error) {
	v, err := e.Memory.View()
	return sized{v}, err
}

// sized knows exactly how much it writes, as views of bbolt do.
type sized struct{ engine.View }

func (v sized) Size() int64 {
	n, err := v.WriteTo(io.Discard)
	if err != nil {
		panic(err) // nothing is written anywhere
	}
	return n
}

// Close implements engine.Engine.
func (e *Engine) Close() error { return errors.Join(e.Memory.Close(), e.file.Close()) }

// A batch is a byte, so that none is empty, and a list of bucket, key, and value
// behind a byte that says whether there is one, each behind its length.

const batchMark = 'b'

func encode(t *engine.Batch) []byte {
	b := []byte{batchMark}
	part := func(p string) { b = append(binary.AppendUvarint(b, uint64(len(p))), p...) }
	for _, op := range t.Ops {
		part(string(op.Bucket))
		part(string(op.Key))
		if op.Value == nil {
			part("")
		} else {
			part("=" + string(op.Value))
		}
	}
	return b
}

func decode(b []byte) (*engine.Batch, error) {
	t := &engine.Batch{}
	if b[0] != batchMark {
		return nil, errors.New("a record that is no batch")
	}
	b = b[1:]
	part := func() []byte {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			b = nil
			return nil
		}
		p := b[size : size+int(n)]
		b = b[size+int(n):]
		return p
	}
	for len(b) > 0 {
		op := engine.Op{Bucket: engine.Bucket(part()), Key: bytes.Clone(part())}
		value, has := bytes.CutPrefix(part(), []byte("="))
		if has {
			op.Value = append([]byte{}, value...)
		}
		if op.Bucket == "" {
			return nil, errors.New("a batch of no bucket")
		}
		t.Ops = append(t.Ops, op)
	}
	return t, nil
}

func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}
