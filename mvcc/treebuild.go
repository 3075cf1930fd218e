package mvcc

// buildTree makes a tree of items, which rise by key, with full nodes.
func buildTree(items []*item) *tree {
	t := newTree()
	t.items = len(items)
	if len(items) == 0 {
		return t
	}
	var level []node
	var firsts []string // smallest key below each node of the level
	for rest := items; len(rest) > 0; {
		l := &leaf{epoch: t.epoch}
		l.n = int32(copy(l.items[:], rest))
		l.refresh()
		level, firsts = append(level, l), append(firsts, rest[0].key)
		rest = rest[l.n:]
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
