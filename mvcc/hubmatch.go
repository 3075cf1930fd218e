package mvcc

// span is a set of keys: the one key start, all keys of [start, end), or, when
// open, all keys from start on.
type span struct {
	start, end string
	open       bool
}

// newSpan reads etcd's convention: an empty end is the single key, the end
// "\x00" is everything from key on.
func newSpan(key, end []byte) span {
	switch {
	case len(end) == 0:
		return span{start: string(key)}
	case len(end) == 1 && end[0] == 0:
		return span{start: string(key), open: true}
	}
	return span{start: string(key), end: string(end)}
}

func (s span) single() bool { return s.end == "" && !s.open }
func (s span) empty() bool  { return s.end != "" && s.start >= s.end }

func (s span) contains(key []byte) bool {
	switch {
	case s.single():
		return string(key) == s.start
	case string(key) < s.start:
		return false
	}
	return s.open || string(key) < s.end
}

// matcher finds the values whose span contains a key: single keys by hash,
// ranges in an interval tree. It is not safe for concurrent use.
type matcher[T comparable] struct {
	keys map[string][]T
	root *interval[T]
	seed uint64
}

// interval is a node of a treap ordered by (start, end, open). top is the
// largest end in its subtree, so that a search skips what ends too early.
type interval[T comparable] struct {
	span
	values      []T
	priority    uint64
	left, right *interval[T]
	top         span // only end and open count
}

func (m *matcher[T]) add(s span, v T) {
	if s.single() {
		if m.keys == nil {
			m.keys = make(map[string][]T)
		}
		m.keys[s.start] = append(m.keys[s.start], v)
		return
	}
	if n := m.root.find(s); n != nil {
		n.values = append(n.values, v)
		return
	}
	// The priorities only need to be spread out; the sequence of splitmix is.
	m.seed += 0x9e3779b97f4a7c15
	z := (m.seed ^ (m.seed >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	n := &interval[T]{span: s, values: []T{v}, priority: z ^ (z >> 31)}
	n.update()
	less, more := m.root.split(s)
	m.root = join(join(less, n), more)
}

func (m *matcher[T]) remove(s span, v T) {
	if s.single() {
		if rest := without(m.keys[s.start], v); len(rest) > 0 {
			m.keys[s.start] = rest
		} else {
			delete(m.keys, s.start)
		}
		return
	}
	if n := m.root.find(s); n != nil {
		if n.values = without(n.values, v); len(n.values) == 0 {
			m.root = m.root.drop(s)
		}
	}
}

// match appends to dst the values whose span contains key, each once.
func (m *matcher[T]) match(key []byte, dst []T) []T {
	dst = append(dst, m.keys[string(key)]...)
	return m.root.stab(key, dst)
}

// without returns a copy of list without v.
func without[T comparable](list []T, v T) []T {
	rest := make([]T, 0, len(list))
	for _, x := range list {
		if x != v {
			rest = append(rest, x)
		}
	}
	return rest
}

// before orders spans; endsAfter compares their ends alone.
func (s span) before(o span) bool {
	if s.start != o.start {
		return s.start < o.start
	}
	if s.open != o.open {
		return o.open
	}
	return s.end < o.end
}

func (s span) endsAfter(o span) bool {
	if s.open || o.open {
		return s.open && !o.open
	}
	return s.end > o.end
}

func (n *interval[T]) update() {
	n.top = n.span
	if n.left != nil && n.left.top.endsAfter(n.top) {
		n.top = n.left.top
	}
	if n.right != nil && n.right.top.endsAfter(n.top) {
		n.top = n.right.top
	}
}

func (n *interval[T]) find(s span) *interval[T] {
	for n != nil && n.span != s {
		if s.before(n.span) {
			n = n.left
		} else {
			n = n.right
		}
	}
	return n
}

// split parts the tree into the nodes before s and those after it.
func (n *interval[T]) split(s span) (less, more *interval[T]) {
	if n == nil {
		return nil, nil
	}
	if n.before(s) {
		n.right, more = n.right.split(s)
		n.update()
		return n, more
	}
	less, n.left = n.left.split(s)
	n.update()
	return less, n
}

// join puts two trees together; all of a is before all of b.
func join[T comparable](a, b *interval[T]) *interval[T] {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		a.right = join(a.right, b)
		a.update()
		return a
	}
	b.left = join(a, b.left)
	b.update()
	return b
}

func (n *interval[T]) drop(s span) *interval[T] {
	switch {
	case n == nil:
		return nil
	case n.span == s:
		return join(n.left, n.right)
	case s.before(n.span):
		n.left = n.left.drop(s)
	default:
		n.right = n.right.drop(s)
	}
	n.update()
	return n
}

func (n *interval[T]) stab(key []byte, dst []T) []T {
	for n != nil {
		if !n.top.open && string(key) >= n.top.end {
			return dst // all of this subtree ends at or before key
		}
		dst = n.left.stab(key, dst)
		if string(key) < n.start {
			return dst // so does everything to the right
		}
		if n.contains(key) {
			dst = append(dst, n.values...)
		}
		n = n.right
	}
	return dst
}
