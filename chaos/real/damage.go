//go:build linux

package real

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/raft/wal"
)

// This file is the pen that writes over the files of a stopped member.

func (m *Member) walDir() string { return filepath.Join(m.dataDir(), "member", "wal") }
func (m *Member) dbPath() string { return filepath.Join(m.dataDir(), "member", "snap", "db") }

// spot is some bytes of a file.
type spot struct {
	file     string
	off, len int64
}

// change overwrites a spot with what f makes of it, and syncs.
func (s spot) change(f func([]byte)) (err error) {
	file, err := os.OpenFile(s.file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Sync(), file.Close()) }()
	b := make([]byte, s.len)
	if _, err := file.ReadAt(b, s.off); err != nil {
		return err
	}
	f(b)
	_, err = file.WriteAt(b, s.off)
	return err
}

// records lists what the log holds, and where.
func (m *Member) records() (all []wal.Record, err error) {
	_, err = wal.Inspect(vfs.OS(), m.walDir(), func(r wal.Record) { all = append(all, r) })
	return all, err
}

// provenEntry is an entry that was surely durable: others follow that were synced
// after it, and tell so.
func (m *Member) provenEntry(r *rand.Rand) (s spot, err error) {
	all, err := m.records()
	if err != nil {
		return s, err
	}
	newest := uint64(0)
	for _, rec := range all {
		newest = max(newest, rec.Segment)
	}
	footers := 0
	var entries []wal.Record
	for i := len(all) - 1; i >= 0; i-- {
		switch rec := all[i]; {
		case rec.Kind == "footer":
			footers++
		case rec.Kind == "entry" && footers > 2 && rec.Length > 0:
			entries = append(entries, rec)
		}
	}
	if len(entries) == 0 {
		return s, fmt.Errorf("%w: no entry is old enough", errNothing)
	}
	e := entries[r.IntN(len(entries))]
	return spot{filepath.Join(m.walDir(), fmt.Sprintf("%016x.wal", e.Segment)), e.Offset, e.Size}, nil
}

// flipLog flips a bit of an entry that was durable.
func (m *Member) flipLog(r *rand.Rand) error {
	s, err := m.provenEntry(r)
	if err != nil {
		return err
	}
	return s.change(func(b []byte) { b[r.IntN(len(b))] ^= 1 << r.IntN(8) })
}

// zeroLog zeroes the sector in which such an entry begins.
func (m *Member) zeroLog(r *rand.Rand) error {
	s, err := m.provenEntry(r)
	if err != nil {
		return err
	}
	s.off, s.len = s.off&^(vfs.SectorSize-1), vfs.SectorSize
	return s.change(func(b []byte) { clear(b) })
}

// tearLog writes something behind the last complete batch, as a write does that a
// crash cut short: the first part of a batch, or anything.
func (m *Member) tearLog(r *rand.Rand) error {
	all, err := m.records()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("%w: the log is empty", errNothing)
	}
	last := all[len(all)-1]
	first := slices.IndexFunc(all, func(x wal.Record) bool { return x.Segment == last.Segment && x.Kind == "entry" })
	torn := make([]byte, 1+r.IntN(4096))
	for i := range torn {
		torn[i] = byte(r.Uint32())
	}
	name := filepath.Join(m.walDir(), fmt.Sprintf("%016x.wal", last.Segment))
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if first >= 0 && r.IntN(2) == 0 {
		e := all[first]
		torn = slices.Clone(b[e.Offset : e.Offset+1+r.Int64N(e.Size)])
	}
	end := last.Offset + last.Size
	if int64(len(b)) < end+int64(len(torn)) {
		return fmt.Errorf("%w: the segment is full", errNothing)
	}
	return spot{name, end, int64(len(torn))}.change(func(to []byte) { copy(to, torn) })
}

// Ways in which a database comes to harm.
var storeDamages = []func(r *rand.Rand, b []byte){
	func(r *rand.Rand, b []byte) { b[r.IntN(len(b))] ^= 1 << r.IntN(8) },
	func(r *rand.Rand, b []byte) { clear(page(b, r.IntN(len(b)/pageBytes))) },
	func(r *rand.Rand, b []byte) {
		n := len(b) / pageBytes
		p, q := page(b, r.IntN(n)), page(b, r.IntN(n))
		was := slices.Clone(p)
		copy(p, q)
		copy(q, was)
	},
	func(r *rand.Rand, b []byte) { copy(page(b, 0), page(b, 1)) }, // an old meta page
}

const pageBytes = 4096

func page(b []byte, n int) []byte { return b[n*pageBytes:][:pageBytes] }

// damageStore writes over the database, in many places: most pages are free.
func (m *Member) damageStore(r *rand.Rand) error {
	st, err := os.Stat(m.dbPath())
	if err != nil {
		return err
	}
	how := storeDamages[r.IntN(len(storeDamages))]
	return spot{m.dbPath(), 0, st.Size()}.change(func(b []byte) {
		for range 1 + len(b)/pageBytes/8 {
			how(r, b)
		}
	})
}

// newestSegment is the last file of the log.
func (m *Member) newestSegment() (string, error) {
	names, err := filepath.Glob(filepath.Join(m.walDir(), "*.wal"))
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("%w: a log in %s", fs.ErrNotExist, m.walDir())
	}
	if err != nil {
		return "", err
	}
	return slices.Max(names), nil
}
