package mvcc

import "encoding/binary"

// The nodes of the tree. A search in a node reads heads, four bytes of each key
// behind the skip bytes in which all its keys agree; they lie side by side, so
// that few keys themselves, scattered over memory, have to be touched.

// head returns four bytes of key behind skip, padded with zeros. Heads never
// contradict the order of the keys; equal heads say nothing.
func head(key string, skip int) uint32 {
	if len(key) >= skip+4 {
		return binary.BigEndian.Uint32(bytesOf(key[skip : skip+4]))
	}
	var b [4]byte
	if skip < len(key) {
		copy(b[:], key[skip:])
	}
	return binary.BigEndian.Uint32(b[:])
}

// common returns how many leading bytes two keys share.
func common(a, b string) int32 {
	n := min(len(a), len(b), 1<<30)
	for i := range n {
		if a[i] != b[i] {
			return int32(i)
		}
	}
	return int32(n)
}

// narrow returns where key may be among the keys of a node: those before lo are
// smaller, those from hi on are greater. first is any of them.
func narrow(key, first string, skip int, heads []uint32) (lo, hi int) {
	prefix := first[:skip]
	if len(key) < skip || key[:skip] != prefix {
		if key < prefix {
			return 0, 0
		}
		return len(heads), len(heads)
	}
	h := head(key, skip)
	lo = below(heads, h)
	hi = lo
	for hi < len(heads) && heads[hi] == h {
		hi++
	}
	return lo, hi
}

// below returns how many heads are smaller than h.
func below(heads []uint32, h uint32) int {
	lo, hi := 0, len(heads)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if heads[mid] < h {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (l *leaf) count() int { return int(l.live) }
func (l *leaf) size() int  { return int(l.n) }

// find returns the place of key, or where it would be.
func (l *leaf) find(key string) (int, bool) {
	if l.n == 0 {
		return 0, false
	}
	// Most keys that are looked for are there: their own item alone is touched.
	if skip := int(l.skip); len(key) >= skip {
		h := head(key, skip)
		for i := below(l.heads[:l.n], h); i < int(l.n) && l.heads[i] == h; i++ {
			if l.items[i].key == key {
				return i, true
			}
		}
	}
	lo, hi := narrow(key, l.items[0].key, int(l.skip), l.heads[:l.n])
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch k := l.items[mid].key; {
		case k == key:
			return mid, true
		case k < key:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

func (l *leaf) own(epoch uint64) *leaf {
	if l.epoch == epoch {
		return l
	}
	c := *l
	c.epoch = epoch
	return &c
}

func (l *leaf) insert(i int, it *item) {
	copy(l.items[i+1:l.n+1], l.items[i:l.n])
	copy(l.heads[i+1:l.n+1], l.heads[i:l.n])
	l.items[i] = it
	l.n++
	l.live += liveOf(it)
	other := 0
	if i == 0 {
		other = 1
	}
	if skip := int(l.skip); l.n > 1 && len(it.key) >= skip && it.key[:skip] == l.items[other].key[:skip] {
		l.heads[i] = head(it.key, skip)
		return
	}
	l.reindex()
}

// split moves the upper part to a new leaf and adds it at i, in either.
func (l *leaf) split(i int, it *item) *leaf {
	// Keys that arrive in order leave full leaves behind.
	cut := leafCap / 2
	if i == leafCap {
		cut = leafCap
	}
	right := &leaf{epoch: l.epoch, n: int32(leafCap - cut)}
	copy(right.items[:], l.items[cut:])
	l.truncate(cut)
	l.refresh()
	right.refresh()
	if i > cut || i == leafCap {
		right.insert(i-cut, it)
	} else {
		l.insert(i, it)
	}
	return right
}

func (l *leaf) remove(i int) {
	l.live -= liveOf(l.items[i])
	copy(l.items[i:], l.items[i+1:l.n])
	copy(l.heads[i:], l.heads[i+1:l.n])
	l.truncate(int(l.n) - 1)
}

func (l *leaf) truncate(n int) {
	clear(l.items[n:])
	l.n = int32(n)
}

// refresh computes from the items what the leaf says about them.
func (l *leaf) refresh() {
	l.live = 0
	for _, it := range l.items[:l.n] {
		l.live += liveOf(it)
	}
	l.reindex()
}

func (l *leaf) reindex() {
	if l.n == 0 {
		return
	}
	l.skip = common(l.items[0].key, l.items[l.n-1].key)
	for i, it := range l.items[:l.n] {
		l.heads[i] = head(it.key, int(l.skip))
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
	if n.n == 1 {
		return 0
	}
	lo, hi := narrow(key, n.seps[0], int(n.skip), n.heads[:n.n-1])
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

// insertKid adds kid i, whose keys are at least sep; i is not 0.
func (n *inner) insertKid(i int, kid node, sep string) {
	copy(n.kids[i+1:n.n+1], n.kids[i:n.n])
	copy(n.live[i+1:n.n+1], n.live[i:n.n])
	copy(n.seps[i:n.n], n.seps[i-1:n.n-1])
	n.kids[i], n.live[i], n.seps[i-1] = kid, int32(kid.count()), sep
	n.n++
	n.reindex()
}

// split moves the upper part to a new node and adds kid i, in either. It
// returns the new node and the smallest key below it.
func (n *inner) split(i int, kid node, sep string) (*inner, string) {
	cut := innerCap / 2
	if i == innerCap {
		cut = innerCap - 1 // keys arrive in order
	}
	right := &inner{epoch: n.epoch, n: int32(innerCap - cut)}
	copy(right.kids[:], n.kids[cut:])
	copy(right.seps[:], n.seps[cut:])
	copy(right.live[:], n.live[cut:])
	between := n.seps[cut-1]
	n.truncate(cut)
	n.reindex()
	right.reindex()
	if i > cut {
		right.insertKid(i-cut, kid, sep)
	} else {
		n.insertKid(i, kid, sep)
	}
	return right, between
}

func (n *inner) removeKid(i int) {
	copy(n.kids[i:], n.kids[i+1:n.n])
	copy(n.live[i:], n.live[i+1:n.n])
	if n.n > 1 {
		s := max(i-1, 0)
		copy(n.seps[s:], n.seps[s+1:n.n-1])
	}
	n.truncate(int(n.n) - 1)
	n.reindex()
}

func (n *inner) truncate(size int) {
	clear(n.kids[size:])
	clear(n.live[size:])
	clear(n.seps[max(size-1, 0):])
	n.n = int32(size)
}

func (n *inner) reindex() {
	if n.n < 2 {
		return
	}
	seps := n.seps[:n.n-1]
	n.skip = common(seps[0], seps[len(seps)-1])
	for i, s := range seps {
		n.heads[i] = head(s, int(n.skip))
	}
}
