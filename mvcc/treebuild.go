package mvcc

// leafRow makes full leaves of items that are added in the order of their keys.
type leafRow struct {
	leaves []*leaf
	items  int
}

func (r *leafRow) add(it *item) {
	if n := len(r.leaves); n == 0 || r.leaves[n-1].n == leafCap {
		r.finish()
		r.leaves = append(r.leaves, &leaf{epoch: 1})
	}
	l := r.leaves[len(r.leaves)-1]
	l.items[l.n] = it
	l.n++
	r.items++
}

// finish must follow the last add.
func (r *leafRow) finish() {
	if n := len(r.leaves); n > 0 {
		r.leaves[n-1].refresh()
	}
}

// joinRows makes a tree of rows that follow each other.
func joinRows(rows []leafRow) *tree {
	t := newTree()
	var level []node
	var firsts []string // smallest key below each node of the level
	for _, r := range rows {
		t.items += r.items
		for _, l := range r.leaves {
			level, firsts = append(level, l), append(firsts, l.items[0].key)
		}
	}
	if len(level) == 0 {
		return t
	}
	for len(level) > 1 {
		var up []node
		var upFirsts []string
		for i := 0; i < len(level); {
			n := &inner{epoch: t.epoch}
			n.n = int32(copy(n.kids[:], level[i:]))
			copy(n.seps[:], firsts[i+1:i+int(n.n)])
			for k := range n.n {
				n.live[k] = int32(n.kids[k].count())
			}
			n.reindex()
			up, upFirsts = append(up, n), append(upFirsts, firsts[i])
			i += int(n.n)
		}
		level, firsts = up, upFirsts
	}
	t.root = level[0]
	return t
}
