package vfs

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

func readAll(t *testing.T, fs FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	check(t, err)
	size, err := f.Size()
	check(t, err)
	p := make([]byte, size)
	if size > 0 {
		_, err = f.ReadAt(p, 0)
		check(t, err)
	}
	return p
}

func makeFile(t *testing.T, fs FS, name string, content []byte) File {
	t.Helper()
	f, err := fs.Create(name)
	check(t, err)
	_, err = f.WriteAt(content, 0)
	check(t, err)
	return f
}

// TestCrashKeepsSynced: each sector of a clone is an old or a new version, what
// was synced is never lost, and both outcomes really occur.
func TestCrashKeepsSynced(t *testing.T) {
	m := NewMem(1)
	old, next := bytes.Repeat([]byte{'o'}, 8*SectorSize), bytes.Repeat([]byte{'n'}, 4*SectorSize)
	f := makeFile(t, m, "f", old)
	check(t, f.Sync())
	check(t, m.SyncDir("."))
	_, err := f.WriteAt(next, 2*SectorSize)
	check(t, err)
	_, err = f.WriteAt([]byte("tail"), 8*SectorSize)
	check(t, err)
	rng := rand.New(rand.NewPCG(1, 2))
	kept, lost, torn, grown := 0, 0, 0, 0
	for range 300 {
		p := readAll(t, m.CrashClone(rng), "f")
		if len(p) > len(old) {
			grown++
		}
		for s := range 8 {
			switch sector := p[s*SectorSize:][:SectorSize]; {
			case bytes.Equal(sector, old[:SectorSize]):
				if s >= 2 && s < 6 {
					lost++
				}
			case s < 2 || s >= 6:
				t.Fatalf("sector %d was not written since the sync", s)
			case bytes.Equal(sector, next[:SectorSize]):
				kept++
			case len(bytes.TrimRight(bytes.TrimLeft(sector, "n"), "o")) > 0:
				t.Fatalf("sector %d holds something else", s)
			default:
				torn++
			}
		}
	}
	if kept == 0 || lost == 0 || torn == 0 || grown == 0 || grown == 300 {
		t.Fatalf("kept %d, lost %d, torn %d, grown %d", kept, lost, torn, grown)
	}
	if got := readAll(t, m, "f"); len(got) != len(old)+4 {
		t.Fatal("the original changed")
	}
}

// TestCrashLosesNames: creations, renames and removals are pending until their
// directory is synced, file syncs notwithstanding.
func TestCrashLosesNames(t *testing.T) {
	m := NewMem(1)
	check(t, m.MkdirAll("d", 0o700))
	check(t, m.SyncDir("."))
	check(t, makeFile(t, m, "d/old", []byte("old")).Sync())
	check(t, m.SyncDir("d"))
	check(t, makeFile(t, m, "d/new", []byte("new")).Sync())
	check(t, m.Rename("d/new", "d/renamed"))
	check(t, m.Remove("d/old"))
	seen := map[string]int{}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		c := m.CrashClone(rng)
		infos, err := c.List("d")
		check(t, err)
		names := ""
		for _, info := range infos {
			names += info.Name + " "
			if info.Size != 3 {
				t.Fatalf("%s lost its synced content", info.Name)
			}
		}
		seen[names]++
	}
	for _, want := range []string{"", "old ", "renamed ", "new old ", "old renamed ", "new "} {
		if seen[want] == 0 {
			t.Fatalf("%q never happened: %v", want, seen)
		}
	}
	if infos, err := m.DurableClone().List("d"); err != nil || len(infos) != 1 || infos[0].Name != "old" {
		t.Fatalf("%+v, %v", infos, err)
	}
	if infos, err := m.Clone().List("d"); err != nil || len(infos) != 1 || infos[0].Name != "renamed" {
		t.Fatalf("%+v, %v", infos, err)
	}
	check(t, m.SyncDir("d"))
	if infos, err := m.CrashClone(rng).List("d"); err != nil || len(infos) != 1 || infos[0].Name != "renamed" {
		t.Fatalf("%+v, %v", infos, err)
	}
}

