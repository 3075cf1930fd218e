package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

const sector = vfs.SectorSize

// wire is a log on a disk whose every byte is known.
type wire struct {
	fs    *vfs.Mem
	w     *WAL
	files map[string][]byte // set by stop
	want  string            // content
}

// Logs that buildLog makes: one whose files are all new, and one whose last two lie
// over records of older segments.
const (
	newFiles  = 4
	overOlder = 6
)

// buildLog fills segments with batches of many shapes, and releases all but four.
func buildLog(t testing.TB, segments uint64) *wire {
	x := &wire{fs: vfs.NewMem(1)}
	x.w = create(t, x.fs)
	rng := rand.New(rand.NewPCG(9, 9))
	hs := HardState{Term: 1, Vote: 3}
	next := api.Index(1)
	for x.w.mu.table.active().number < segments {
		if segs := x.w.Segments(); len(segs) == newFiles {
			check(t, x.w.Release(segs[0].Last))
		}
		n := api.Index(rng.IntN(5))
		if rng.IntN(9) == 0 {
			hs.Term, hs.Vote = hs.Term+1, hs.Vote%3+1
		}
		if next-hs.Commit > 3 && rng.IntN(3) == 0 {
			next--
		}
		check(t, x.w.Append(&hs, entries(next, next+n, hs.Term, rng.IntN(700))))
		check(t, x.w.Sync())
		next += n + 1
		hs.Commit = next - 1 - api.Index(rng.IntN(int(min(next-1-hs.Commit, 3))+1))
	}
	if over := x.w.mu.table.active().older > 0; over != (segments > newFiles) {
		t.Fatalf("segment %d lies over an older one: %v", segments, over)
	}
	return x
}

// stop ends the process without Close and reads the disk.
func (x *wire) stop(t testing.TB) {
	x.want = content(x.w)
	x.files = map[string][]byte{}
	infos, err := x.fs.List(testDir)
	check(t, err)
	for _, info := range infos {
		f, err := x.fs.Open(path(testDir, info.Name))
		check(t, err)
		p := make([]byte, info.Size)
		_, err = f.ReadAt(p, 0)
		check(t, err)
		x.files[info.Name] = p
	}
}

// hurt returns a copy of the disk with other bytes in one place.
func (x *wire) hurt(t testing.TB, name string, off int64, p []byte) *vfs.Mem {
	disk := x.fs.DurableClone()
	check(t, disk.Damage(path(testDir, name), off, p))
	return disk
}

// spoilers are what media do to a sector.
func spoilers(x *wire, name string, off int64, rng *rand.Rand) map[string][]byte {
	file := x.files[name]
	old := file[off:min(off+sector, int64(len(file)))]
	flipped := bytes.Clone(old)
	flipped[rng.IntN(len(old))] ^= 1 << rng.IntN(8)
	random := make([]byte, len(old))
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	elsewhere := func(from []byte) []byte {
		at := rng.Int64N(int64(len(from))-int64(len(old))+1) &^ (sector - 1)
		return from[at:][:len(old)]
	}
	m := map[string][]byte{
		"zeroed": make([]byte, len(old)), "one bit": flipped, "random": random, "misdirected": elsewhere(file),
	}
	for other, from := range x.files {
		if other != name && len(from) >= len(old) {
			m["misdirected from "+other] = elsewhere(from)
			m["same place of "+other] = from[min(off, int64(len(from)-len(old)))&^(sector-1):][:len(old)]
		}
	}
	half := bytes.Clone(old) // a sector as it was before its second half was written
	clear(half[len(half)/2:])
	m["stale"] = half
	return m
}

// isLive reports whether p differs from old in bytes that must verify: the
// header and what is proven. Its copy, the proofs and the gaps between may go.
func (x *wire) isLive(name string, off, end, proven int64, old, p []byte) bool {
	for k := off; k < end; k++ {
		dead := k >= headerSize && k < recordsStart || k >= proven
		if !dead && old[k-off] != p[k-off] {
			return true
		}
	}
	return false
}

// TestEverySectorDamaged spoils each sector of a log in many ways. Whatever was
// proven durable is either all there or reported as damage; nothing else.
func TestEverySectorDamaged(t *testing.T) {
	for _, kind := range []struct {
		proof    string
		segments uint64
	}{{"mark", newFiles}, {"close", newFiles}, {"mark", overOlder}, {"close", overOlder}} {
		t.Run(fmt.Sprintf("%s/%d", kind.proof, kind.segments), func(t *testing.T) {
			x := buildLog(t, kind.segments)
			if kind.proof == "mark" {
				check(t, x.w.Mark())
				check(t, x.w.mu.table.active().file.Sync()) // so that the damage hits a disk at rest
				x.stop(t)
			} else {
				x.want = content(x.w)
				check(t, x.w.Close())
				want := x.want
				x.w.mu.closed = false // only to read the disk
				x.stop(t)
				x.want = want
			}
			proven := map[string]int64{}
			for _, s := range x.w.mu.table.segs {
				proven[s.name()] = s.end
			}
			proven[x.w.mu.table.active().name()] = x.w.synced
			x.damageEverySector(t, proven)
		})
	}
}

