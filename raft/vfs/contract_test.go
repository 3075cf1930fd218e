package vfs

import (
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"
)

// worlds returns every implementation, with a directory to work in.
func worlds(t *testing.T) map[string]struct {
	fs  FS
	dir string
} {
	type world = struct {
		fs  FS
		dir string
	}
	mem := NewMem(1)
	check(t, mem.MkdirAll("/data", 0o700))
	return map[string]world{
		"os":    {OS(), t.TempDir()},
		"mem":   {mem, "/data"},
		"fault": {NewFault(OS()), t.TempDir()},
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eachWorld(t *testing.T, test func(t *testing.T, fs FS, dir string)) {
	for name, w := range worlds(t) {
		t.Run(name, func(t *testing.T) { test(t, w.fs, w.dir) })
	}
}

func TestFileContract(t *testing.T) {
	eachWorld(t, func(t *testing.T, fs FS, dir string) {
		name := filepath.Join(dir, "a")
		f, err := fs.Create(name)
		check(t, err)
		if _, err := fs.Create(name); !errors.Is(err, ErrExist) {
			t.Fatalf("second create: %v", err)
		}
		check(t, f.Preallocate(2000))
		if n, err := f.WriteAt([]byte("hello"), 1998); n != 5 || err != nil {
			t.Fatal(n, err)
		}
		if size, err := f.Size(); size != 2003 || err != nil {
			t.Fatal(size, err)
		}
		check(t, f.Preallocate(100)) // never shrinks
		p := make([]byte, 10)
		if n, err := f.ReadAt(p, 1995); n != 8 || !errors.Is(err, io.EOF) || string(p[:n]) != "\x00\x00\x00hello" {
			t.Fatal(n, err, p)
		}
		if n, err := f.ReadAt(p, 5000); n != 0 || !errors.Is(err, io.EOF) {
			t.Fatal(n, err)
		}
		check(t, f.Truncate(2000))
		check(t, f.Truncate(2010))
		if n, err := f.ReadAt(p, 2000); n != 10 || err != nil || p[0] != 0 {
			t.Fatal("growing again shows old bytes", n, err, p)
		}
		check(t, f.Sync())
		check(t, f.Close())
		if _, err := f.ReadAt(p, 0); err == nil {
			t.Fatal("read of a closed file")
		}
		f, err = fs.Open(name)
		check(t, err)
		if n, err := f.ReadAt(p[:2], 1998); n != 2 || err != nil || string(p[:2]) != "he" {
			t.Fatal(n, err, p)
		}
		check(t, f.Close())
	})
}

func TestDirectoryContract(t *testing.T) {
	eachWorld(t, func(t *testing.T, fs FS, dir string) {
		sub := filepath.Join(dir, "x", "y")
		check(t, fs.MkdirAll(sub, 0o700))
		check(t, fs.MkdirAll(sub, 0o700))
		for _, name := range []string{"b", "a"} {
			f, err := fs.Create(filepath.Join(sub, name))
			check(t, err)
			check(t, f.Close())
		}
		check(t, fs.SyncDir(sub))
		infos, err := fs.List(sub)
		check(t, err)
		if len(infos) != 2 || infos[0].Name != "a" || infos[1].Name != "b" {
			t.Fatalf("%+v", infos)
		}
		check(t, fs.Rename(filepath.Join(sub, "a"), filepath.Join(sub, "b")))
		check(t, fs.Remove(filepath.Join(sub, "b")))
		for op, err := range map[string]error{
			"remove": fs.Remove(filepath.Join(sub, "b")),
			"rename": fs.Rename(filepath.Join(sub, "b"), filepath.Join(sub, "c")),
			"sync":   fs.SyncDir(filepath.Join(sub, "none")),
			"stat":   second(fs.Stat(filepath.Join(sub, "b"))),
			"list":   second(fs.List(filepath.Join(sub, "none"))),
			"open":   second(fs.Open(filepath.Join(sub, "b"))),
			"create": second(fs.Create(filepath.Join(sub, "none", "b"))),
		} {
			if !errors.Is(err, ErrNotExist) {
				t.Fatalf("%s: %v", op, err)
			}
		}
		if info, err := fs.Stat(sub); err != nil || !info.IsDir || info.Name != "y" {
			t.Fatalf("%+v, %v", info, err)
		}
		if free, err := fs.Free(dir); err != nil || free == 0 {
			t.Fatal(free, err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestLockContract(t *testing.T) {
	eachWorld(t, func(t *testing.T, fs FS, dir string) {
		name := filepath.Join(dir, "LOCK")
		lock, err := fs.Lock(name)
		check(t, err)
		if _, err := fs.Lock(name); !errors.Is(err, ErrLocked) {
			t.Fatalf("second lock: %v", err)
		}
		check(t, lock.Close())
		lock, err = fs.Lock(name)
		check(t, err)
		check(t, lock.Close())
	})
}

// TestMemAgainstOS does the same random calls to both and compares everything.
func TestMemAgainstOS(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	mem := NewMem(1)
	a, err := mem.Create("f")
	check(t, err)
	b, err := OS().Create(filepath.Join(t.TempDir(), "f"))
	check(t, err)
	for range 3000 {
		off, n := rng.Int64N(5000), rng.IntN(1500)
		switch rng.IntN(6) {
		case 0:
			check(t, errors.Join(a.Truncate(off), b.Truncate(off)))
		case 1:
			check(t, errors.Join(a.Preallocate(off+1), b.Preallocate(off+1)))
		case 2:
			check(t, errors.Join(a.Sync(), b.Sync()))
		case 3:
			p := make([]byte, n)
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			check(t, errors.Join(second(a.WriteAt(p, off)), second(b.WriteAt(p, off))))
		default:
			p, q := make([]byte, n), make([]byte, n)
			i, errA := a.ReadAt(p, off)
			j, errB := b.ReadAt(q, off)
			if i != j || string(p) != string(q) || (errA == nil) != (errB == nil) {
				t.Fatalf("read %d+%d: %d, %v and %d, %v", off, n, i, errA, j, errB)
			}
		}
		sizeA, _ := a.Size()
		sizeB, _ := b.Size()
		if sizeA != sizeB {
			t.Fatalf("sizes %d and %d", sizeA, sizeB)
		}
	}
	check(t, b.Close())
}
