package mvcc

import (
	"errors"
	"math"
	"testing"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// rebased is a database of two keys at revision 3 that stood at index 7 of another log.
func rebased(t *testing.T, by Rebase) (*engine.Memory, api.Revision) {
	t.Helper()
	disk := engine.NewMemory()
	s := openOn(t, disk, 0)
	put(t, s, 6, "a", "1")
	put(t, s, 7, "b", "2")
	if err := errors.Join(s.Flush(), s.Close()); err != nil {
		t.Fatal(err)
	}
	rev, err := by.Apply(disk)
	if err != nil {
		t.Fatal(err)
	}
	return disk, rev
}

// vouched reports whether the file says which of its records have checksums.
func vouched(t *testing.T, disk engine.Engine) bool {
	t.Helper()
	view, err := disk.View()
	if err != nil {
		t.Fatal(err)
	}
	defer view.Release()
	return view.Get(engine.Meta, metaTrusted) != nil
}

// TestRebase: the state stays, and stands where the new log begins; what else is to
// change comes with the same commit.
func TestRebase(t *testing.T) {
	var more engine.Batch
	more.Put(engine.Members, []byte("1"), []byte("one"))
	disk, rev := rebased(t, Rebase{Index: 3, Term: 1, Ops: more.Ops})
	if !vouched(t, disk) {
		t.Error("nothing says that there are checksums")
	}
	s := openOn(t, disk, 0)
	index, term := s.Applied()
	if rev != 3 || s.Revision() != 3 || s.CompactRevision() > 0 || index != 3 || term != 1 || s.Stats().Keys != 2 {
		t.Errorf("revision %d of %d, compacted %d, at index %d of term %d: %+v", s.Revision(), rev, s.CompactRevision(), index, term, s.Stats())
	}
	view, err := disk.View()
	if err != nil {
		t.Fatal(err)
	}
	defer view.Release()
	if got := view.Get(engine.Members, []byte("1")); string(got) != "one" {
		t.Errorf("the other change: %q", got)
	}
	put(t, s, 4, "c", "3")
	if s.Revision() != 4 {
		t.Errorf("the next revision is %d", s.Revision())
	}
	mustCheck(t, s)
}

// TestRebaseBumps: the revision is raised and the history is given up, or nothing has changed.
func TestRebaseBumps(t *testing.T) {
	disk, rev := rebased(t, Rebase{Index: 1, Term: 1, Bump: 1000})
	if _, err := (Rebase{Index: 9, Term: 9, Bump: math.MaxInt64 / 2}).Apply(disk); err == nil {
		t.Error("a revision beyond all that there are")
	}
	s := openOn(t, disk, 0)
	index, term := s.Applied()
	if rev != 1003 || s.Revision() != 1003 || s.CompactRevision() != 1003 || index != 1 || term != 1 || s.Stats().Keys != 2 {
		t.Errorf("revision %d of %d, compacted %d, at index %d of term %d: %+v", s.Revision(), rev, s.CompactRevision(), index, term, s.Stats())
	}
	mustCheck(t, s)
}

// TestRebaseForeign: where etcd went on with a file of ours, its records have no
// checksums, and nothing says that they do; a record without a key goes.
func TestRebaseForeign(t *testing.T) {
	disk, _ := rebased(t, Rebase{Index: 1, Term: 1})
	var etcd engine.Batch
	putForeign(t, &etcd, revision{main: 4}, item{key: "c", create: 4, version: 1}, "x")
	etcd.Put(engine.Meta, metaIndex, []byte{7: 5})
	etcd.Put(engine.Key, revision{main: 5}.appendTo(nil), nil) // as etcdutl raises a revision
	if err := disk.Commit(&etcd); err != nil {
		t.Fatal(err)
	}
	if rev, err := (Rebase{Index: 2, Term: 1}).Apply(disk); err != nil || rev != 5 {
		t.Fatalf("revision %d, %v", rev, err)
	}
	if vouched(t, disk) {
		t.Error("checksums are said to be where there are none")
	}
	s := openOn(t, disk, 0)
	if index, _ := s.Applied(); index != 2 || s.Stats().Keys != 3 {
		t.Errorf("at index %d: %+v", index, s.Stats())
	}
	mustCheck(t, s)
}
