package mvcc

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
)

var errDisk = errors.New("disk full of holes")

// faultyRun applies a fixed random log, flushing and compacting on the way, to
// a store whose n-th commit fails. It returns the log and what is on disk.
func faultyRun(t *testing.T, n int, applied bool) (m *model, log []command, disk *engine.Memory, failed bool) {
	t.Helper()
	r := rand.New(rand.NewSource(77))
	disk = engine.NewMemory()
	commits := 0
	disk.FailCommit = func(*engine.Batch) (bool, error) {
		commits++
		if commits == n {
			return applied, errDisk
		}
		return false, nil
	}
	var fatal error
	s, err := Open(Config{Clock: clock.System(), Engine: disk, CompactionBatch: 3, OnFatal: func(err error) { fatal = err }})
	if err != nil {
		t.Fatal(err)
	}
	m = newModel()
	for i := 0; i < 120; i++ {
		c := randomCommand(r, m)
		m.apply(c)
		log = append(log, c)
		c.applyTo(t, s, api.Index(len(log)))
		err := s.Flush()
		for j := 0; j < 3 && err == nil; j++ {
			_, err = s.CompactStep()
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, errDisk) || !errors.Is(fatal, errDisk) {
			t.Fatalf("commit %d: error %v, told %v", n, err, fatal)
		}
		if err := s.Flush(); !errors.Is(err, errDisk) {
			t.Fatalf("a flush after the failed one returns %v", err)
		}
		return m, log, disk, true
	}
	return m, log, disk, false
}

// TestFailEveryCommit fails each commit once, in both ways: not applied, and
// applied though an error was returned. The store must stop, and a restart must
// come to the state that the log says.
func TestFailEveryCommit(t *testing.T) {
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprintf("applied=%v", applied), func(t *testing.T) {
			for n := 1; ; n++ {
				m, log, disk, failed := faultyRun(t, n, applied)
				disk.FailCommit = nil
				s := openOn(t, disk.Crash(), 3)
				mustCheck(t, s)
				for j := s.Durable(); int(j) < len(log); j++ {
					log[j].applyTo(t, s, j+1)
				}
				compareAt(t, s, m, 0, rand.New(rand.NewSource(1)))
				compareHistory(t, s, m, max(m.compact, 2))
				compareLeases(t, s, m)
				mustCheck(t, s)
				if !failed {
					if n < 100 {
						t.Fatalf("only %d commits", n)
					}
					return
				}
			}
		})
	}
}

// TestDamagedRecordIsFound flips each byte of a stored record in turn.
func TestDamagedRecordIsFound(t *testing.T) {
	s := openOn(t, engine.NewMemory(), 0)
	x := s.Begin()
	if err := x.LeaseGrant(1, 10); err != nil {
		t.Fatal(err)
	}
	x.Put([]byte("key"), []byte("value"), 1)
	x.End()
	s.Seal(1, 1)
	s.Publish()
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	it, _ := mustRead(t, s).Get([]byte("key"))
	name := revision{main: it.Mod}.appendTo(nil)
	good := s.state.Load().view.Get(engine.Key, name)
	for i := range good {
		for _, flip := range []byte{1, 0x80, 0xff} {
			bad := append([]byte(nil), good...)
			bad[i] ^= flip
			if err := s.mu.engine.Commit(&engine.Batch{Ops: []engine.Op{{Bucket: engine.Key, Key: name, Value: bad}}}); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(Config{Clock: clock.System(), Engine: s.mu.engine}); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d ^ %x: opened with %v", i, flip, err)
			}
		}
	}
	// A sound record in another's place is damage too.
	other := revision{main: it.Mod, sub: 1}.appendTo(nil)
	batch := engine.Batch{Ops: []engine.Op{{Bucket: engine.Key, Key: name, Value: good}, {Bucket: engine.Key, Key: other, Value: good}}}
	if err := s.mu.engine.Commit(&batch); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Clock: clock.System(), Engine: s.mu.engine}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("misplaced record: opened with %v", err)
	}
}

