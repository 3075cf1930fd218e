package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/keelson-io/keelson/raft/vfs"
)

// tornWrite is a log before and after one batch was written.
type tornWrite struct {
	disk          *vfs.Mem // before
	name          string
	off           int64
	older         bool   // records of an older segment stand at off
	old           []byte // what stands there
	write         []byte // the bytes of the batch
	before, after string
	vote          HardState
}

func newTornWrite(t testing.TB, segments uint64, cut, vote bool) *tornWrite {
	x := buildLog(t, segments)
	check(t, x.w.Release(x.w.mu.state.Commit)) // a small log is tried faster
	for restOfBlock(x.w.synced) > 500 {        // so that the batch goes beyond what was cleared ahead of it
		hs := x.w.mu.state
		check(t, x.w.Append(&hs, entries(x.w.Last()+1, x.w.Last()+1, hs.Term, 150)))
		check(t, x.w.Sync())
	}
	check(t, x.w.Mark())
	check(t, x.w.mu.table.active().file.Sync())
	s := x.w.mu.table.active()
	c := &tornWrite{disk: x.fs.DurableClone(), name: path(testDir, s.name()), off: x.w.mu.batch.base, before: content(x.w)}
	hs := x.w.mu.state
	if vote {
		hs.Term, hs.Vote = hs.Term+1, 1
	}
	first := x.w.Last() + 1
	if cut {
		first = hs.Commit + 1
	}
	check(t, x.w.Append(&hs, entries(first, first+4, hs.Term, 150)))
	check(t, x.w.Sync())
	if x.w.mu.table.active() != s {
		t.Fatal("the batch went into the next segment")
	}
	c.write = make([]byte, x.w.synced-c.off)
	_, err := s.file.ReadAt(c.write, c.off)
	check(t, err)
	c.old, c.older = make([]byte, len(c.write)), s.older > x.w.synced
	f, err := c.disk.Open(c.name)
	check(t, err)
	_, err = f.ReadAt(c.old, c.off)
	check(t, errors.Join(err, f.Close()))
	if zero := len(bytes.Trim(c.old, "\x00")) == 0; zero == c.older {
		t.Fatalf("there are records of an older segment: %v, zeros: %v", c.older, zero)
	}
	c.after, c.vote = content(x.w), hs
	return c
}

// left checks what recovery makes of a disk on which only part of the write
// arrived: the bytes of p, which differ from those of the write or do not.
func (c *tornWrite) left(t testing.TB, what string, p []byte) {
	t.Helper()
	disk := c.disk.DurableClone()
	check(t, disk.Damage(c.name, c.off, p))
	w, r, err := Open(disk, testDir, testID, testOpt)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	got, complete := content(w), bytes.Equal(p[:len(c.write)], c.write)
	if complete {
		if got != c.after {
			t.Fatalf("%s: a complete write was lost:\n%s", what, got)
		}
		return
	}
	// What lies over an older segment's records cannot always be told from them.
	nothing, end := bytes.Equal(p, c.old), len(c.write)-footerSize
	told := !c.older || bytes.Equal(p[end:len(c.write)], c.write[end:])
	if torn := r.TornBytes > 0; torn == nothing && (torn || told) {
		t.Fatalf("%s: torn %d bytes, nothing arrived: %v", what, r.TornBytes, nothing)
	}
	r.HardState.Term, r.HardState.Vote = c.vote.Term, c.vote.Vote // either may show
	w.mu.state.Term, w.mu.state.Vote = 0, 0
	if got := content(w); got != withoutVote(c.before) {
		t.Fatalf("%s: part of a torn write shows:\n%s\n%s", what, got, c.before)
	}
}

// withoutVote blanks term and vote, which a torn batch may hand over.
func withoutVote(s string) string {
	var index, term, hsTerm, vote, commit uint64
	var rest string
	fmt.Sscanf(s, "start=%d/%d hs={Term:%d Vote:%x Commit:%d}", &index, &term, &hsTerm, &vote, &commit)
	if i := bytes.IndexByte([]byte(s), '}'); i >= 0 {
		rest = s[i+1:]
	}
	return fmt.Sprintf("start=%d/%d hs={Term:0 Vote:0 Commit:%d}%s", index, term, commit, rest)
}

// TestEveryCutPoint stops a batch's write after each byte, from the front and
// from the back.
func TestEveryCutPoint(t *testing.T) {
	for k := range 8 {
		kind := struct{ older, cut, vote bool }{k&4 > 0, k&2 > 0, k&1 > 0}
		segments := uint64(newFiles)
		if kind.older {
			segments = overOlder
		}
		c := newTornWrite(t, segments, kind.cut, kind.vote)
		for k := 0; k <= len(c.write); k++ {
			if kind.vote && k%7 > 0 && len(c.write)-k > 600 {
				continue // a batch with a vote is 4 KiB longer, of zeros
			}
			p := bytes.Clone(c.old)
			copy(p, c.write[:k])
			c.left(t, fmt.Sprintf("%+v: first %d of %d bytes", kind, k, len(p)), p)
			copy(p, c.old)
			copy(p[k:], c.write[k:])
			c.left(t, fmt.Sprintf("%+v: all but the first %d of %d bytes", kind, k, len(p)), p)
		}
	}
}

// TestEverySectorSubset keeps random sets of sectors, and puts garbage, old
// records of the same log among it, in place of the others.
func TestEverySectorSubset(t *testing.T) {
	for _, segments := range []uint64{newFiles, overOlder} {
		t.Run(fmt.Sprint(segments), func(t *testing.T) { tearSectors(t, newTornWrite(t, segments, true, true)) })
	}
}

func tearSectors(t *testing.T, c *tornWrite) {
	rng := rand.New(rand.NewPCG(5, 5))
	f, err := c.disk.Open(c.name)
	check(t, err)
	info, err := c.disk.Stat(c.name)
	check(t, err)
	whole := make([]byte, info.Size)
	_, err = f.ReadAt(whole, 0)
	check(t, err)
	for round := range 2000 {
		p := make([]byte, len(c.write))
		for at := 0; at < len(p); {
			end := min(len(p), at+sector-int(c.off+int64(at))%sector)
			switch rng.IntN(4) {
			case 0: // not written
				copy(p[at:end], c.old[at:])
			case 1: // a block that the file system gave back
				for k := at; k < end; k++ {
					p[k] = byte(rng.Uint32())
				}
			case 2: // records from elsewhere in this very segment
				from := rng.IntN(len(whole) - sector)
				copy(p[at:end], whole[from:])
			default:
				copy(p[at:end], c.write[at:end])
			}
			at = end
		}
		c.left(t, fmt.Sprintf("round %d", round), p)
	}
}
