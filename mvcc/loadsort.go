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

// lookAhead is how many records of a run are looked at together. They lie all over memory,
// and the processor waits for several as long as for one.
const lookAhead = 16

// mergeRun is what is left of a run.
type mergeRun struct {
	rest  []*item
	heads [lookAhead]uint64 // eight bytes of the keys of the next ones, some of them behind us
	at    int
}

// advance goes to the next record, and returns false if there is none.
func (r *mergeRun) advance(depth int) bool {
	r.rest, r.at = r.rest[1:], r.at+1
	if r.at == lookAhead {
		r.look(depth)
	}
	return len(r.rest) > 0
}

func (r *mergeRun) look(depth int) {
	r.at = 0
	for i, it := range r.rest[:min(lookAhead, len(r.rest))] {
		r.heads[i] = longHead(it.key, depth)
	}
}

// mergeTop is a run in the heap, with eight bytes of its first key at hand.
type mergeTop struct {
	head uint64
	run  *mergeRun
}

func (t *mergeTop) before(o *mergeTop) bool {
	return t.head < o.head || t.head == o.head && compareRecords(t.run.rest[0], o.run.rest[0]) < 0
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
	all := make([]mergeRun, len(runs))
	heap := make([]mergeTop, len(runs))
	for i, run := range runs {
		all[i].rest = run
		all[i].look(depth)
		heap[i] = mergeTop{all[i].heads[0], &all[i]}
	}
	for i := len(heap)/2 - 1; i >= 0; i-- {
		sink(heap, i)
	}
	for len(heap) > 0 {
		top := &heap[0]
		fn(top.run.rest[0])
		if top.run.advance(depth) {
			top.head = top.run.heads[top.run.at]
		} else {
			*top = heap[len(heap)-1]
			heap = heap[:len(heap)-1]
		}
		sink(heap, 0)
	}
}

// sink moves the run at i down to where no run below it comes before it.
func sink(heap []mergeTop, i int) {
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
