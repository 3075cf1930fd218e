package wal

import (
	"fmt"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

// nullFS drops everything: what remains is the log's own cost.
type nullFS struct{ vfs.FS }

type nullFile struct{ vfs.File }

func (f nullFS) Create(name string) (vfs.File, error) { return wrapNull(f.FS.Create(name)) }
func (f nullFS) Open(name string) (vfs.File, error)   { return wrapNull(f.FS.Open(name)) }

func wrapNull(f vfs.File, err error) (vfs.File, error) { return nullFile{f}, err }

func (nullFile) WriteAt(p []byte, off int64) (int, error) { return len(p), nil }
func (nullFile) Sync() error                              { return nil }

// BenchmarkAppendSync: a batch of n entries of 300 bytes, on the disk and
// without one.
func BenchmarkAppendSync(b *testing.B) {
	for _, disk := range []string{"disk", "none"} {
		for _, n := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("%s/%d", disk, n), func(b *testing.B) {
				fs, dir := vfs.OS(), path(b.TempDir(), "log")
				if disk == "none" {
					fs, dir = nullFS{vfs.NewMem(1)}, testDir
				}
				w, err := Create(fs, dir, testID, Options{})
				check(b, err)
				es := entries(1, api.Index(n), 1, 300)
				hs := HardState{Term: 1}
				b.SetBytes(int64(n) * 300)
				b.ReportAllocs()
				for b.Loop() {
					check(b, w.Append(&hs, es))
					check(b, w.Sync())
					advance(es)
					if hs.Commit = w.Last(); hs.Commit%200_000 < api.Index(n) {
						check(b, w.Release(hs.Commit))
					}
				}
			})
		}
	}
}

// advance makes the entries the next ones.
func advance(es []*raftpb.Entry) {
	for _, e := range es {
		*e.Index += uint64(len(es))
	}
}

// BenchmarkOpen recovers 64 MiB of 300-byte entries.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	w, err := Create(vfs.OS(), path(dir, "log"), testID, Options{})
	check(b, err)
	es := entries(1, 100, 1, 300)
	for w.Bytes() < 60<<20 {
		check(b, w.Append(&HardState{Term: 1, Commit: w.Last()}, es))
		check(b, w.Sync())
		advance(es)
	}
	check(b, w.Close())
	b.SetBytes(60 << 20)
	b.ReportAllocs()
	for b.Loop() {
		w, _, err := Open(vfs.OS(), path(dir, "log"), testID, Options{})
		check(b, err)
		check(b, w.Close())
	}
}

// BenchmarkEntries reads 1 MiB of 300-byte entries.
func BenchmarkEntries(b *testing.B) {
	w, err := Create(vfs.OS(), path(b.TempDir(), "log"), testID, Options{})
	check(b, err)
	check(b, w.Append(&HardState{Term: 1}, entries(1, 5000, 1, 300)))
	check(b, w.Sync())
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		_, err := w.Entries(1, 5001, 1<<20)
		check(b, err)
	}
}
