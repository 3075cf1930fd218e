package wal

import (
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

// TestReadersAndOwner reads from several goroutines while the owner appends,
// replaces, rotates, releases and resets. Whatever a reader gets is consistent.
func TestReadersAndOwner(t *testing.T) {
	w := create(t, vfs.NewMem(1))
	done := make(chan struct{})
	var readers sync.WaitGroup
	for seed := range uint64(3) {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 8))
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := readSome(w, rng); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	own(t, w)
	close(done)
	readers.Wait()
	check(t, w.Close())
	if _, err := w.Entries(w.First(), w.Last()+1, 1); !errors.Is(err, ErrClosed) {
		t.Fatalf("read after close: %v", err)
	}
	if err := w.Sync(); !errors.Is(err, ErrClosed) {
		t.Fatalf("sync after close: %v", err)
	}
}

func own(t *testing.T, w *WAL) {
	rng := rand.New(rand.NewPCG(1, 9))
	hs := HardState{Term: 1}
	for round := range 4000 {
		next := w.Last() + 1
		if next > hs.Commit+5 {
			hs.Term++
			next -= 2
		}
		es := entries(next, next+api.Index(rng.IntN(3)), hs.Term, rng.IntN(400))
		hs.Commit = max(hs.Commit, positionOf(es[len(es)-1]).Index-api.Index(rng.IntN(8)))
		hs.Commit = min(hs.Commit, positionOf(es[len(es)-1]).Index)
		check(t, w.Append(&hs, es))
		if rng.IntN(2) == 0 {
			check(t, w.Sync())
		}
		if round%100 == 99 {
			check(t, w.Release(hs.Commit-min(hs.Commit, 20)))
		}
		if round%500 == 400 {
			check(t, w.Reset(Position{w.Last() + 10, hs.Term}))
			hs = w.HardState()
		}
	}
}

var errInconsistent = errors.New("a reader saw entries that do not belong together")

func readSome(w *WAL, rng *rand.Rand) error {
	first, last := w.First(), w.Last()
	if last < first {
		return nil
	}
	lo := first + api.Index(rng.Int64N(int64(last-first)+1))
	got, err := w.Entries(lo, last+1, uint64(rng.IntN(3000)))
	if errors.Is(err, ErrCompacted) || errors.Is(err, ErrUnavailable) {
		return nil // released, reset or cut in the meantime
	}
	if err != nil {
		return err
	}
	for k, e := range got {
		want := entry(api.Index(e.GetIndex()), api.Term(e.GetTerm()), len(e.GetData()))
		if api.Index(e.GetIndex()) != lo+api.Index(k) || string(want.GetData()) != string(e.GetData()) {
			return errInconsistent
		}
	}
	if _, err := w.Term(lo); err != nil && !errors.Is(err, ErrCompacted) && !errors.Is(err, ErrUnavailable) {
		return err
	}
	w.Bytes()
	return nil
}

func TestEntriesLimits(t *testing.T) {
	w := create(t, vfs.NewMem(1))
	check(t, w.Append(&HardState{Term: 1}, entries(1, 30, 1, 2000)))
	check(t, w.Sync())
	check(t, w.Append(nil, entries(31, 40, 1, 2000)))
	for _, e := range []*raftpb.Entry{entry(1, 1, 1), entry(127, 128, 127), entry(1<<40, 1<<20, 128), entry(1<<62, 3, 2000)} {
		if want := uint64(proto.Size(e)); encodedSize(e) != want {
			t.Fatalf("%d bytes for an entry of %d", encodedSize(e), want)
		}
	}
	one := encodedSize(entry(1, 1, 2000))
	for _, c := range []struct {
		lo, hi api.Index
		max    uint64
		want   int
	}{
		{1, 41, math.MaxUint64, 40}, {1, 41, 0, 1}, {1, 41, one, 1}, {1, 41, one*2 - 1, 1}, {1, 41, one * 2, 2},
		{30, 32, math.MaxUint64, 2}, {31, 33, 1, 1}, {5, 5, 10, 0}, {40, 41, 10, 1},
	} {
		got, err := w.Entries(c.lo, c.hi, c.max)
		if err != nil || len(got) != c.want {
			t.Fatalf("[%d, %d) max %d: %d entries, %v; want %d", c.lo, c.hi, c.max, len(got), err, c.want)
		}
	}
	for _, c := range []struct {
		lo, hi api.Index
		want   error
	}{{0, 5, ErrCompacted}, {1, 42, ErrUnavailable}, {50, 60, ErrUnavailable}} {
		if _, err := w.Entries(c.lo, c.hi, 10); !errors.Is(err, c.want) {
			t.Fatalf("[%d, %d): %v", c.lo, c.hi, err)
		}
	}
}

// TestInvalidAppends: what Raft never asks for is refused and changes nothing.
func TestInvalidAppends(t *testing.T) {
	w := create(t, vfs.NewMem(1))
	check(t, w.Append(&HardState{Term: 3, Vote: 1, Commit: 4}, entries(1, 9, 3, 10)))
	before := content(w)
	for name, call := range map[string]func() error{
		"gap":                func() error { return w.Append(nil, entries(11, 12, 3, 1)) },
		"over the commit":    func() error { return w.Append(nil, entries(4, 5, 3, 1)) },
		"index 0":            func() error { return w.Append(nil, entries(0, 1, 3, 1)) },
		"hole inside":        func() error { return w.Append(nil, append(entries(10, 10, 3, 1), entry(12, 3, 1))) },
		"falling term":       func() error { return w.Append(nil, entries(10, 10, 2, 1)) },
		"hard state's term":  func() error { return w.Append(&HardState{Term: 2, Vote: 1, Commit: 4}, nil) },
		"another vote":       func() error { return w.Append(&HardState{Term: 3, Vote: 2, Commit: 4}, nil) },
		"falling commit":     func() error { return w.Append(&HardState{Term: 3, Vote: 1, Commit: 3}, nil) },
		"commit beyond last": func() error { return w.Append(&HardState{Term: 3, Vote: 1, Commit: 10}, nil) },
	} {
		if err := call(); !errors.Is(err, ErrInvalid) {
			t.Fatalf("%s: %v", name, err)
		}
		if got := content(w); got != before {
			t.Fatalf("%s changed the log: %s", name, got)
		}
	}
	check(t, w.Sync())
}

// TestReplacedBelowStart: a batch that replaces entries down to where the log
// was released recovers with the same start.
func TestReplacedBelowStart(t *testing.T) {
	fs := vfs.NewMem(1)
	w := create(t, fs)
	for i := api.Index(1); len(w.Segments()) < 3; i++ {
		check(t, w.Append(&HardState{Term: 1}, entries(i, i, 1, 3000)))
		check(t, w.Sync())
	}
	second := w.Segments()[1].First
	check(t, w.Append(&HardState{Term: 2}, entries(second-1, second, 2, 10)))
	check(t, w.Release(second-2)) // syncs first: nothing else keeps the old entries
	want := content(w)
	if w.Start() != (Position{second - 2, 1}) {
		t.Fatalf("start %+v", w.Start())
	}
	w, _ = reopen(t, fs.DurableClone())
	if got := content(w); got != want {
		t.Fatalf("\n%s\n%s", got, want)
	}
}
