package journal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft/vfs"
)

func dump(t *testing.T, e interface{ View() (engine.View, error) }) string {
	t.Helper()
	v, err := e.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Release()
	var b bytes.Buffer
	if _, err := v.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func batch(r *rand.Rand) *engine.Batch {
	t := &engine.Batch{}
	for range r.IntN(5) {
		key := fmt.Append(nil, "key", r.IntN(10))
		if r.IntN(4) == 0 {
			t.Delete(engine.Key, key)
		} else {
			t.Put(engine.Key, key, make([]byte, r.IntN(2000)))
		}
	}
	return t
}

// TestCrash cuts the power before each call of the file system, during commits and
// rewrites: what is left is the last state that was committed, or the one that was
// being committed.
func TestCrash(t *testing.T) {
	crashes := 0
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 0))
		disk := vfs.NewMem(seed)
		faulty := vfs.NewFault(disk)
		e, err := Open(faulty, "db")
		if err != nil {
			t.Fatal(err)
		}
		mirror := engine.NewMemory()
		before, after := dump(t, e), ""
		faulty.SetRules(vfs.Rule{Hook: func(c vfs.Call) {
			left, err := Open(disk.CrashClone(r), "db")
			if err != nil {
				t.Fatalf("seed %d, after a crash at %v: %v", seed, c, err)
			}
			if got := dump(t, left); got != before && got != after {
				t.Fatalf("seed %d: a crash at %v leaves a state that nobody committed", seed, c)
			}
			crashes++
		}})
		for range 8 {
			next := batch(r)
			if r.IntN(4) == 0 {
				after = before
				err = e.Rewrite(nil)
			} else {
				if err := mirror.Commit(next); err != nil {
					t.Fatal(err)
				}
				after = dump(t, mirror)
				err = e.Commit(next)
			}
			if err != nil {
				t.Fatal(err)
			}
			if before = dump(t, e); before != after {
				t.Fatalf("seed %d: the engine is not what was committed", seed)
			}
		}
	}
	if crashes < 500 {
		t.Errorf("only %d crashes were tried", crashes)
	}
}

// TestSnapshot opens a bare dump, as another member sends it.
func TestSnapshot(t *testing.T) {
	disk := vfs.NewMem(1)
	e, err := Open(disk, "db")
	if err != nil {
		t.Fatal(err)
	}
	b := &engine.Batch{}
	b.Put(engine.Key, []byte("k"), []byte("v"))
	if err := e.Commit(b); err != nil {
		t.Fatal(err)
	}
	f, err := disk.Create("snapshot")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(dump(t, e)), 0); err != nil {
		t.Fatal(err)
	}
	if err := disk.Rename("snapshot", "db"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is a journal
		again, err := Open(disk, "db")
		if err != nil {
			t.Fatal(err)
		}
		if dump(t, again) != dump(t, e) {
			t.Fatal("the snapshot holds something else")
		}
	}
}