func (x *wire) damageEverySector(t *testing.T, proven map[string]int64) {
	rng := rand.New(rand.NewPCG(4, 4))
	detected, harmless := 0, 0
	for name, file := range x.files {
		for off := int64(0); off < int64(len(file)); off += sector {
			end := min(off+sector, int64(len(file)))
			for how, p := range spoilers(x, name, off, rng) {
				what := fmt.Sprintf("%s: sector at %d %s", name, off, how)
				live := x.isLive(name, off, end, proven[name], file[off:end], p)
				w, r, err := Open(x.hurt(t, name, off, p), testDir, testID, testOpt)
				var damage *DamageError
				switch {
				case errors.As(err, &damage):
					detected++
					if !live {
						t.Fatalf("%s: false alarm: %v", what, err)
					}
					if damage.File != name || damage.Offset >= end {
						t.Fatalf("%s: reported elsewhere: %v", what, err)
					}
					if r == nil || r.HardState.Term != x.w.mu.state.Term || r.HardState.Vote != x.w.mu.state.Vote {
						t.Fatalf("%s: vote lost: %+v, had %+v", what, r, x.w.mu.state)
					}
				case err != nil:
					t.Fatalf("%s: %v", what, err)
				case live:
					t.Fatalf("%s: not seen", what)
				default:
					harmless++
					if got := content(w); got != x.want {
						t.Fatalf("%s: silently accepted:\n%s\n%s", what, got, x.want)
					}
				}
			}
		}
	}
	t.Logf("%d detected, %d in dead space", detected, harmless)
}

// TestEverySectorOfUnprovenBatch spoils a log that a crash stopped right after
// a Sync. Only the last batch, which nothing proves, may go, and only as a
// whole; the vote in it stays all the same.
func TestEverySectorOfUnprovenBatch(t *testing.T) {
	for _, segments := range []uint64{newFiles, overOlder} {
		t.Run(fmt.Sprint(segments), func(t *testing.T) { spoilUnproven(t, buildLog(t, segments)) })
	}
}

func spoilUnproven(t *testing.T, x *wire) {
	before := x.w.Last()
	start := x.w.synced
	voted := HardState{Term: 90, Vote: 2, Commit: x.w.mu.state.Commit}
	check(t, x.w.Append(&voted, entries(before+1, before+3, 90, 900)))
	check(t, x.w.Sync())
	x.stop(t)
	name := x.w.mu.table.active().name()
	rng := rand.New(rand.NewPCG(4, 4))
	torn := 0
	for off := int64(0); off < int64(len(x.files[name])); off += sector {
		for how, p := range spoilers(x, name, off, rng) {
			what := fmt.Sprintf("sector at %d %s", off, how)
			w, r, err := Open(x.hurt(t, name, off, p), testDir, testID, testOpt)
			if damage := (*DamageError)(nil); errors.As(err, &damage) && off >= start && off < x.w.synced {
				t.Fatalf("%s: a torn tail was called damage: %v", what, err)
			}
			if r == nil || r.HardState.Term != 90 || r.HardState.Vote != 2 {
				t.Fatalf("%s: vote lost: %+v, %v", what, r, err)
			}
			if err != nil || content(w) == x.want {
				continue
			}
			torn++
			if w.Last() != before || off >= x.w.synced || off+sector <= start {
				t.Fatalf("%s: %+v", what, r)
			}
			if r.TornBytes == 0 && x.w.mu.table.active().older == 0 {
				t.Fatalf("%s: %+v", what, r)
			}
		}
	}
	if torn == 0 {
		t.Fatal("no sector of the batch mattered")
	}
}

// TestDeletedSegment: each file that is missing is missed, but the oldest one,
// whose absence is what Release leaves; Start tells then.
func TestDeletedSegment(t *testing.T) {
	x := buildLog(t, overOlder)
	check(t, x.w.Close())
	segs := x.w.mu.table.segs
	for k, s := range segs {
		disk := x.fs.Clone()
		check(t, disk.Remove(path(testDir, s.name())))
		w, _, err := Open(disk, testDir, testID, testOpt)
		if k == 0 {
			check(t, err)
			if w.Start().Index == 0 {
				t.Fatal("start does not show what is missing")
			}
			continue
		}
		damage, last := (*DamageError)(nil), k == len(segs)-1
		if !errors.As(err, &damage) || !last && damage.File != s.name() {
			t.Fatalf("without %s: %v", s.name(), err)
		}
	}
}

