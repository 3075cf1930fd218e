package real

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// tag names a write of a load that is held: the writer and the write's number.
type tag uint64

func tagOf(writer, n int) tag { return tag(writer+1)<<40 | tag(n) }

func (t tag) writer() int { return int(t>>40) - 1 }
func (t tag) number() int { return int(t & (1<<40 - 1)) }

// tapeKeys is how many keys a writer has, which nobody else writes.
const tapeKeys = 50

func (t tag) key() string { return fmt.Sprintf("hold/%03d/%02d", t.writer(), t.number()%tapeKeys) }

// value of so many bytes that carries the tag in front.
func (t tag) value(size int) []byte {
	b := fmt.Appendf(nil, "%d ", uint64(t))
	return append(b, make([]byte, max(0, size-len(b)))...)
}

// tagOfValue finds the tag of a value; 0: there is none.
func tagOfValue(value []byte) tag {
	text, _, _ := strings.Cut(string(value[:min(len(value), 24)]), " ")
	n, _ := strconv.ParseUint(text, 10, 64) // none: 0
	return tag(n)
}

// tape judges a load of puts while it goes on, in 16 bytes a write, so that it may go
// on for hours: a history of that length would not fit into memory. Every revision is
// one put, so what watches and writers are told must be one sequence without a hole.
type tape struct {
	mu sync.Mutex

	told     []tag // by revision, as the first watch that came so far heard it
	acked    []tag // by revision, as writers were told
	refused  map[tag]bool
	seen     map[int][]uint64 // by writer: which of its writes a watch told of
	newest   int64            // revision that a writer was told
	findings []error
}

func newTape() *tape { return &tape{refused: map[tag]bool{}, seen: map[int][]uint64{}} }

// maxTapeFindings: the first ones tell the story.
const maxTapeFindings = 10

func (t *tape) find(format string, args ...any) {
	if len(t.findings) < maxTapeFindings {
		t.findings = append(t.findings, fmt.Errorf(format, args...))
	}
}

// placeIn is the place of a revision.
func placeIn(tape *[]tag, rev int64) *tag {
	for int64(len(*tape)) <= rev {
		*tape = append(*tape, make([]tag, max(1<<12, len(*tape)/4))...)
	}
	return &(*tape)[rev]
}

// event takes what a watch tells. last is the revision before it on that watch.
func (t *tape) event(by string, last, rev int64, what tag) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rev != last+1 {
		t.find("O3: the watch on %s told of revision %d after %d", by, rev, last)
	}
	switch is := placeIn(&t.told, rev); {
	case *is == what:
		return
	case *is != 0:
		t.find("O3: the watch on %s told of write %x at revision %d, another of %x", by, uint64(what), rev, uint64(*is))
		return
	default:
		*is = what
	}
	if t.twice(what) {
		t.find("O8: write %x is at revision %d, and at another", uint64(what), rev)
	}
}

// twice notes a write, and reports that it was noted before.
func (t *tape) twice(what tag) bool {
	n := what.number()
	bits := t.seen[what.writer()]
	for len(bits) <= n/64 {
		bits = append(bits, 0)
	}
	t.seen[what.writer()] = bits
	was := bits[n/64]&(1<<(n%64)) != 0
	bits[n/64] |= 1 << (n % 64)
	return was
}

// called returns what the answer to a write must come after.
func (t *tape) called() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.newest
}

// answered takes the acknowledgement of a write.
func (t *tape) answered(what tag, called, rev int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rev <= called {
		t.find("O1: write %x has revision %d, and %d had been acknowledged before it was asked for", uint64(what), rev, called)
	}
	if is := placeIn(&t.acked, rev); *is != 0 {
		t.find("O1: writes %x and %x were both acknowledged at revision %d", uint64(what), uint64(*is), rev)
	} else {
		*is = what
	}
	t.newest = max(t.newest, rev)
}

// refuses takes a write that had no effect.
func (t *tape) refuses(what tag) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused[what] = true
}

// cancelled takes the end of a watch that a member ended.
func (t *tape) cancelled(by string, last int64, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.find("O3: the watch on %s was cancelled after revision %d: %s", by, last, why)
}

// change is a write and its revision.
type change struct {
	what tag
	rev  int64
}

// keys is what the watches told of last, by key.
func (t *tape) keys() map[string]change {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[string]change{}
	for rev, what := range t.told {
		if what != 0 {
			out[what.key()] = change{what, int64(rev)}
		}
	}
	return out
}

// lost says which acknowledged writes the watches did not tell of at their revision,
// and which refused ones they did.
func (t *tape) lost() []error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for rev, what := range t.acked {
		if what != 0 && *placeIn(&t.told, int64(rev)) != what {
			t.find("O4: write %x was acknowledged at revision %d, where the log has %x", uint64(what), rev, uint64(t.told[rev]))
		}
	}
	for what := range t.refused {
		if t.twice(what) {
			t.find("O8: write %x was refused, and had its effect", uint64(what))
		}
	}
	return t.findings
}