func TestCrashIsRepeatable(t *testing.T) {
	run := func() []byte {
		m := NewMem(9)
		f := makeFile(t, m, "f", make([]byte, 50*SectorSize))
		check(t, m.SyncDir("."))
		_, err := f.WriteAt(bytes.Repeat([]byte{1}, 50*SectorSize), 0)
		check(t, err)
		return readAll(t, m.CrashClone(nil), "f")
	}
	if !bytes.Equal(run(), run()) {
		t.Fatal("the same seed gives two crashes")
	}
}

// TestFailedSync: after the kernel forgot dirty pages, the next sync succeeds,
// reads show the data, and a power cut loses it.
func TestFailedSync(t *testing.T) {
	m := NewMem(1)
	fs := NewFault(m, Rule{Op: OpSync, Nth: 1, Lose: true})
	f := makeFile(t, fs, "f", []byte("data"))
	check(t, fs.SyncDir("."))
	if err := f.Sync(); !errors.Is(err, ErrInjected) {
		t.Fatal(err)
	}
	check(t, f.Sync())
	if got := readAll(t, m, "f"); string(got) != "data" {
		t.Fatalf("%q", got)
	}
	if got := bytes.Trim(readAll(t, m.DurableClone(), "f"), "\x00"); len(got) > 0 {
		t.Fatalf("%q survived", got)
	}
	_, err := f.WriteAt([]byte("again"), 0)
	check(t, err)
	check(t, f.Sync())
	if got := readAll(t, m.DurableClone(), "f"); string(got) != "again" {
		t.Fatalf("%q", got)
	}
}

func TestSpace(t *testing.T) {
	m := NewMem(1)
	m.SetSpace(1000)
	f := makeFile(t, m, "f", make([]byte, 900))
	if _, err := f.WriteAt(make([]byte, 200), 850); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if err := f.Preallocate(1001); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if free, err := m.Free("."); free != 100 || err != nil {
		t.Fatal(free, err)
	}
	check(t, m.Remove("f"))
	check(t, makeFile(t, m, "g", make([]byte, 1000)).Close())
}

func TestFaultRules(t *testing.T) {
	m := NewMem(1)
	boom := errors.New("boom")
	var waited time.Duration
	fs := NewFault(m,
		Rule{Op: OpWrite, Match: "a*", Nth: 2, Times: 2, Err: boom},
		Rule{Op: OpWrite, Match: "b", Nth: 1, Err: boom, Apply: true},
		Rule{Op: OpWrite, Match: "b", Nth: 1, Short: true}, // counts the calls that came this far
		Rule{Op: OpRead, Match: "b", Flip: true},
		Rule{Op: OpSync, Hook: func(Call) { waited += time.Second }},
		Rule{Op: OpRemove, Err: boom, Apply: true},
	)
	a, err := fs.Create("abc")
	check(t, err)
	for k, want := range []error{nil, boom, boom, nil} {
		if _, err := a.WriteAt([]byte("x"), int64(k)); !errors.Is(err, want) {
			t.Fatalf("write %d: %v", k, err)
		}
	}
	b, err := fs.Create("b")
	check(t, err)
	if _, err := b.WriteAt([]byte("abcd"), 0); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if got := readAll(t, m, "b"); string(got) != "abcd" {
		t.Fatalf("failed, but should have been applied: %q", got)
	}
	if n, err := b.WriteAt([]byte("efgh"), 4); n != 2 || !errors.Is(err, ErrInjected) {
		t.Fatal(n, err)
	}
	p := make([]byte, 4)
	if _, err := b.ReadAt(p, 0); err != nil || string(p) != "abbd" {
		t.Fatalf("%q, %v", p, err)
	}
	check(t, b.Sync())
	if waited != time.Second {
		t.Fatal("no hook")
	}
	if err := fs.Remove("b"); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if _, err := m.Stat("b"); !errors.Is(err, ErrNotExist) {
		t.Fatal(err)
	}
	calls := fs.TakeCalls()
	if got := calls[len(calls)-2].String(); got != "sync b" || fs.Count() != len(calls) {
		t.Fatalf("%v, %d of %d calls", got, fs.Count(), len(calls))
	}
}
