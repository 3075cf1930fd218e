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
	if !b.empty() {
		walk(root, b, true, fn)
	}
}

// walk visits what is within the bounds below at; trim says that from may cut
// into the node. It returns false when there is nothing more to visit.
func walk(at node, b bounds, trim bool, fn func(*item) bool) bool {
	switch n := at.(type) {
	case *leaf:
		i := 0
		if trim {
			i, _ = n.find(b.from)
		}
		end, beyond := int(n.n), false
		if !b.open && end > 0 && n.items[end-1].key >= b.to { // else the whole leaf is within
			end, _ = n.find(b.to)
			beyond = true
		}
		for _, it := range n.items[min(i, end):end] {
			if !fn(it) {
				return false
			}
		}
		return !beyond
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
