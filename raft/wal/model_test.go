package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

// model is what a log should hold.
type model struct {
	start    Position
	entries  []*raftpb.Entry // start.Index+1 and on; none is ever released
	hs       HardState
	released api.Index // Release was called up to here: entries may be gone
}

func (m model) last() Position {
	if n := len(m.entries); n > 0 {
		return positionOf(m.entries[n-1])
	}
	return m.start
}

func (m model) append(hs *HardState, es []*raftpb.Entry) model {
	if len(es) > 0 {
		keep := api.Index(es[0].GetIndex()) - m.start.Index - 1
		m.entries = append(m.entries[:keep:keep], es...)
	}
	if hs != nil {
		m.hs = *hs
	}
	return m
}

func (m model) reset(start Position) model {
	hs := m.hs
	hs.Commit = start.Index
	if hs.Term < start.Term {
		hs.Term, hs.Vote = start.Term, 0
	}
	return model{start: start, hs: hs, released: start.Index}
}

// differs says how an open log differs from the model, or returns "".
func (m model) differs(w *WAL) string {
	start, last := w.Start(), m.last()
	if w.Last() != last.Index {
		return fmt.Sprintf("last is %d, want %d", w.Last(), last.Index)
	}
	if start.Index < m.start.Index || start.Index > max(m.start.Index, m.released) {
		return fmt.Sprintf("start is %d, want %d to %d", start.Index, m.start.Index, m.released)
	}
	if want := m.term(start.Index); start.Term != want {
		return fmt.Sprintf("start is %+v, want term %d", start, want)
	}
	got, err := w.Entries(w.First(), w.Last()+1, math.MaxUint64)
	if err != nil {
		return err.Error()
	}
	if len(got) != int(last.Index-start.Index) {
		return fmt.Sprintf("%d entries after %d, last is %d", len(got), start.Index, last.Index)
	}
	for k, e := range got {
		want := m.entries[int(start.Index-m.start.Index)+k]
		if e.GetIndex() != want.GetIndex() || e.GetTerm() != want.GetTerm() || e.GetType() != want.GetType() || !bytes.Equal(e.GetData(), want.GetData()) {
			return fmt.Sprintf("entry %d/%d, want %d/%d", e.GetIndex(), e.GetTerm(), want.GetIndex(), want.GetTerm())
		}
		if term, err := w.Term(api.Index(e.GetIndex())); err != nil || term != api.Term(e.GetTerm()) {
			return fmt.Sprintf("term of %d is %d, %v", e.GetIndex(), term, err)
		}
	}
	return ""
}

func (m model) term(i api.Index) api.Term {
	if i == m.start.Index {
		return m.start.Term
	}
	return api.Term(m.entries[i-m.start.Index-1].GetTerm())
}

// world drives a log and knows what a crash may leave of it.
type world struct {
	t        testing.TB
	rng      *rand.Rand
	fs       vfs.FS
	blind    bool // do not compare the log in use with the model
	w        *WAL
	now      model // everything appended
	durable  model // what the last successful Sync covered
	inFlight model // what the call in progress may make durable
}

func newWorld(t testing.TB, fs vfs.FS, seed uint64) *world {
	return &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), fs: fs}
}

// create makes the log; it returns the error for tests that inject some.
func (x *world) create() (err error) {
	x.w, err = Create(x.fs, testDir, testID, testOpt)
	return err
}

// step does one random call, as Raft would make it, and checks the log against
// the model.
func (x *world) step() error {
	x.inFlight = x.now
	err := x.call()
	if err == nil && !x.blind {
		if d := x.now.differs(x.w); d != "" {
			x.t.Fatalf("log in use: %s", d)
		}
	}
	return err
}

func (x *world) call() error {
	switch k := x.rng.IntN(100); {
	case k < 40:
		return x.append()
	case k < 75:
		return x.sync()
	case k < 83:
		x.inFlight = x.now // its commit index
		return x.w.Mark()
	case k < 89:
		upTo := x.now.start.Index + api.Index(x.rng.IntN(int(x.now.hs.Commit-x.now.start.Index)+1))
		x.now.released = max(x.now.released, upTo)
		x.durable.released = x.now.released
		return x.syncing(func() error { return x.w.Release(upTo) })
	case k < 92:
		last := x.now.last()
		start := Position{last.Index + api.Index(x.rng.IntN(9)), x.now.hs.Term + api.Term(x.rng.IntN(2))}
		x.inFlight = x.now.reset(start)
		x.now = x.inFlight
		return x.syncing(func() error { return x.w.Reset(start) })
	default:
		return x.reopen()
	}
}

// append adds entries, sometimes in place of others, and sometimes a new hard
// state.
func (x *world) append() error {
	hs := x.now.hs
	if x.rng.IntN(4) == 0 {
		hs.Term, hs.Vote = hs.Term+1, api.MemberID(x.rng.IntN(4))
	}
	first := x.now.last().Index + 1
	if back := first - 1 - hs.Commit; back > 0 && x.rng.IntN(4) == 0 {
		first -= api.Index(x.rng.IntN(int(back))) + 1
	}
	var es []*raftpb.Entry
	if n := x.rng.IntN(4); n > 0 {
		es = entries(first, first+api.Index(n)-1, max(hs.Term, 1), x.rng.IntN(1500))
		hs.Term = max(hs.Term, 1)
	}
	next := x.now.append(&hs, es)
	next.hs.Commit += api.Index(x.rng.IntN(int(next.last().Index-next.hs.Commit) + 1))
	x.now = next
	return x.w.Append(&next.hs, es)
}

func (x *world) sync() error {
	return x.syncing(func() error { return x.w.Sync() })
}

