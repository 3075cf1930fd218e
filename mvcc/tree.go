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

	// Where seek has been, for place.
	path  []step
	leaf  *leaf
	pos   int
	found bool
}

// step is one inner node on the way to a key and the kid taken.
type step struct {
	n *inner
	i int
}

// Sizes: a leaf takes 512 bytes and an inner node 704, which are classes of
// Go's allocator. Every write copies one node of each level, so wide nodes are
// no gain.
const (
	leafCap  = 40
	innerCap = 16
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
	skip  int32 // see heads
	heads [leafCap]uint32
	items [leafCap]*item
}

type inner struct {
	epoch uint64
	n     int32
	skip  int32 // see heads
	heads [innerCap - 1]uint32
	live  [innerCap]int32
	kids  [innerCap]node
	seps  [innerCap - 1]string
}

func newTree() *tree { return &tree{root: &leaf{epoch: 1}, epoch: 1} }

// freeze returns the root as it is now; later changes leave it alone.
func (t *tree) freeze() node {
	t.epoch++
	t.path, t.leaf = t.path[:0], nil
	return t.root
}

// get returns the item of key below root, tombstone or not, or nil.
func get(root node, key string) *item {
	for {
		switch n := root.(type) {
		case *inner:
			root = n.kids[n.find(key)]
		case *leaf:
			if i, ok := n.find(key); ok {
				return n.items[i]
			}
			return nil
		}
	}
}

// seek goes to the place of key, making the nodes on the way the writer's own,
// and returns the item there, or nil. place must follow.
func (t *tree) seek(key string) *item {
	t.path = t.path[:0]
	slot := &t.root
	for {
		switch n := (*slot).(type) {
		case *inner:
			if n.epoch != t.epoch {
				n = n.own(t.epoch)
				*slot = n
			}
			i := n.find(key)
			t.path = append(t.path, step{n, i})
			slot = &n.kids[i]
		case *leaf:
			if n.epoch != t.epoch {
				n = n.own(t.epoch)
				*slot = n
			}
			t.leaf = n
			if t.pos, t.found = n.find(key); t.found {
				return n.items[t.pos]
			}
			return nil
		}
	}
}

// place puts the item where seek, called with its key just before, has been.
func (t *tree) place(it *item) {
	l, delta := t.leaf, liveOf(it)
	switch {
	case t.found:
		delta -= liveOf(l.items[t.pos])
		l.items[t.pos] = it
		l.live += delta
	case l.n < leafCap:
		t.items++
		l.insert(t.pos, it)
	default:
		t.items++
		right := l.split(t.pos, it)
		t.grow(l, right, right.items[0].key, delta)
		return
	}
	for _, s := range t.path {
		s.n.live[s.i] += delta
	}
}

// set puts it in the place of its key.
func (t *tree) set(it *item) {
	t.seek(it.key)
	t.place(it)
}

// grow adds right, whose keys are at least sep, beside left, the last node of
// the path. delta is by how much the live keys of both have grown.
func (t *tree) grow(left, right node, sep string, delta int32) {
	for k := len(t.path) - 1; k >= 0; k-- {
		s := t.path[k]
		s.n.live[s.i] = int32(left.count())
		if s.n.n < innerCap {
			s.n.insertKid(s.i+1, right, sep)
			for _, up := range t.path[:k] {
				up.n.live[up.i] += delta
			}
			return
		}
		left = s.n
		right, sep = s.n.split(s.i+1, right, sep)
	}
	n := &inner{epoch: t.epoch, n: 2}
	n.kids[0], n.kids[1], n.seps[0] = left, right, sep
	n.live[0], n.live[1] = int32(left.count()), int32(right.count())
	n.reindex()
	t.root = n
}

func liveOf(it *item) int32 {
	if it == nil || it.tomb {
		return 0
	}
	return 1
}
