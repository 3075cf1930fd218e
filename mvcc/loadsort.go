package mvcc

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// The records of a store come as sorted runs, one for each piece that was read, and
// are merged for one range of keys after the other.

// splitKeys returns n+1 keys that bound ranges with about as many records each. The
// first is "", and "" after the first is no bound.
func splitKeys(runs [][]*item, n int) []string {
	var sample []string
	for _, run := range runs {
		for i := range n {
			sample = append(sample, run[i*len(run)/n].key)
		}
	}
	slices.Sort(sample)
	bounds := make([]string, n+1)
	for i := 1; i < n && len(sample) > 0; i++ {
		bounds[i] = sample[i*len(sample)/n]
	}
	return bounds
}

// cutRuns returns the part of each run that lies in range n of the bounds.
func cutRuns(runs [][]*item, bounds []string, n int) [][]*item {
	low, high := bounds[n], bounds[n+1]
	var parts [][]*item
	for _, run := range runs {
		from, to := place(run, low), len(run)
		if high != "" {
			to = place(run, high)
		}
		if from < to {
			parts = append(parts, run[from:to])
		}
	}
	return parts
}

// place returns the place of the first record whose key is not before key.
func place(run []*item, key string) int {
	at, _ := slices.BinarySearchFunc(run, key, func(it *item, key string) int { return cmp.Compare(it.key, key) })
	return at
}

// mergeRun is what is left of a run, with eight bytes of its first key at hand.
type mergeRun struct {
	head uint64
	rest []*item
}

func (r *mergeRun) before(o *mergeRun) bool {
	return r.head < o.head || r.head == o.head && compareRecords(r.rest[0], o.rest[0]) < 0
}

// merge calls fn with the records of all runs, in order of key and revision.
func merge(runs [][]*item, fn func(*item)) {
	if len(runs) == 0 {
		return
	}
	// All keys agree in as many bytes as the smallest and the greatest do.
	low, high := runs[0][0].key, runs[0][0].key
	for _, run := range runs {
		low, high = min(low, run[0].key), max(high, run[len(run)-1].key)
	}
	depth := int(common(low, high))
	heap := make([]mergeRun, len(runs))
	for i, run := range runs {
		heap[i] = mergeRun{longHead(run[0].key, depth), run}
	}
	for i := len(heap)/2 - 1; i >= 0; i-- {
		sink(heap, i)
	}
	for len(heap) > 0 {
		top := &heap[0]
		fn(top.rest[0])
		if top.rest = top.rest[1:]; len(top.rest) > 0 {
			top.head = longHead(top.rest[0].key, depth)
		} else {
			*top = heap[len(heap)-1]
			heap = heap[:len(heap)-1]
		}
		sink(heap, 0)
	}
}

// sink moves the run at i down to where no run below it comes before it.
func sink(heap []mergeRun, i int) {
	for {
		least := 2*i + 1
		if least >= len(heap) {
			return
		}
		if right := least + 1; right < len(heap) && heap[right].before(&heap[least]) {
			least = right
		}
		if !heap[least].before(&heap[i]) {
			return
		}
		heap[i], heap[least] = heap[least], heap[i]
		i = least
	}
}

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
