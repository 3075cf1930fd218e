package sim

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"strings"

	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft/vfs"
)

// disk is what a member finds again after a crash: files, and databases. A
// database is a file that names it, or the snapshot that it was made from, with
// its content in a memory engine: what a crash leaves of the file says which
// database is left.
type disk struct {
	files     *vfs.Mem
	databases map[string]*engine.Memory // by the file's content
	names     int
}

func newDisk(seed uint64) *disk {
	return &disk{files: vfs.NewMem(seed), databases: map[string]*engine.Memory{}}
}

// databasePath is where a member's database is.
const databasePath = "/data/member/snap/db"

// copies of a database's content that are kept: the one in use, and the one that
// a snapshot takes the place of.
const keptDatabases = 4

// open opens the database of the file at path, which it makes if it is absent.
func (d *disk) open(fs vfs.FS, path string) (*engine.Memory, error) {
	content, err := readFile(fs, path)
	if errors.Is(err, vfs.ErrNotExist) {
		content = d.name()
		err = writeFile(fs, path, content)
	}
	if err != nil {
		return nil, err
	}
	key := string(content)
	if e := d.databases[key]; e != nil {
		d.databases[key] = e.Crash()
		return d.databases[key], nil
	}
	e := engine.NewMemory()
	if !strings.HasPrefix(key, "database ") {
		if e, err = engine.LoadMemory(strings.NewReader(key)); err != nil {
			return nil, fmt.Errorf("%w: %w", engine.ErrDamaged, err) // a crash cut short what made it
		}
	}
	if len(d.databases) >= keptDatabases {
		clear(d.databases) // long replaced: the file at path was none of them
	}
	d.databases[key] = e
	return e, nil
}

func (d *disk) name() []byte {
	d.names++
	return fmt.Appendf(nil, "database %d", d.names)
}

// rename makes e the member's database, which was named as content says and is no more
// what others made of the same snapshot.
func (d *disk) rename(content string, e *engine.Memory) error {
	name, fresh := d.name(), databasePath+".renamed"
	if err := writeFile(d.files, fresh, name); err != nil {
		return errors.Join(err, d.files.Remove(fresh))
	}
	delete(d.databases, content)
	d.databases[string(name)] = e
	return errors.Join(d.files.Rename(fresh, databasePath), d.files.SyncDir(path.Dir(databasePath)))
}

// killed is the disk after the process died, powerless after the power failed.
func (d *disk) killed() *disk {
	return &disk{files: d.files.Clone(), databases: d.databases, names: d.names}
}

func (d *disk) powerless(rng *rand.Rand) *disk {
	return &disk{files: d.files.CrashClone(rng), databases: d.databases, names: d.names}
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

// writeFile writes a new file durably, as whoever makes a database does.
func writeFile(fs vfs.FS, path string, content []byte) error {
	f, err := fs.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	i := strings.LastIndexByte(path, '/')
	return fs.SyncDir(path[:i])
}

// sizedEngine's views know exactly how much they write, as bbolt's do.
type sizedEngine struct{ *engine.Memory }

func (e sizedEngine) View() (engine.View, error) {
	v, err := e.Memory.View()
	return sizedView{v}, err
}

type sizedView struct{ engine.View }

func (v sizedView) Size() int64 {
	n, err := v.WriteTo(io.Discard)
	if err != nil {
		panic(err) // nothing is written anywhere
	}
	return n
}

// seeCalls learns from the calls of the log what its batches have proven: what a
// batch is written behind was durable before.
func (m *member) seeCalls() {
	if m.proven == nil {
		m.proven = map[string]int64{}
	}
	for _, c := range m.fs.TakeCalls() {
		if c.Op == vfs.OpWrite && strings.HasSuffix(c.Name, ".wal") && c.Offset > m.proven[c.Name] {
			m.proven[c.Name] = c.Offset
		}
	}
}