// TestDamagedRows: rows that no store writes are found when one is opened.
func TestDamagedRows(t *testing.T) {
	disk := engine.NewMemory()
	s := openOn(t, disk, 0)
	x := s.Begin()
	if err := x.LeaseGrant(1, 10); err != nil {
		t.Fatal(err)
	}
	x.Put([]byte("key"), []byte("value"), 1)
	if err := x.Compact(1); err != nil {
		t.Fatal(err)
	}
	x.End()
	s.Seal(1, 1)
	s.Publish()
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	commit := func(op engine.Op) {
		t.Helper()
		if err := disk.Commit(&engine.Batch{Ops: []engine.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	whole := revision{main: 9}.appendTo(nil)
	for _, row := range []engine.Op{
		{Bucket: engine.Meta, Key: metaIndex, Value: make([]byte, 7)},
		{Bucket: engine.Meta, Key: metaTerm, Value: make([]byte, 9)},
		{Bucket: engine.Meta, Key: metaScheduled, Value: make([]byte, 4)},
		{Bucket: engine.Meta, Key: metaFinished, Value: make([]byte, 18)},
		{Bucket: engine.Meta, Key: metaTrusted, Value: make([]byte, 3)},
		{Bucket: engine.Meta, Key: metaTrusted, Value: make([]byte, 20)},
		{Bucket: engine.Meta, Key: metaChain, Value: make([]byte, 5)},
		{Bucket: engine.Meta, Key: metaChain, Value: make([]byte, chainRowLen)},
		{Bucket: engine.Lease, Key: leaseKey(1), Value: encodeLease(2, 10, 0)},
		{Bucket: engine.Lease, Key: leaseKey(0), Value: encodeLease(0, 10, 0)},
		{Bucket: engine.Lease, Key: []byte{1}, Value: encodeLease(1, 10, 0)},
		{Bucket: engine.Lease, Key: leaseKey(1), Value: []byte{0x80}},
		{Bucket: engine.Lease, Key: leaseKey(1), Value: []byte{0x08, 0x80}},
		{Bucket: engine.Lease, Key: leaseKey(1), Value: []byte{0x20, 1}},
		{Bucket: engine.Key, Key: []byte{1}, Value: []byte("x")},
		{Bucket: engine.Key, Key: whole[:len(whole)-1], Value: []byte("x")},
		{Bucket: engine.Key, Key: append(slices.Clone(whole), 'x'), Value: []byte("x")},
		{Bucket: engine.Key, Key: append(slices.Clone(whole), 't', 't'), Value: []byte("x")},
		{Bucket: engine.Key, Key: bytes.Replace(whole, []byte("_"), []byte("-"), 1), Value: []byte("x")},
		{Bucket: engine.Key, Key: revision{main: -1}.appendTo(nil), Value: []byte("x")},
		{Bucket: engine.Key, Key: revision{main: 9, sub: -1}.appendTo(nil), Value: []byte("x")},
	} {
		before := engine.Op{Bucket: row.Bucket, Key: row.Key, Value: s.state.Load().view.Get(row.Bucket, row.Key)}
		commit(row)
		if _, err := Open(Config{Clock: clock.System(), Engine: disk}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bucket %s, key %x, value %x: opened with %v", row.Bucket, row.Key, row.Value, err)
		}
		commit(before)
	}
	if _, err := Open(Config{Clock: clock.System(), Engine: disk}); err != nil {
		t.Errorf("with all rows as they were: %v", err)
	}
}

func mustRead(t testing.TB, s *Store) *ReadTxn {
	t.Helper()
	x, err := s.Read(0)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestDamageUnderReaders damages records after the index was built: the read
// that meets one says so, Check says so, and nothing else is affected.
func TestDamageUnderReaders(t *testing.T) {
	disk := engine.NewMemory()
	s := openOn(t, disk, 0)
	for i, key := range []string{"a", "b", "c"} {
		command{kind: "txn", ops: []commandOp{{key: key, value: "x"}}}.applyTo(t, s, api.Index(i+1))
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	view, err := disk.View()
	if err != nil {
		t.Fatal(err)
	}
	nameB, nameC := revision{main: 3}.appendTo(nil), revision{main: 4}.appendTo(nil)
	bad := append([]byte(nil), view.Get(engine.Key, nameB)...)
	bad[len(bad)-1]++
	if err := disk.Commit(&engine.Batch{Ops: []engine.Op{{Bucket: engine.Key, Key: nameB, Value: bad}, {Bucket: engine.Key, Key: nameC}}}); err != nil {
		t.Fatal(err)
	}
	command{kind: "txn", ops: []commandOp{{key: "d", value: "x"}}}.applyTo(t, s, 4)
	if err := s.Flush(); err != nil { // readers get the damaged view
		t.Fatal(err)
	}
	x := mustRead(t, s)
	defer x.Release()
	got := ""
	x.Scan([]byte("a"), []byte{0}, func(it Item) bool {
		_, err := x.Record(it)
		got += fmt.Sprintf("%s %v\n", it.Key, errors.Is(err, ErrCorrupt))
		return true
	})
	if want := "a false\nb true\nc true\nd false\n"; got != want {
		t.Fatalf("got\n%s", got)
	}
	if problems := s.Check(); len(problems) < 2 {
		t.Fatalf("check finds %v", problems)
	}
	if err := s.History(2, 5, func(*Event) bool { return true }); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("history: %v", err)
	}
	command{kind: "txn", ops: []commandOp{{key: "e", value: "x"}}}.applyTo(t, s, 5) // in memory, after the damage
	if err := s.History(2, 6, func(*Event) bool { return true }); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("history with newer events: %v", err)
	}
	calls := 0
	if err := s.History(2, 6, func(*Event) bool { calls++; return false }); err != nil || calls != 1 {
		t.Fatalf("a history of which one event is wanted: %d, %v", calls, err)
	}
}

// TestForeignFile opens what etcd would leave: records without checksums,
// tombstones without a mod_revision, an interrupted compaction. Another
// program's write to a file of ours is refused.
func TestForeignFile(t *testing.T) {
	disk := engine.NewMemory()
	var b engine.Batch
	putForeign(t, &b, revision{main: 2}, item{key: "a", create: 2, mod: 2, version: 1}, "old")
	putForeign(t, &b, revision{main: 3}, item{key: "a", create: 2, mod: 3, version: 2, lease: 5}, "new")
	putForeign(t, &b, revision{main: 3, sub: 1}, item{key: "b", create: 3, mod: 3, version: 1}, "x")
	putForeign(t, &b, revision{main: 4, tomb: true}, item{key: "b", tomb: true}, "")
	b.Put(engine.Lease, leaseKey(5), encodeLease(5, 30, 0))
	b.Put(engine.Meta, metaIndex, []byte{0, 0, 0, 0, 0, 0, 0, 9})
	b.Put(engine.Meta, metaTerm, []byte{0, 0, 0, 0, 0, 0, 0, 2})
	putRevision(&b, metaFinished, 2)
	putRevision(&b, metaScheduled, 3)
	if err := disk.Commit(&b); err != nil {
		t.Fatal(err)
	}
	s := openOn(t, disk, 0)
	mustCheck(t, s)
	if i, term := s.Applied(); i != 9 || term != 2 || s.Revision() != 4 || s.CompactRevision() != 3 {
		t.Fatalf("index %d, term %d, revision %d, compacted %d", i, term, s.Revision(), s.CompactRevision())
	}
	deletes := 0
	err := s.History(3, 4, func(e *Event) bool {
		if e.Delete {
			var f fields
			if err := f.decode(e.KV); err != nil || f.mod != 4 || string(f.key) != "b" {
				t.Errorf("delete event %x: %v", e.KV, err)
			}
			deletes++
		}
		return true
	})
	if err != nil || deletes != 1 {
		t.Fatalf("%d deletes, %v", deletes, err)
	}
	command{kind: "txn", ops: []commandOp{{key: "c", value: "y", lease: 5}}}.applyTo(t, s, 10)
	for more := true; more; {
		if more, err = s.CompactStep(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	mustCheck(t, s)
	s = openOn(t, disk, 0)
	mustCheck(t, s)
	if l, _ := s.Lease(5); len(l.Keys()) != 2 || s.Stats().Revisions != 4 {
		t.Fatalf("lease has %q, %+v", l.Keys(), s.Stats())
	}
	// A record without a checksum where all must have one.
	var foreign engine.Batch
	putForeign(t, &foreign, revision{main: 6}, item{key: "z", create: 6, mod: 6, version: 1}, "z")
	if err := disk.Commit(&foreign); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Clock: clock.System(), Engine: disk}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("record without checksum: %v", err)
	}
	undo := engine.Batch{Ops: []engine.Op{{Bucket: engine.Key, Key: revision{main: 6}.appendTo(nil)}}}
	undo.Put(engine.Meta, metaIndex, []byte{0, 0, 0, 0, 0, 0, 0, 99})
	if err := disk.Commit(&undo); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Clock: clock.System(), Engine: disk}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("another program's index: %v", err)
	}
}

// putForeign adds a record as etcd writes it.
func putForeign(t *testing.T, b *engine.Batch, rev revision, it item, value string) {
	t.Helper()
	it.mod, it.sub = rev.main, rev.sub
	rec := appendRecord(nil, &it, []byte(value))
	rec = rec[:len(rec)-trailerLen]
	if rev.tomb { // etcd's tombstones have the key alone
		rec = rec[:2+len(it.key)]
	}
	b.Put(engine.Key, rev.appendTo(nil), rec)
}
