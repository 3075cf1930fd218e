package wal

import (
	"bytes"
	"errors"
	"testing"

	"github.com/keelson-io/keelson/raft/vfs"
)

func sampleRecord() []byte {
	return appendRecord(nil, head{kind: kindEntry, typ: 1, a: 7, b: 3}, []byte("some value"), 42, 640)
}

// TestEveryBitOfRecord: no single flipped bit, no other place and no other
// segment passes.
func TestEveryBitOfRecord(t *testing.T) {
	p := sampleRecord()
	if h, body, ok := decodeRecord(p, 42, 640); !ok || h.a != 7 || h.b != 3 || h.typ != 1 || string(body) != "some value" {
		t.Fatal(h, body, ok)
	}
	for bit := range len(p) * 8 {
		hurt := bytes.Clone(p)
		hurt[bit/8] ^= 1 << (bit % 8)
		if _, _, ok := decodeRecord(hurt, 42, 640); ok {
			t.Fatalf("bit %d is not covered", bit)
		}
	}
	for off := int64(0); off < 1<<16; off += alignment {
		if _, _, ok := decodeRecord(p, 42, off); ok != (off == 640) {
			t.Fatalf("at %d: %v", off, ok)
		}
	}
	if _, _, ok := decodeRecord(p, 43, 640); ok {
		t.Fatal("another segment's seed passes")
	}
}

func TestEveryBitOfHeader(t *testing.T) {
	h := header{reset: true, id: testID, number: 5, salt: 6, sequence: 7, size: 1 << 20, prevEnd: 99, position: Position{8, 9}, proven: 1 << 14}
	p := h.encode()
	if got, err := decodeHeader(p); err != nil || got != h {
		t.Fatal(got, err)
	}
	for bit := range len(p) * 8 {
		hurt := bytes.Clone(p)
		hurt[bit/8] ^= 1 << (bit % 8)
		if _, err := decodeHeader(hurt); err == nil {
			t.Fatalf("bit %d is not covered", bit)
		}
	}
}

func TestSegmentNames(t *testing.T) {
	for name, want := range map[string]uint64{
		"0000000000000001.wal": 1, "00000000000000ff.wal": 255, "ffffffffffffffff.wal": 1<<64 - 1,
		"0000000000000000.wal": 0, "00000000000000FF.wal": 0, "1.wal": 0, "0000000000000001.wal.new": 0,
		"+000000000000001.wal": 0, "0000000000000001.log": 0, "": 0,
	} {
		if n, ok := parseSegmentName(name); n*boolToInt(ok) != want {
			t.Fatalf("%q: %d, %v", name, n, ok)
		}
	}
}

func boolToInt(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(sampleRecord(), uint32(42), int64(640))
	f.Add([]byte{}, uint32(0), int64(0))
	f.Fuzz(func(t *testing.T, p []byte, seed uint32, off int64) {
		off &= 1<<35 - alignment
		h, body, ok := decodeRecord(p, seed, off)
		if !ok {
			return
		}
		again := appendRecord(nil, head{kind: h.kind, typ: h.typ, a: h.a, b: h.b}, body, seed, off)
		if !bytes.Equal(again, p[:h.size()]) {
			t.Fatalf("decodes, but encodes otherwise:\n%x\n%x", p, again)
		}
		decodeFooter(body)
	})
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(header{number: 1, size: 1 << 20, proven: 8496}.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := decodeHeader(p)
		if err == nil && h.proven > h.size {
			t.Fatalf("%+v", h)
		}
	})
}

// FuzzOpen damages a whole log at one place in any way. Open must find the
// content whole, or the unproven last batch gone, or report damage. Only damage of
// the last footer, which is the proof of the batch before, may take that, too.
func FuzzOpen(f *testing.F) {
	x := &wire{fs: vfs.NewMem(1)}
	x.w = create(f, x.fs)
	check(f, x.w.Append(&HardState{Term: 1, Vote: 2}, entries(1, 4, 1, 100)))
	check(f, x.w.Sync())
	first := content(x.w)
	check(f, x.w.Append(&HardState{Term: 1, Vote: 2, Commit: 3}, entries(5, 6, 1, 100)))
	check(f, x.w.Sync())
	shorter, proven := content(x.w), int(x.w.synced)
	check(f, x.w.Append(nil, entries(7, 8, 1, 100)))
	check(f, x.w.Sync())
	proof := int(x.w.synced) - footerSize
	x.stop(f)
	name := x.w.mu.table.active().name()
	f.Add(uint32(0), []byte{0})
	f.Add(uint32(8496), sampleRecord())
	f.Add(uint32(x.w.synced), bytes.Repeat([]byte{0x57, 0x4c, 1, 0}, 40))
	f.Fuzz(func(t *testing.T, off uint32, p []byte) {
		size := uint32(len(x.files[name]))
		off %= size
		w, _, err := Open(x.hurt(t, name, int64(off), p[:min(len(p), int(size-off))]), testDir, testID, testOpt)
		if errors.As(err, new(*DamageError)) || errors.Is(err, ErrFormat) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		both := int(off) < proven && int(off)+len(p) > proof
		if got := content(w); got != x.want && got != shorter && !(got == first && both) {
			t.Fatalf("silently accepted:\n%s\n%s\n%s", got, x.want, shorter)
		}
	})
}
