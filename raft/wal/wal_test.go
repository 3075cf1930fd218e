package wal

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

const testDir = "wal"

var (
	testID  = Identity{Cluster: 0xc1, Member: 0xa}
	testOpt = Options{SegmentSize: 2 * minSegmentSize, Salt: 7}
)

// entry makes an entry whose data tells index and term.
func entry(i api.Index, term api.Term, size int) *raftpb.Entry {
	data := []byte(fmt.Sprintf("%d.%d|", i, term))
	for len(data) < size {
		data = append(data, byte('a'+len(data)%26))
	}
	index, t, typ := uint64(i), uint64(term), raftpb.EntryNormal
	return &raftpb.Entry{Index: &index, Term: &t, Type: &typ, Data: data[:size]}
}

func entries(from, to api.Index, term api.Term, size int) (es []*raftpb.Entry) {
	for i := from; i <= to; i++ {
		es = append(es, entry(i, term, size))
	}
	return es
}

// content is everything that readers and Raft can see of a log.
func content(w *WAL) string {
	var s strings.Builder
	fmt.Fprintf(&s, "start=%d/%d hs=%+v", w.Start().Index, w.Start().Term, w.HardState())
	es, err := w.Entries(w.First(), w.Last()+1, math.MaxUint64)
	if err != nil {
		return s.String() + " error: " + err.Error()
	}
	for _, e := range es {
		fmt.Fprintf(&s, " %d/%d:%d:%x", e.GetIndex(), e.GetTerm(), len(e.GetData()), sum(e.GetData()))
	}
	return s.String()
}

func sum(p []byte) (h uint32) {
	for _, b := range p {
		h = h*31 + uint32(b)
	}
	return h
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, fs vfs.FS) *WAL {
	t.Helper()
	w, err := Create(fs, testDir, testID, testOpt)
	check(t, err)
	return w
}

func reopen(t testing.TB, fs vfs.FS) (*WAL, *Recovered) {
	t.Helper()
	w, r, err := Open(fs, testDir, testID, testOpt)
	check(t, err)
	return w, r
}

func TestRoundTrip(t *testing.T) {
	fs := vfs.NewMem(1)
	w := create(t, fs)
	check(t, w.Append(&HardState{Term: 1, Vote: 2}, nil))
	check(t, w.Append(nil, entries(1, 5, 1, 100)))
	check(t, w.Sync())
	check(t, w.Append(&HardState{Term: 2, Vote: 2, Commit: 3}, entries(4, 9, 2, 0)))
	check(t, w.Append(nil, entries(8, 12, 2, 77)))
	before := content(w)
	check(t, w.Sync())
	if got := content(w); got != before {
		t.Fatalf("sync changed the content:\n%s\n%s", before, got)
	}
	check(t, w.Close())
	w, r := reopen(t, fs)
	if got := content(w); got != before || r.TornBytes != 0 {
		t.Fatalf("after reopen: torn %d\n%s\n%s", r.TornBytes, before, got)
	}
	if _, _, err := Open(fs, testDir, Identity{1, 2}, testOpt); !errors.Is(err, ErrWrongIdentity) {
		t.Fatal(err)
	}
}
