package mvcc

// tree is the index: an ordered, copy-on-write B+tree of items by key, counted
// so that the live keys of a range are known in O(log n).
//
// The writer owns a tree. A root that it has handed out (freeze) never changes:
// every node carries the epoch in which it was made, and a node of an earlier
// epoch is copied before it is changed. Readers use the root alone.
//
// Invariants: items rise by key; keys below kids[i] < seps[i] <= keys below
// kids[i+1]; live[i] is the number of items below kids[i] that are no
// tombstones; all leaves are at one depth; no node is empty but a root leaf.
type tree struct {
	root  node
	epoch uint64
	items int // with tombstones
}

// Sizes chosen so that nodes fill Go's allocation classes: a leaf takes 512
// bytes, an inner node 1,152.
const (
	leafCap  = 62
	innerCap = 32
)

type node interface {
	// count returns the live keys below the node.
	count() int
	// size returns the entries of the node itself.
	size() int
}

type leaf struct {
	epoch uint64
	n     int32
	live  int32
	items [leafCap]*item
}

type inner struct {
	epoch uint64
	n     int32
	kids  [innerCap]node
	seps  [innerCap - 1]string
	live  [innerCap]int32
}

func newTree() *tree { return &tree{root: &leaf{epoch: 1}, epoch: 1} }

// freeze returns the root as it is now; later changes leave it alone.
func (t *tree) freeze() node {
	t.epoch++
	return t.root
}

func (l *leaf) count() int { return int(l.live) }
func (l *leaf) size() int  { return int(l.n) }

// find returns the first position whose key is not below key.
func (l *leaf) find(key string) int {
	lo, hi := 0, int(l.n)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if l.items[mid].key < key {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (l *leaf) own(epoch uint64) *leaf {
	if l.epoch == epoch {
		return l
	}
	c := *l
	c.epoch = epoch
	return &c
}

func (n *inner) size() int { return int(n.n) }

func (n *inner) count() int {
	sum := 0
	for _, c := range n.live[:n.n] {
		sum += int(c)
	}
	return sum
}

// find returns the kid under which key belongs.
func (n *inner) find(key string) int {
	lo, hi := 0, int(n.n)-1
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if n.seps[mid] <= key {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (n *inner) own(epoch uint64) *inner {
	if n.epoch == epoch {
		return n
	}
	c := *n
	c.epoch = epoch
	return &c
}

func liveOf(it *item) int32 {
	if it == nil || it.tomb {
		return 0
	}
	return 1
}

// get returns the item of key below root, tombstone or not, or nil.
func get(root node, key string) *item {
	for {
		switch n := root.(type) {
		case *inner:
			root = n.kids[n.find(key)]
		case *leaf:
			if i := n.find(key); i < int(n.n) && n.items[i].key == key {
				return n.items[i]
			}
			return nil
		}
	}
}

// set puts it in the place of its key and returns what was there.
func (t *tree) set(it *item) (old *item) {
	r := t.put(t.root, it)
	t.root = r.node
	if r.split != nil {
		n := &inner{epoch: t.epoch, n: 2}
		n.kids[0], n.kids[1], n.seps[0] = r.node, r.split, r.sep
		n.live[0], n.live[1] = int32(r.node.count()), int32(r.split.count())
		t.root = n
	}
	if r.old == nil {
		t.items++
	}
	return r.old
}

// placed is what put did below a node.
type placed struct {
	node  node   // in place of the node
	split node   // a new right neighbour, or nil
	sep   string // between the two
	old   *item
}

func (t *tree) put(at node, it *item) placed {
	switch n := at.(type) {
	case *leaf:
		return n.own(t.epoch).put(it)
	case *inner:
		n = n.own(t.epoch)
		i := n.find(it.key)
		r := t.put(n.kids[i], it)
		n.kids[i] = r.node
		if r.split == nil {
			n.live[i] += liveOf(it) - liveOf(r.old)
			return placed{node: n, old: r.old}
		}
		n.live[i] = int32(r.node.count())
		return n.insert(i+1, r)
	}
	panic("mvcc: unknown node")
}

func (l *leaf) put(it *item) placed {
	i := l.find(it.key)
	if i < int(l.n) && l.items[i].key == it.key {
		old := l.items[i]
		l.items[i] = it
		l.live += liveOf(it) - liveOf(old)
		return placed{node: l, old: old}
	}
	if l.n < leafCap {
		l.insert(i, it)
		return placed{node: l}
	}
	// Keys that arrive in order leave full leaves behind.
	cut := leafCap / 2
	if i == leafCap {
		cut = leafCap
	}
	right := &leaf{epoch: l.epoch, n: int32(leafCap - cut)}
	copy(right.items[:], l.items[cut:])
	clear(l.items[cut:])
	l.n = int32(cut)
	l.recount()
	right.recount()
	if i > cut || i == leafCap {
		right.insert(i-cut, it)
	} else {
		l.insert(i, it)
	}
	return placed{node: l, split: right, sep: right.items[0].key}
}

func (l *leaf) insert(i int, it *item) {
	copy(l.items[i+1:l.n+1], l.items[i:l.n])
	l.items[i] = it
	l.n++
	l.live += liveOf(it)
}

func (l *leaf) recount() {
	l.live = 0
	for _, it := range l.items[:l.n] {
		l.live += liveOf(it)
	}
}

// liveBelow returns the live keys before position i.
func (l *leaf) liveBelow(i int) int {
	if l.live == l.n {
		return i
	}
	live := 0
	for _, it := range l.items[:i] {
		live += int(liveOf(it))
	}
	return live
}

// insert adds r.split as kid i, splitting the node when it is full.
func (n *inner) insert(i int, r placed) placed {
	if n.n < innerCap {
		n.insertKid(i, r.split, r.sep)
		return placed{node: n, old: r.old}
	}
	cut := innerCap / 2
	if i == innerCap {
		cut = innerCap - 1
	}
	right := &inner{epoch: n.epoch, n: int32(innerCap - cut)}
	copy(right.kids[:], n.kids[cut:])
	copy(right.seps[:], n.seps[cut:])
	copy(right.live[:], n.live[cut:])
	sep := n.seps[cut-1]
	n.truncate(cut)
	if i > cut {
		right.insertKid(i-cut, r.split, r.sep)
	} else {
		n.insertKid(i, r.split, r.sep)
	}
	return placed{node: n, split: right, sep: sep, old: r.old}
}

func (n *inner) insertKid(i int, kid node, sep string) {
	copy(n.kids[i+1:n.n+1], n.kids[i:n.n])
	copy(n.live[i+1:n.n+1], n.live[i:n.n])
	copy(n.seps[i:n.n], n.seps[i-1:n.n-1])
	n.kids[i], n.live[i], n.seps[i-1] = kid, int32(kid.count()), sep
	n.n++
}

func (n *inner) removeKid(i int) {
	copy(n.kids[i:], n.kids[i+1:n.n])
	copy(n.live[i:], n.live[i+1:n.n])
	if n.n > 1 {
		s := max(i-1, 0)
		copy(n.seps[s:], n.seps[s+1:n.n-1])
	}
	n.truncate(int(n.n) - 1)
}

func (n *inner) truncate(size int) {
	clear(n.kids[size:])
	clear(n.live[size:])
	clear(n.seps[max(size-1, 0):])
	n.n = int32(size)
}
