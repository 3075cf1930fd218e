package engine

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// dump renders a view, bucket by bucket.
func dump(v View) string {
	var out bytes.Buffer
	for _, b := range Buckets {
		v.Scan(b, nil, nil, func(k, val []byte) bool {
			fmt.Fprintf(&out, "%s %q=%q\n", b, k, val)
			return true
		})
	}
	return out.String()
}

func content(t *testing.T, e Engine) string {
	t.Helper()
	v, err := e.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Release()
	return dump(v)
}

func openBolt(t *testing.T, path string) *Bolt {
	t.Helper()
	b, err := OpenBolt(path, BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// randomBatch draws puts and deletes over few keys, some of them twice.
func randomBatch(rng *rand.Rand) *Batch {
	t := &Batch{}
	for range rng.IntN(12) {
		b := Buckets[rng.IntN(3)]
		key := []byte(fmt.Sprintf("k%02d", rng.IntN(30)))
		if rng.IntN(4) == 0 {
			t.Delete(b, key)
		} else {
			t.Put(b, key, bytes.Repeat([]byte{byte('a' + rng.IntN(26))}, rng.IntN(300)))
		}
	}
	return t
}

// TestEnginesAgree drives both engines through the same random commits,
// rewrites, reopenings and old views, and compares all they hold.
func TestEnginesAgree(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			path := filepath.Join(t.TempDir(), "db")
			bolt, mem := openBolt(t, path), NewMemory()
			for step := range 120 {
				bv, err := bolt.View()
				if err != nil {
					t.Fatal(err)
				}
				before := content(t, mem)
				batch := randomBatch(rng)
				if err := errors.Join(bolt.Commit(batch), mem.Commit(batch)); err != nil {
					t.Fatal(err)
				}
				switch rng.IntN(10) {
				case 0:
					if err := bolt.Rewrite(nil); err != nil {
						t.Fatal(err)
					}
				case 1:
					reopened(t, &bolt, &mem, path)
				}
				if got := dump(bv); got != before {
					t.Fatalf("step %d: an old view changed:\n%s\nwant\n%s", step, got, before)
				}
				if step%10 == 0 {
					compareDump(t, bv, before)
				}
				bv.Release()
				if got, want := content(t, bolt), content(t, mem); got != want {
					t.Fatalf("step %d: bolt\n%s\nmemory\n%s", step, got, want)
				}
				if got, want := lastOf(t, bolt), lastOf(t, mem); got != want {
					t.Fatalf("step %d: the last pair is %s in bolt, %s in memory", step, got, want)
				}
			}
			if err := bolt.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func lastOf(t *testing.T, e Engine) string {
	t.Helper()
	v, err := e.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Release()
	k, value := v.Cursor(Key).Last()
	return fmt.Sprintf("%x=%x", k, value)
}

// reopened closes both engines, as after a crash, and opens what is durable.
// bbolt locks its file while views are held, so the copy is opened elsewhere.
func reopened(t *testing.T, bolt **Bolt, mem **Memory, path string) {
	t.Helper()
	v, err := (*bolt).View()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	f, err := os.Create(copied)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	v.Release()
	if err := errors.Join(f.Close(), (*bolt).Close()); err != nil {
		t.Fatal(err)
	}
	*bolt, *mem = openBolt(t, copied), (*mem).Crash()
}

// compareDump writes the view out as a file and reads that file back.
func compareDump(t *testing.T, v View, want string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snapshot")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := v.WriteTo(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if n != v.Size() {
		t.Fatalf("wrote %d bytes, Size says %d", n, v.Size())
	}
	b, err := OpenBolt(path, BoltOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, b); got != want {
		t.Fatalf("snapshot holds\n%s\nwant\n%s", got, want)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryDumpRoundTrip(t *testing.T) {
	m := NewMemory()
	rng := rand.New(rand.NewPCG(7, 7))
	for range 50 {
		if err := m.Commit(randomBatch(rng)); err != nil {
			t.Fatal(err)
		}
	}
	v, _ := m.View()
	var out bytes.Buffer
	if _, err := v.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	back, err := LoadMemory(bytes.NewReader(out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, back); got != dump(v) {
		t.Fatalf("read back\n%s\nwant\n%s", got, dump(v))
	}
	whole := out.Bytes()
	for i := range whole {
		if _, err := LoadMemory(bytes.NewReader(whole[:i])); err == nil {
			t.Fatalf("a dump cut at %d of %d was accepted", i, len(whole))
		}
		bad := bytes.Clone(whole)
		bad[i] ^= 0x40
		if _, err := LoadMemory(bytes.NewReader(bad)); err == nil {
			t.Fatalf("a dump with a flipped bit at %d was accepted", i)
		}
	}
}

func TestMemoryCommitFaults(t *testing.T) {
	boom := errors.New("boom")
	for _, apply := range []bool{false, true} {
		m := NewMemory()
		m.FailCommit = func(*Batch) (bool, error) { return apply, boom }
		b := &Batch{}
		b.Put(Key, []byte("k"), []byte("v"))
		for range 2 { // a poisoned engine stays poisoned
			if err := m.Commit(b); !errors.Is(err, boom) {
				t.Fatalf("apply=%v: commit says %v", apply, err)
			}
		}
		if got := content(t, m.Crash()); (got != "") != apply {
			t.Fatalf("apply=%v: after the crash the engine holds %q", apply, got)
		}
	}
}

// TestBoltConcurrentViews reads while commits and rewrites go on. Each commit
// keeps two keys equal; no view may ever see them differ.
func TestBoltConcurrentViews(t *testing.T) {
	b := openBolt(t, filepath.Join(t.TempDir(), "db"))
	commit := func(i int) {
		batch := &Batch{}
		val := []byte(fmt.Sprint(i))
		batch.Put(Key, []byte("a"), val)
		batch.Put(Meta, []byte("a"), val)
		if err := b.Commit(batch); err != nil {
			t.Error(err)
		}
	}
	commit(0)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				v, err := b.View()
				if err != nil {
					t.Error(err)
					return
				}
				if x, y := v.Get(Key, []byte("a")), v.Get(Meta, []byte("a")); !bytes.Equal(x, y) {
					t.Errorf("a view is torn: %q and %q", x, y)
				}
				v.Release()
			}
		})
	}
	for i := range 300 {
		commit(i)
		if i%50 == 0 {
			if err := b.Rewrite(nil); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	readers.Wait()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.View(); !errors.Is(err, ErrClosed) {
		t.Fatalf("a view of a closed engine: %v", err)
	}
}

func TestBoltIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	b := openBolt(t, path)
	defer b.Close()
	if _, err := OpenBolt(path, BoltOptions{LockTimeout: 1}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: %v, want ErrLocked", err)
	}
}

func TestRewriteGivesSpaceBack(t *testing.T) {
	b := openBolt(t, filepath.Join(t.TempDir(), "db"))
	defer b.Close()
	fill, clear := &Batch{}, &Batch{}
	for i := range 2000 {
		k := []byte(fmt.Sprintf("%06d", i))
		fill.Put(Key, k, bytes.Repeat([]byte("x"), 1024))
		if i > 10 {
			clear.Delete(Key, k)
		}
	}
	if err := errors.Join(b.Commit(fill), b.Commit(clear)); err != nil {
		t.Fatal(err)
	}
	before := b.Stats()
	if err := b.Rewrite(nil); err != nil {
		t.Fatal(err)
	}
	if after := b.Stats(); after.Allocated*4 > before.Allocated || after.InUse > after.Allocated {
		t.Fatalf("before %+v, after %+v", before, after)
	}
}

// TestRewriteKeepsAll compares every bucket before and after a rewrite of several
// portions, and after a restart.
func TestRewriteKeepsAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	b := openBolt(t, path)
	fill := &Batch{}
	for i := range 5 {
		fill.Put(Key, fmt.Append(nil, i), make([]byte, rewriteBatch/2))
		fill.Put(Lease, fmt.Append(nil, i), []byte("lease"))
	}
	if err := b.Commit(fill); err != nil {
		t.Fatal(err)
	}
	all := func() string {
		v, err := b.View()
		if err != nil {
			t.Fatal(err)
		}
		defer v.Release()
		return dump(v)
	}
	want := all()
	if err := b.Rewrite(nil); err != nil {
		t.Fatal(err)
	}
	if all() != want {
		t.Error("the rewrite has changed what the file holds")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = openBolt(t, path)
	defer b.Close()
	if all() != want {
		t.Error("after a restart the file holds something else")
	}
}

// TestDiscard: a replaced file gets shorter portion by portion, but not while somebody
// reads it, and nothing of it stays when the rests end early or the engine is closed.
func TestDiscard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	b := openBolt(t, path)
	fill := &Batch{}
	for i := range 50 {
		fill.Put(Key, fmt.Appendf(nil, "%02d", i), bytes.Repeat([]byte{byte(i)}, 1<<20))
	}
	if err := b.Commit(fill); err != nil {
		t.Fatal(err)
	}
	var old *os.File // the file that is being replaced
	size := func() int64 {
		info, err := old.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	rewrite := func() int64 {
		var err error
		if old, err = os.Open(path); err == nil {
			t.Cleanup(func() { old.Close() })
			err = b.Rewrite(nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		return size()
	}

	whole, portions := rewrite(), int64(0)
	err := b.Discard(func() error {
		if portions++; size() != whole-portions*discardPortion {
			t.Errorf("%d bytes of %d after %d portions", size(), whole, portions)
		}
		return nil
	})
	if err != nil || portions < 3 || size() > discardPortion {
		t.Fatalf("%d portions of %d bytes, %d are left, %v", portions, whole, size(), err)
	}

	v, err := b.View()
	if err != nil {
		t.Fatal(err)
	}
	want := dump(v)
	whole = rewrite()
	if err := b.Discard(nil); err != nil || size() != whole || dump(v) != want {
		t.Fatalf("the file that is read has %d bytes of %d, %v", size(), whole, err)
	}
	v.Release()

	whole, portions = rewrite(), 0
	enough := func() error { portions++; return errors.New("enough") }
	if err := b.Discard(enough); err != nil || portions != 1 || size() != whole-discardPortion {
		t.Fatalf("%d portions, %d bytes of %d, %v", portions, size(), whole, err)
	}
	rewrite()
	if err := b.Close(); err != nil || len(b.mu.replaced) > 0 {
		t.Fatal("after Close a replaced file is open", err)
	}
}

// TestRewriteThatEnds ends rewrites after each of their portions: nothing has
// changed, nothing is left behind, and the engine goes on.
func TestRewriteThatEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	b := openBolt(t, path)
	defer b.Close()
	fill := &Batch{}
	for i := range 3 {
		fill.Put(Key, fmt.Append(nil, i), make([]byte, rewriteBatch))
	}
	if err := b.Commit(fill); err != nil {
		t.Fatal(err)
	}
	enough, portions := errors.New("enough"), 0
	if err := b.Rewrite(func() error { portions++; return nil }); err != nil || portions < 2 {
		t.Fatalf("%d portions, %v", portions, err)
	}
	for n := 1; n <= portions; n++ {
		left := n
		err := b.Rewrite(func() error {
			if left--; left == 0 {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Fatalf("portion %d: %v", n, err)
		}
		if _, err := os.Stat(path + ".rewrite"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("portion %d: the copy is left: %v", n, err)
		}
		more := &Batch{}
		more.Put(Lease, fmt.Append(nil, n), nil)
		if err := b.Commit(more); err != nil {
			t.Fatal(err)
		}
	}
	v, err := b.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Release()
	for bucket, want := range map[Bucket]int{Key: len(fill.Ops), Lease: portions} {
		n := 0
		v.Scan(bucket, nil, nil, func(_, _ []byte) bool { n++; return true })
		if n != want {
			t.Errorf("bucket %s holds %d pairs, want %d", bucket, n, want)
		}
	}
}

func FuzzLoadMemory(f *testing.F) {
	m := NewMemory()
	b := &Batch{}
	b.Put(Lease, []byte("k"), []byte("v"))
	if err := m.Commit(b); err != nil {
		f.Fatal(err)
	}
	v, _ := m.View()
	var out bytes.Buffer
	if _, err := v.WriteTo(&out); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := LoadMemory(bytes.NewReader(data)); (m == nil) == (err == nil) {
			t.Fatalf("engine %v with error %v", m, err)
		}
	})
}
