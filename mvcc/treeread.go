package mvcc

// bounds is a range of keys: [from, to), or all from from on when open.
type bounds struct {
	from, to string
	open     bool
}

// boundsOf reads etcd's way of naming ranges: no end means the one key, the end
// "\x00" means all keys from key on, anything else is the first key beyond.
func boundsOf(key, end []byte) (b bounds, single bool) {
	switch {
	case len(end) == 0:
		return bounds{from: stringOf(key)}, true
	case len(end) == 1 && end[0] == 0:
		return bounds{from: stringOf(key), open: true}, false
	}
	return bounds{from: stringOf(key), to: stringOf(end)}, false
}

func (b bounds) empty() bool { return !b.open && b.from >= b.to }

// ascend calls fn for each item within the bounds, tombstones included, in order,
// until fn returns false.
func ascend(root node, b bounds, fn func(*item) bool) {
	visit(root, b, func(items []*item, _ *leaf) bool {
		for _, it := range items {
			if !fn(it) {
				return false
			}
		}
		return true
	})
}

// visit calls fn for each run of items within the bounds that lie side by side,
// in order, until fn returns false. The leaf is given when the run is all of it.
func visit(root node, b bounds, fn func(items []*item, whole *leaf) bool) {
	if !b.empty() {
		walk(root, b, true, fn)
	}
}

// walk visits what is within the bounds below at; trim says that from may cut
// into the node. It returns false when there is nothing more to visit.
func walk(at node, b bounds, trim bool, fn func(items []*item, whole *leaf) bool) bool {
	switch n := at.(type) {
	case *leaf:
		from, to := 0, int(n.n)
		if trim {
			from, _ = n.find(b.from)
		}
		if to > 0 && !b.open && n.items[to-1].key >= b.to {
			to, _ = n.find(b.to)
		}
		if from < to {
			whole := n
			if to-from < int(n.n) {
				whole = nil
			}
			return fn(n.items[from:to], whole) && to == int(n.n)
		}
		return to == int(n.n)
	case *inner:
		i := 0
		if trim {
			i = n.find(b.from)
		}
		for k := i; k < int(n.n); k++ {
			if k > i && !b.open && n.seps[k-1] >= b.to {
				return false
			}
			if !walk(n.kids[k], b, trim && k == i, fn) {
				return false
			}
		}
	}
	return true
}

// rank returns the number of live keys below key.
func rank(root node, key string) int {
	below := 0
	for {
		switch n := root.(type) {
		case *inner:
			i := n.find(key)
			for _, c := range n.live[:i] {
				below += int(c)
			}
			root = n.kids[i]
		case *leaf:
			i, _ := n.find(key)
			return below + n.liveBelow(i)
		}
	}
}

// countLive returns the number of live keys within the bounds.
func countLive(root node, b bounds) int {
	switch {
	case b.empty():
		return 0
	case b.open:
		return root.count() - rank(root, b.from)
	}
	return rank(root, b.to) - rank(root, b.from)
}
