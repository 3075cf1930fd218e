package oracle

import (
	"slices"
	"sort"
	"strings"
)

// names are strings in order, in blocks, so that one more costs little among many.
type names struct{ blocks [][]string }

const nameBlock = 512

// add puts in a name that is not there.
func (n *names) add(name string) {
	if len(n.blocks) == 0 {
		n.blocks = [][]string{{name}}
		return
	}
	b := max(0, n.after(name)-1)
	i, _ := slices.BinarySearch(n.blocks[b], name)
	block := slices.Insert(n.blocks[b], i, name)
	n.blocks[b] = block
	if len(block) >= 2*nameBlock {
		n.blocks[b] = block[:nameBlock:nameBlock]
		n.blocks = slices.Insert(n.blocks, b+1, slices.Clone(block[nameBlock:]))
	}
}

// after is the first block whose names are all greater.
func (n *names) after(name string) int {
	return sort.Search(len(n.blocks), func(i int) bool { return n.blocks[i][0] > name })
}

// from calls f with the names at or after one, in order, until f says no.
func (n *names) from(name string, f func(string) bool) {
	for b := max(0, n.after(name)-1); b < len(n.blocks); b++ {
		i := 0
		if strings.Compare(n.blocks[b][0], name) < 0 {
			i, _ = slices.BinarySearch(n.blocks[b], name)
		}
		for _, x := range n.blocks[b][i:] {
			if !f(x) {
				return
			}
		}
	}
}
