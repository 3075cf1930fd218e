package resource

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// FuzzChecksum joins the checksums of two texts.
func FuzzChecksum(f *testing.F) {
	f.Add([]byte("a list"), []byte(" of objects"))
	f.Add([]byte{}, make([]byte, 70000))
	f.Add([]byte{0}, []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		all := slices.Concat(a, b)
		got := sumOf(nil).then(sumOf(a)).then(sumOf(b))
		if got != sumOf(all) || got.crc != crc32.ChecksumIEEE(all) || int(got.bytes) != len(all) {
			t.Errorf("%d and %d bytes: %+v, want %+v", len(a), len(b), got, sumOf(all))
		}
	})
}

// library is a changing collection whose lists are compressed.
type library struct {
	t       *testing.T
	rng     *rand.Rand
	entries []*entry
	rev     int64
	kept    pieces
	now     time.Time
	pressed int // objects that were compressed
}

func (l *library) add(n int) {
	for range n {
		l.rev++
		key := fmt.Sprintf("default/pod-%08x", l.rng.Uint32())
		body := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q},"x":"%0*x"}`, key, 100+l.rng.IntN(6000), l.rng.Uint64())
		at, found := position(l.entries, key)
		if !found {
			l.entries = slices.Insert(l.entries, at, &entry{key: key, rev: l.rev, json: body, typeEnd: 1})
		}
	}
}

// list reads a list as a client does, and says how many objects were compressed.
func (l *library) list(form string) (pressed int) {
	l.t.Helper()
	var got, want bytes.Buffer
	out := newZipped(&got)
	head := []byte(form + "[")
	out.text(head, false)
	before := l.pressed
	for rest := l.entries; len(rest) > 0; {
		n := pieceOf(rest)
		out.piece(l.kept.get("/registry/pods/", form, rest[:n], l.now, func(entries []*entry) *piece {
			l.pressed += len(entries)
			return items{asKept: true}.press(entries)
		}))
		if rest = rest[n:]; len(rest) > 0 {
			out.text([]byte{','}, false)
		}
	}
	end := bytes.Repeat([]byte{']'}, 2*maxStored)
	out.end(end)
	want.Write(head)
	for i, e := range l.entries {
		if i > 0 {
			want.WriteByte(',')
		}
		want.Write(e.json)
	}
	want.Write(end)
	r, err := gzip.NewReader(&got)
	if err != nil {
		l.t.Fatal(err)
	}
	r.Multistream(false) // not every client reads on
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, want.Bytes()) {
		l.t.Fatalf("%d bytes of %d: %v", len(b), want.Len(), err)
	}
	if got.Len() > 0 {
		l.t.Fatalf("%d bytes follow the stream", got.Len())
	}
	return l.pressed - before
}

func newLibrary(t *testing.T) *library {
	return &library{t: t, rng: rand.New(rand.NewPCG(3, 14)), now: time.Unix(1000, 0)}
}

// TestListedAgain compresses what changed since the last list, with its neighbours.
func TestListedAgain(t *testing.T) {
	l := newLibrary(t)
	l.list("v1")
	l.add(500)
	n := len(l.entries)
	if got := l.list("v1"); got != n {
		t.Errorf("the first list compressed %d objects of %d", got, n)
	}
	if got := l.list("v1"); got != 0 {
		t.Errorf("the same list again: %d objects", got)
	}
	if got := l.list("v2"); got != n {
		t.Errorf("another form of it: %d objects of %d", got, n)
	}
	for range 8 {
		at := l.rng.IntN(n - 10)
		switch l.rng.IntN(3) {
		case 0:
			l.add(1)
		case 1:
			l.entries = slices.Delete(slices.Clone(l.entries), at, at+1)
		case 2:
			l.rev++
			e := *l.entries[at]
			e.rev, e.json = l.rev, append(slices.Clone(e.json), ' ')
			l.entries[at] = &e
		}
		if got := l.list("v1"); got > n/4 {
			t.Errorf("after one change: %d objects of %d", got, n)
		}
	}
}

// TestPiecesAreBounded drops what nobody lists, and never keeps more than the budget.
func TestPiecesAreBounded(t *testing.T) {
	l := newLibrary(t)
	l.add(100)
	l.list("v1")
	l.now = l.now.Add(pressLife)
	l.kept.expire(l.now)
	if got := l.list("v1"); got != 0 {
		t.Errorf("used a while ago: %d objects were compressed again", got)
	}
	l.kept.expire(l.now.Add(pressLife + 1))
	if len(l.kept.mu.kept) != 0 || l.kept.mu.bytes != 0 {
		t.Errorf("%d pieces of %d bytes outlive their use", len(l.kept.mu.kept), l.kept.mu.bytes)
	}
	big := func([]*entry) *piece { return &piece{zipped: make([]byte, pressBudget/4)} }
	for i := range 10 {
		l.kept.get("", fmt.Sprint(i), l.entries[:1], l.now, big)
	}
	if l.kept.mu.bytes > pressBudget || len(l.kept.mu.kept) != 3 {
		t.Errorf("%d pieces of %d bytes are kept", len(l.kept.mu.kept), l.kept.mu.bytes)
	}
}
