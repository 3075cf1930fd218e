package mvcc

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
)

func put(t testing.TB, s *Store, index api.Index, key, value string) {
	t.Helper()
	x := s.Begin()
	x.Put([]byte(key), []byte(value), 0)
	x.End()
	s.Seal(index, 1)
	s.Publish()
}

// TestFlushByTime lets the flusher run on a clock that the test moves.
func TestFlushByTime(t *testing.T) {
	c := clock.NewFake(time.Unix(0, 0))
	s, err := Open(Config{Clock: c, Engine: engine.NewMemory(), FlushInterval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	put(t, s, 1, "a", "1")
	eventually(t, "flush after the interval", func() bool {
		c.Advance(time.Second)
		return s.Durable() == 1
	})
	put(t, s, 2, "a", "2")
	x := s.Begin()
	if err := x.Compact(3); err != nil {
		t.Fatal(err)
	}
	x.End()
	s.Seal(3, 1)
	s.Publish()
	eventually(t, "compaction", func() bool {
		c.Advance(time.Second)
		st := s.Stats()
		return st.Revisions == 1 && st.CompactionQueue == 0
	})
	put(t, s, 4, "a", "3")
	cancel()
	if err := <-done; err != nil || s.Durable() != 4 {
		t.Fatalf("Run returned %v, durable %d", err, s.Durable())
	}
	mustCheck(t, s)
}

// TestFlushBySize fills the tail while no flusher runs: apply must flush it
// before it passes its bound.
func TestFlushBySize(t *testing.T) {
	s, err := Open(Config{Clock: clock.System(), Engine: engine.NewMemory(), TailBytes: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		put(t, s, api.Index(i+1), fmt.Sprint(i), "some value of some length")
		if n := s.Stats().TailBytes; n > 41_000 {
			t.Fatalf("tail of %d bytes after %d puts", n, i)
		}
	}
	if s.Durable() < 500 {
		t.Fatalf("durable %d", s.Durable())
	}
	mustCheck(t, s)
}

// TestTargetIsDurable applies a compaction while the flusher is making an older
// one durable. Only the older one may delete records: after a crash the newer
// one has not happened yet.
func TestTargetIsDurable(t *testing.T) {
	disk := engine.NewMemory()
	s := openOn(t, disk, 0)
	for i := range 6 {
		put(t, s, api.Index(i+1), "a", fmt.Sprint(i))
	}
	compact := func(at api.Revision) {
		x := s.Begin()
		if err := x.Compact(at); err != nil {
			t.Error(err)
		}
		x.End()
	}
	compact(3)
	s.Seal(7, 1)
	s.Publish()
	disk.FailCommit = func(*engine.Batch) (bool, error) {
		disk.FailCommit = nil
		compact(6)
		s.Seal(8, 1)
		s.Publish()
		return false, nil
	}
	for range 2 { // start and trim, then delete
		if _, err := s.CompactStep(); err != nil {
			t.Fatal(err)
		}
	}
	s = openOn(t, disk.Crash(), 0)
	mustCheck(t, s)
	for at := api.Revision(3); at <= 7; at++ {
		x, err := s.Read(at)
		if err != nil {
			t.Fatal(err)
		}
		it, ok := x.Get([]byte("a"))
		if _, err := x.Record(it); !ok || err != nil || it.Mod != at {
			t.Fatalf("at %d: %+v, %v, %v", at, it, ok, err)
		}
		x.Release()
	}
}

// TestDoomed takes records of several runs out in one order, whatever the portions.
func TestDoomed(t *testing.T) {
	rng := rand.New(rand.NewSource(7))
	for range 200 {
		var d doomed
		var want []revision
		for _, i := range rng.Perm(rng.Intn(300)) {
			want = append(want, revision{main: api.Revision(i / 2), sub: int32(i % 2)})
		}
		for rest := want; len(rest) > 0; {
			n := 1 + rng.Intn(len(rest))
			d.add(slices.Clone(rest[:n]))
			rest = rest[n:]
		}
		d.add(nil)
		slices.SortFunc(want, func(a, b revision) int {
			return cmp.Or(cmp.Compare(a.main, b.main), cmp.Compare(a.sub, b.sub))
		})
		var got []revision
		for d.n > 0 {
			got = append(got, d.take(1+rng.Intn(d.n))...)
			if len(got)+d.n != len(want) {
				t.Fatalf("%d records taken, %d left, of %d", len(got), d.n, len(want))
			}
		}
		if !slices.Equal(got, want) || len(d.runs) > 0 {
			t.Fatalf("out came %v of %v", got, want)
		}
	}
}

// TestIdleStoreIsTrimmed: an index that was handed out lets go of what compaction gave
// up, although nobody writes any more; what a reader holds meanwhile stays.
func TestIdleStoreIsTrimmed(t *testing.T) {
	s := openOn(t, engine.NewMemory(), 100)
	for i := range 20 {
		put(t, s, api.Index(i+1), "a", fmt.Sprint(i))
	}
	held := mustRead(t, s)
	defer held.Release()
	x := s.Begin()
	if err := x.Compact(x.Revision()); err != nil {
		t.Fatal(err)
	}
	x.End()
	s.Seal(21, 1)
	s.Publish()
	mustRead(t, s).Release() // the last state has an index, too
	for more := true; more; {
		var err error
		if more, err = s.CompactStep(); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(get(held.st.root, "a").older()); n != 19 {
		t.Fatalf("the reader's index lists %d older revisions", n)
	}
	if n := len(get(s.state.Load().root, "a").older()); n != 0 {
		t.Fatalf("readers' index still lists %d older revisions", n)
	}
}

// TestRevisionAfterLostTombstone opens a file of an older etcd, which deleted
// the tombstone of the very revision that it compacted.
func TestRevisionAfterLostTombstone(t *testing.T) {
	disk := engine.NewMemory()
	var b engine.Batch
	putForeign(t, &b, revision{main: 2}, item{key: "a", create: 2, version: 1}, "x")
	putRevision(&b, metaScheduled, 9)
	if err := disk.Commit(&b); err != nil {
		t.Fatal(err)
	}
	s := openOn(t, disk, 0)
	if s.Revision() != 9 || s.CompactRevision() != 9 {
		t.Fatalf("revision %d, compacted %d", s.Revision(), s.CompactRevision())
	}
	put(t, s, 1, "b", "y")
	if s.Revision() != 10 {
		t.Fatalf("next revision is %d", s.Revision())
	}
	mustCheck(t, s)
}

// TestSnapshot sends a snapshot on and opens it elsewhere, on both engines.
func TestSnapshot(t *testing.T) {
	for _, name := range []string{"memory", "bolt"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var from engine.Engine = engine.NewMemory()
			if name == "bolt" {
				from = openBolt(t, filepath.Join(dir, "from"), false)
				defer from.Close()
			}
			s := openOn(t, from, 0)
			for i := range 100 {
				put(t, s, api.Index(i+1), fmt.Sprint(i%30), fmt.Sprint(i))
			}
			x := s.Begin()
			x.SetRaw(engine.Members, []byte("1"), []byte("one"))
			x.End()
			s.Seal(101, 1)
			s.Publish()
			snap, err := s.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			put(t, s, 102, "later", "x")
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			var file bytes.Buffer
			n, err := snap.WriteTo(&file)
			if err != nil || n != int64(file.Len()) || name == "bolt" && n != snap.Size() {
				t.Fatalf("wrote %d of %d bytes, size %d: %v", n, file.Len(), snap.Size(), err)
			}
			if snap.Index != 101 || snap.Revision != 101 {
				t.Fatalf("snapshot of index %d, revision %d", snap.Index, snap.Revision)
			}
			snap.Release()
			var to engine.Engine
			if name == "bolt" {
				path := filepath.Join(dir, "to")
				if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				to = openBolt(t, path, false)
				defer to.Close()
			} else if to, err = engine.LoadMemory(&file); err != nil {
				t.Fatal(err)
			}
			other := openOn(t, to, 0)
			mustCheck(t, other)
			if i, _ := other.Applied(); i != 101 || other.Revision() != 101 || other.Stats().Keys != 30 {
				t.Fatalf("opened at index %d, revision %d: %+v", i, other.Revision(), other.Stats())
			}
			if err := errors.Join(other.Close(), s.Close()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestRaw compares pairs of another bucket with a map, over flushes, and what
// lies pending with what is stored.
func TestRaw(t *testing.T) {
	r := rand.New(rand.NewSource(3))
	disk := engine.NewMemory()
	s := openOn(t, disk, 0)
	want := map[string]string{}
	for i := range 500 {
		x := s.Begin()
		for range r.Intn(3) {
			k := fmt.Sprint(r.Intn(20))
			if r.Intn(3) == 0 {
				x.DeleteRaw(engine.Members, []byte(k))
				delete(want, k)
			} else {
				v := fmt.Sprint(r.Intn(3) * r.Intn(100))
				x.SetRaw(engine.Members, []byte(k), []byte(v))
				want[k] = v
			}
		}
		x.End()
		if r.Intn(2) == 0 {
			s.Seal(api.Index(i), 1)
			s.Publish()
		}
		if r.Intn(5) == 0 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		got, last := map[string]string{}, ""
		s.Raw(engine.Members, func(k, v []byte) bool {
			if string(k) <= last && last != "" {
				t.Fatalf("%q after %q", k, last)
			}
			last = string(k)
			got[last] = string(v)
			return true
		})
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		n := 0
		s.Raw(engine.Members, func(_, _ []byte) bool { n++; return n < 2 })
		if n > 2 {
			t.Fatalf("went on after false: %d", n)
		}
	}
}

// TestPins bounds the cache of pinned indexes in number and time.
func TestPins(t *testing.T) {
	c := clock.NewFake(time.Unix(100, 0))
	s, err := Open(Config{Clock: c, Engine: engine.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxPins {
		put(t, s, api.Index(i+1), fmt.Sprint(i), "x")
		x := mustRead(t, s)
		x.Pin()
		x.Release()
	}
	if n := len(s.pins.mu.pins); n != maxPins {
		t.Fatalf("%d pins", n)
	}
	at := s.Revision() - 3
	put(t, s, 99, "0", "y")
	x, err := s.Read(at)
	if err != nil || !x.exact || x.Count([]byte{0}, []byte{0}) != int(at)-1 {
		t.Fatalf("pinned read: %v, exact %v", err, x.exact)
	}
	x.Release()
	s.pins.expire(c.Now(), at)
	if s.pins.get(at) == nil || s.pins.get(at-1) != nil {
		t.Fatal("compacted pins stay, or others go")
	}
	c.Advance(pinLife)
	s.pins.expire(c.Now(), at)
	if len(s.pins.mu.pins) != 0 {
		t.Fatal("old pins stay")
	}
}

// TestTree compares the tree with a map through random changes, and proves that
// roots handed out stay as they were.
func TestTree(t *testing.T) {
	for _, keyOf := range []func(r *rand.Rand) string{
		func(r *rand.Rand) string { return fmt.Sprintf("/registry/pods/%05d", r.Intn(20_000)) },
		func(r *rand.Rand) string { return string(bytes.Repeat([]byte{0}, r.Intn(200))) },
		func(r *rand.Rand) string { b := make([]byte, r.Intn(12)); r.Read(b); return string(b) },
		func(r *rand.Rand) string { return fmt.Sprint(r.ExpFloat64() * 1000) },
	} {
		r := rand.New(rand.NewSource(9))
		tr, want := newTree(), map[string]*item{}
		type frozen struct {
			root node
			want map[string]*item
		}
		var roots []frozen
		for i := range 40_000 {
			k := keyOf(r)
			if grow := i%20_000 < 10_000; grow == (r.Intn(5) > 0) {
				it := &item{key: k, mod: api.Revision(i), tomb: r.Intn(4) == 0}
				tr.set(it)
				want[k] = it
			} else if old := tr.remove(k); old != want[k] {
				t.Fatalf("removed %v, want %v", old, want[k])
			} else {
				delete(want, k)
			}
			if i%100 == 0 {
				root := tr.freeze()
				if i%5000 == 0 {
					copied := map[string]*item{}
					for k, v := range want {
						copied[k] = v
					}
					roots = append(roots, frozen{root, copied})
				}
			}
		}
		roots = append(roots, frozen{tr.freeze(), want})
		for _, f := range roots {
			compareTree(t, f.root, f.want, r, keyOf)
		}
		if tr.items != len(want) {
			t.Fatalf("%d items, want %d", tr.items, len(want))
		}
		keys := make([]string, 0, len(want))
		for k := range want {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		rows := make([]leafRow, 3)
		for i, k := range keys {
			rows[3*i/len(keys)].add(want[k])
		}
		for i := range rows {
			rows[i].finish()
		}
		compareTree(t, joinRows(rows).root, want, r, keyOf)
		r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		for i, k := range keys { // down to nothing, joining nodes of every level
			if i%2000 == 0 || len(keys)-i < 100 {
				compareTree(t, tr.freeze(), want, r, keyOf)
			}
			tr.remove(k)
			delete(want, k)
		}
		compareTree(t, tr.freeze(), want, r, keyOf)
	}
}

func compareTree(t *testing.T, root node, want map[string]*item, r *rand.Rand, keyOf func(*rand.Rand) string) {
	t.Helper()
	c := &checker{}
	c.checkNode(root, 0, "", "", true)
	if len(c.problems) > 0 {
		t.Fatal(c.problems)
	}
	if len(c.items) != len(want) {
		t.Fatalf("%d items, want %d", len(c.items), len(want))
	}
	for _, it := range c.items {
		if want[it.key] != it || get(root, it.key) != it {
			t.Fatalf("%q: %v, want %v", it.key, it, want[it.key])
		}
	}
	for range 20 {
		k := keyOf(r)
		if get(root, k) != want[k] {
			t.Fatalf("get %q: %v, want %v", k, get(root, k), want[k])
		}
		b := bounds{from: k, to: keyOf(r), open: r.Intn(4) == 0}
		n, seen := 0, 0
		for k, it := range want {
			if !it.tomb && k >= b.from && (b.open || k < b.to) {
				n++
			}
		}
		ascend(root, b, func(it *item) bool { seen += int(liveOf(it)); return true })
		if countLive(root, b) != n || seen != n {
			t.Fatalf("%+v: counted %d, seen %d, want %d", b, countLive(root, b), seen, n)
		}
	}
}

// TestSortRecords compares sorting as a whole, and in runs that are merged, with the
// plain sort.
func TestSortRecords(t *testing.T) {
	r := rand.New(rand.NewSource(4))
	for range 300 {
		var records []*item
		for i := range r.Intn(400) {
			k := []byte("/registry/prefix/")[:r.Intn(18)]
			for range r.Intn(20) {
				k = append(k, byte(r.Intn(2)*r.Intn(3)))
			}
			records = append(records, &item{key: string(k), mod: api.Revision(i/3 + 1), sub: int32(i % 3)})
		}
		want := slices.Clone(records)
		slices.SortFunc(want, compareRecords)
		runs := make([][]*item, r.Intn(9)+1)
		for _, it := range records {
			n := r.Intn(len(runs))
			runs[n] = append(runs[n], it)
		}
		runs = slices.DeleteFunc(runs, func(run []*item) bool { return len(run) == 0 })
		for _, run := range runs {
			sortRecords(run)
		}
		var merged []*item
		ranges := r.Intn(5) + 1
		bounds := splitKeys(runs, ranges)
		for n := range ranges {
			merge(cutRuns(runs, bounds, n), func(it *item) { merged = append(merged, it) })
		}
		if !slices.Equal(merged, want) {
			t.Fatal("merged runs are not sorted")
		}
		sortRecords(records)
		if !slices.Equal(records, want) {
			t.Fatal("not sorted")
		}
	}
}
