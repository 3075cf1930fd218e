package mvcc

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// sortEntry is a record with eight bytes of its key at hand, so that most
// comparisons do not touch the key.
type sortEntry struct {
	head uint64
	it   *item
}

// sortRecords sorts records, which come in the order of their revisions, by
// (key, revision): a quicksort that compares eight bytes of the keys at a time,
// going deeper only among records whose keys agree so far.
func sortRecords(records []*item) {
	if slices.IsSortedFunc(records, compareRecords) {
		return
	}
	entries := make([]sortEntry, len(records))
	for i, it := range records {
		entries[i].it = it
	}
	sortFrom(entries, 0)
	for i := range entries {
		records[i] = entries[i].it
	}
}

func compareRecords(a, b *item) int {
	if c := cmp.Compare(a.key, b.key); c != 0 {
		return c
	}
	if c := cmp.Compare(a.mod, b.mod); c != 0 {
		return c
	}
	return cmp.Compare(a.sub, b.sub)
}

// smallSort is up to how many entries are compared as a whole.
const smallSort = 24

// sortFrom sorts entries whose keys agree in the first depth bytes.
func sortFrom(e []sortEntry, depth int) {
	if len(e) <= smallSort {
		slices.SortFunc(e, func(a, b sortEntry) int { return compareRecords(a.it, b.it) })
		return
	}
	for i := range e {
		e[i].head = longHead(e[i].it.key, depth)
	}
	slices.SortFunc(e, func(a, b sortEntry) int { return cmp.Compare(a.head, b.head) })
	for i := 0; i < len(e); {
		j, ended := i+1, len(e[i].it.key) <= depth+8
		for j < len(e) && e[j].head == e[i].head {
			ended = ended || len(e[j].it.key) <= depth+8
			j++
		}
		switch {
		case j == i+1:
		case ended: // the eight bytes may be padding: "a" and "a\x00" look alike
			slices.SortFunc(e[i:j], func(a, b sortEntry) int { return compareRecords(a.it, b.it) })
		default:
			sortFrom(e[i:j], depth+8)
		}
		i = j
	}
}

// longHead returns eight bytes of key from depth on, padded with zeros.
func longHead(key string, depth int) uint64 {
	if len(key) >= depth+8 {
		return binary.BigEndian.Uint64(bytesOf(key[depth : depth+8]))
	}
	var b [8]byte
	if depth < len(key) {
		copy(b[:], key[depth:])
	}
	return binary.BigEndian.Uint64(b[:])
}