// TestShortenedFile cuts the newest and an older segment at many places.
func TestShortenedFile(t *testing.T) {
	x := buildLog(t, overOlder)
	check(t, x.w.Close())
	segs := x.w.mu.table.segs
	for _, s := range []*segment{segs[1], segs[len(segs)-1]} {
		info, err := x.fs.Stat(path(testDir, s.name()))
		check(t, err)
		for size := int64(0); size < info.Size; size += 61 {
			disk := x.fs.DurableClone()
			f, err := disk.Open(path(testDir, s.name()))
			check(t, err)
			check(t, f.Truncate(size))
			if _, _, err := Open(disk, testDir, testID, testOpt); !errors.As(err, new(*DamageError)) {
				t.Fatalf("%s cut to %d of %d bytes: %v", s.name(), size, info.Size, err)
			}
		}
	}
}

// TestDamageAfterOpen: a reader finds what the disk lost since.
func TestDamageAfterOpen(t *testing.T) {
	x := buildLog(t, newFiles)
	s := x.w.mu.table.segs[1]
	check(t, x.fs.Damage(path(testDir, s.name()), s.offset(s.first)+headSize, []byte{0xff}))
	if _, err := x.w.Entries(s.first, s.first+1, 1); !errors.As(err, new(*DamageError)) {
		t.Fatal(err)
	}
}

// TestCommitBeyondLast: a log that ends before what it says was committed has
// lost entries, whatever else is in order.
func TestCommitBeyondLast(t *testing.T) {
	fs := vfs.NewMem(1)
	w := create(t, fs)
	check(t, w.Append(&HardState{Term: 1}, entries(1, 3, 1, 10)))
	w.mu.state.Commit = 4 // as no Append allows
	check(t, w.Sync())
	if _, _, err := Open(fs, testDir, testID, testOpt); !errors.As(err, new(*DamageError)) {
		t.Fatal(err)
	}
}

// TestReplace: a damaged log gives way to a new one, at every crash.
func TestReplace(t *testing.T) {
	x := buildLog(t, newFiles)
	check(t, x.w.Close())
	old := x.w.mu.table.segs
	for _, s := range old[1:3] { // one unreadable, one with a hole
		check(t, x.fs.Damage(path(testDir, s.name()), 0, make([]byte, recordsStart+int64(s.number%2)*sector)))
	}
	check(t, x.fs.SyncDir(testDir))
	_, r, err := Open(x.fs, testDir, testID, testOpt)
	var damage *DamageError
	if !errors.As(err, &damage) {
		t.Fatal(err)
	}
	start, want := Position{500, r.HardState.Term}, r.HardState
	want.Commit = start.Index
	disk := x.fs.Clone()
	rng := rand.New(rand.NewPCG(6, 6))
	replaced := 0
	isNew := func(fs *vfs.Mem, what string) bool {
		w, r, err := Open(fs, testDir, testID, testOpt)
		if errors.As(err, &damage) {
			return false
		}
		if err != nil || r.Start != start || r.Last != start.Index || r.HardState != want {
			t.Fatalf("%s: %+v, %v", what, r, err)
		}
		check(t, w.Close())
		return true
	}
	fault := vfs.NewFault(disk, vfs.Rule{Hook: func(c vfs.Call) {
		for range 10 {
			if isNew(disk.CrashClone(rng), "before "+c.String()) {
				replaced++
			}
		}
	}})
	earlier := path(testDir, segmentName(1<<40)+damagedSuffix)
	aside, err := disk.Create(earlier)
	check(t, errors.Join(err, aside.Close()))
	w, err := Replace(fault, testDir, testID, r.HardState, start, testOpt)
	check(t, err)
	if _, err := disk.Stat(earlier); err == nil {
		t.Fatal("what was damaged at an earlier time is kept for ever")
	}
	check(t, w.Append(nil, entries(501, 502, start.Term, 10)))
	if replaced == 0 {
		t.Fatal("no crash came after the commit point")
	}
	if !isNew(disk.CrashClone(rng), "at the end") {
		t.Fatal("still damaged")
	}
	if info, err := disk.Stat(path(testDir, old[1].name()+damagedSuffix)); err != nil || info.Size == 0 {
		t.Fatal("the damaged files are gone", err)
	}
}
