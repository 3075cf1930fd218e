package mvcc

// remove takes key out, for compaction, and returns its item.
func (t *tree) remove(key string) *item {
	if get(t.root, key) == nil {
		return nil
	}
	root, old := t.cut(t.root, key)
	for {
		n, ok := root.(*inner)
		if !ok || n.n > 1 {
			break
		}
		if n.n == 0 {
			root = &leaf{epoch: t.epoch}
			break
		}
		root = n.kids[0]
	}
	t.root = root
	t.items--
	return old
}

func (t *tree) cut(at node, key string) (node, *item) {
	switch n := at.(type) {
	case *leaf:
		n = n.own(t.epoch)
		i, _ := n.find(key)
		old := n.items[i]
		n.remove(i)
		return n, old
	case *inner:
		n = n.own(t.epoch)
		i := n.find(key)
		kid, old := t.cut(n.kids[i], key)
		n.kids[i] = kid
		n.live[i] -= liveOf(old)
		t.shrink(n, i)
		return n, old
	}
	panic("mvcc: unknown node")
}

// shrink removes kid i when it is empty and joins it with a neighbour when both
// are small, so that deletes do not leave a tree of crumbs.
func (t *tree) shrink(n *inner, i int) {
	if n.kids[i].size() == 0 {
		n.removeKid(i) // n may be empty now: its parent removes it
		return
	}
	if i > 0 && t.join(n, i-1) {
		return
	}
	if i+1 < int(n.n) {
		t.join(n, i)
	}
}

// join moves the entries of kid i+1 to kid i if they take half a node at most.
func (t *tree) join(n *inner, i int) bool {
	switch a := n.kids[i].(type) {
	case *leaf:
		b := n.kids[i+1].(*leaf)
		if a.n+b.n > leafCap/2 {
			return false
		}
		a = a.own(t.epoch)
		copy(a.items[a.n:], b.items[:b.n])
		a.n += b.n
		a.refresh()
		n.kids[i], n.live[i] = a, a.live
	case *inner:
		b := n.kids[i+1].(*inner)
		if a.n+b.n > innerCap/2 {
			return false
		}
		a = a.own(t.epoch)
		copy(a.kids[a.n:], b.kids[:b.n])
		copy(a.live[a.n:], b.live[:b.n])
		copy(a.seps[a.n:], b.seps[:b.n-1])
		a.seps[a.n-1] = n.seps[i]
		a.n += b.n
		a.reindex()
		n.kids[i], n.live[i] = a, int32(a.count())
	}
	n.removeKid(i + 1)
	return true
}