// syncing runs a call that makes everything durable when it succeeds.
func (x *world) syncing(call func() error) error {
	x.inFlight = x.now
	if err := call(); err != nil {
		return err
	}
	if len(x.w.mu.batch.buf) == 0 {
		x.durable = x.now
		x.durable.hs.Commit = x.w.syncedState.Commit // Release does not write it
	}
	return nil
}

func (x *world) reopen() error {
	if err := x.syncing(func() error { return x.w.Close() }); err != nil {
		return err
	}
	w, _, err := Open(x.fs, testDir, testID, testOpt)
	if err == nil {
		x.w = w
	}
	return err
}

// survives opens the log on another disk state, as after a crash, and checks
// that it holds the durable content or what was in flight, and nothing between.
// It returns the log and which of the two it was.
func (x *world) survives(fs vfs.FS, what string) (*WAL, model) {
	w, r, err := Open(fs, testDir, testID, testOpt)
	if err != nil {
		x.t.Fatalf("%s: %v", what, err)
	}
	if r.HardState != w.HardState() || r.Last != w.Last() || r.Start != w.Start() {
		x.t.Fatalf("%s: recovered %+v, log is %s", what, r, content(w))
	}
	var why string
	for _, m := range []model{x.inFlight, x.durable} {
		d := m.differs(w)
		if d == "" {
			d = x.stateDiffers(w.HardState())
		}
		if d == "" {
			m.hs = w.HardState()
			return w, m
		}
		why += "\n" + d
	}
	x.t.Fatalf("%s: the log holds neither what was durable nor what was in flight:%s", what, why)
	return nil, model{}
}

// stateDiffers: term and vote are the durable ones or newer ones that were on
// their way; the commit index may be any in between.
func (x *world) stateDiffers(hs HardState) string {
	old, next := x.durable.hs, x.inFlight.hs
	vote := hs.Term == old.Term && (hs.Vote == old.Vote || old.Vote == 0) || hs.Term > old.Term && hs.Term <= max(next.Term, x.now.hs.Term)
	if !vote || hs.Commit < min(old.Commit, next.Commit) || hs.Commit > max(old.Commit, next.Commit) {
		return fmt.Sprintf("hard state %+v, durable %+v, in flight %+v", hs, old, next)
	}
	return ""
}

// campaign multiplies the seeds of the random tests: WAL_CAMPAIGN=100 go test.
func campaign(t *testing.T, seeds uint64) uint64 {
	s := os.Getenv("WAL_CAMPAIGN")
	if s == "" {
		return seeds
	}
	factor, err := strconv.ParseUint(s, 10, 32)
	check(t, err)
	return seeds * factor
}

func TestRandomCallsAgainstModel(t *testing.T) {
	for seed := range campaign(t, 60) {
		x := newWorld(t, vfs.NewMem(seed), seed)
		check(t, x.create())
		for range 150 {
			check(t, x.step())
		}
		check(t, x.w.Close())
	}
}

// TestCrashAtEveryCall loses power before each file-system call of a random
// run, in several ways, and once more while the log recovers.
func TestCrashAtEveryCall(t *testing.T) {
	opened := 0
	for seed := range campaign(t, 12) {
		mem := vfs.NewMem(seed)
		fault := vfs.NewFault(mem)
		x := newWorld(t, fault, seed)
		rng := rand.New(rand.NewPCG(seed, 2))
		check(t, x.create())
		fault.SetRules(vfs.Rule{Hook: func(c vfs.Call) {
			for k := range 3 {
				disk := mem.CrashClone(rng)
				what := fmt.Sprintf("seed %d, crash %d before call %v", seed, k, c)
				w, _ := x.survives(crashInside(x, disk, rng, what), what)
				check(t, w.Close())
				opened++
			}
		}})
		for range 30 {
			check(t, x.step())
		}
	}
	t.Logf("%d recoveries", opened)
}

// crashInside loses power again at a random call of the recovery, up to three
// times, and returns the disk that is left.
func crashInside(x *world, disk *vfs.Mem, rng *rand.Rand, what string) *vfs.Mem {
	for depth := rng.IntN(4); depth > 0; depth-- {
		var left *vfs.Mem
		at := 1 + rng.IntN(40)
		fault := vfs.NewFault(disk, vfs.Rule{Nth: at, Hook: func(vfs.Call) { left = disk.CrashClone(rng) }})
		if w, _, err := Open(fault, testDir, testID, testOpt); err != nil {
			x.t.Fatalf("%s: open: %v", what, err)
		} else if left == nil {
			left = disk.CrashClone(rng)
		} else {
			check(x.t, w.Close())
		}
		disk = left
	}
	return disk
}

// TestCrashInsideCreate: a log exists wholly or not at all.
func TestCrashInsideCreate(t *testing.T) {
	mem := vfs.NewMem(1)
	rng := rand.New(rand.NewPCG(3, 3))
	crash := func(c vfs.Call) {
		for range 20 {
			disk := mem.CrashClone(rng)
			exists, err := Exists(disk, testDir)
			check(t, err)
			if !exists {
				w, err := Create(disk, testDir, testID, testOpt)
				check(t, err)
				check(t, w.Close())
			}
			w, r, err := Open(disk, testDir, testID, testOpt)
			if err != nil || r.Last != 0 || r.Start != (Position{}) || r.HardState != (HardState{}) {
				t.Fatalf("before %v: %+v, %v", c, r, err)
			}
			check(t, w.Close())
		}
	}
	w, err := Create(vfs.NewFault(mem, vfs.Rule{Hook: crash}), testDir, testID, testOpt)
	check(t, err)
	if _, err := Create(mem, testDir, testID, testOpt); !errors.Is(err, vfs.ErrExist) {
		t.Fatalf("second create: %v", err)
	}
	check(t, w.Close())
}
