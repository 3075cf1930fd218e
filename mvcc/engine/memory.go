package engine

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"sort"
	"sync"
)

// Memory is the engine of simulation and tests. A crash keeps exactly the
// state after some successful Commit, as bbolt's does: Crash returns it.
type Memory struct {
	mu struct {
		sync.Mutex
		state  *memoryState
		failed error
		closed bool
	}
	// FailCommit, if set, is asked before each Commit: a non-nil error fails it,
	// and apply tells whether the batch reached the disk all the same.
	FailCommit func(t *Batch) (apply bool, err error)
}

// memoryState is one committed state; it is never changed once published.
type memoryState struct {
	buckets map[Bucket][]pair // sorted by key
	size    int64
}

type pair struct{ key, value []byte }

// NewMemory returns an empty engine.
func NewMemory() *Memory {
	m := &Memory{}
	m.mu.state = &memoryState{buckets: map[Bucket][]pair{}}
	return m
}

// Damage flips a bit of one stored value, as a disk does that lies. pick chooses
// below n. It reports whether there was a value to hurt.
func (m *Memory) Damage(b Bucket, pick func(n int) int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.mu.state
	if len(old.buckets[b]) == 0 {
		return false
	}
	next := &memoryState{buckets: maps.Clone(old.buckets), size: old.size}
	pairs := slices.Clone(old.buckets[b])
	p := &pairs[pick(len(pairs))]
	if len(p.value) == 0 {
		return false
	}
	p.value = bytes.Clone(p.value)
	p.value[pick(len(p.value))] ^= 1 << pick(8)
	next.buckets[b] = pairs
	m.mu.state = next
	return true
}

// Crash returns a new engine holding what is durable in this one, which must
// not be used any more.
func (m *Memory) Crash() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.closed = true
	n := &Memory{FailCommit: m.FailCommit}
	n.mu.state = m.mu.state
	return n
}

// View returns the state after the last successful Commit.
func (m *Memory) View() (View, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return nil, ErrClosed
	}
	return m.mu.state, nil
}

// Commit applies the batch atomically.
func (m *Memory) Commit(t *Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.mu.closed:
		return ErrClosed
	case m.mu.failed != nil:
		return m.mu.failed
	}
	if m.FailCommit != nil {
		apply, err := m.FailCommit(t)
		if err != nil {
			if apply {
				m.mu.state = m.mu.state.with(t.Ops)
			}
			m.mu.failed = err
			return err
		}
	}
	m.mu.state = m.mu.state.with(t.Ops)
	return nil
}

// with returns the state that the operations make of s.
func (s *memoryState) with(ops []Op) *memoryState {
	last := map[Bucket]map[string]Op{}
	for _, op := range ops {
		if last[op.Bucket] == nil {
			last[op.Bucket] = map[string]Op{}
		}
		last[op.Bucket][string(op.Key)] = op
	}
	n := &memoryState{buckets: map[Bucket][]pair{}}
	for b, pairs := range s.buckets {
		n.buckets[b] = pairs
	}
	for b, changed := range last {
		n.buckets[b] = merge(n.buckets[b], changed)
	}
	for _, pairs := range n.buckets {
		for _, p := range pairs {
			n.size += int64(len(p.key) + len(p.value))
		}
	}
	return n
}

// merge returns the sorted pairs of old with the changes applied.
func merge(old []pair, changed map[string]Op) []pair {
	keys := make([]string, 0, len(changed))
	for k := range changed {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	out := make([]pair, 0, len(old)+len(keys))
	i := 0
	for _, k := range keys {
		for i < len(old) && string(old[i].key) < k {
			out = append(out, old[i])
			i++
		}
		if i < len(old) && string(old[i].key) == k {
			i++
		}
		if v := changed[k].Value; v != nil {
			out = append(out, pair{[]byte(k), v})
		}
	}
	return append(out, old[i:]...)
}

// Rewrite has nothing to do: memory keeps no free pages.
func (m *Memory) Rewrite(rest func() error) error {
	if rest == nil {
		return nil
	}
	return rest()
}

// Discard has nothing to do either.
func (m *Memory) Discard(func() error) error { return nil }

// Stats reports the bytes of keys and values.
func (m *Memory) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Stats{Allocated: m.mu.state.size, InUse: m.mu.state.size}
}

// Close ends the engine; its content can still be had by Crash.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.closed = true
	return nil
}

func (s *memoryState) find(b Bucket, key []byte) (int, bool) {
	pairs := s.buckets[b]
	i := sort.Search(len(pairs), func(i int) bool { return bytes.Compare(pairs[i].key, key) >= 0 })
	return i, i < len(pairs) && bytes.Equal(pairs[i].key, key)
}

// Get implements View.
func (s *memoryState) Get(b Bucket, key []byte) []byte {
	if i, ok := s.find(b, key); ok {
		return s.buckets[b][i].value
	}
	return nil
}

// Scan implements View.
func (s *memoryState) Scan(b Bucket, from, to []byte, fn func(key, value []byte) bool) {
	i, _ := s.find(b, from)
	for _, p := range s.buckets[b][i:] {
		if to != nil && bytes.Compare(p.key, to) >= 0 {
			return
		}
		if !fn(p.key, p.value) {
			return
		}
	}
}

// Cursor implements View.
func (s *memoryState) Cursor(b Bucket) Cursor { return &memoryCursor{s: s, bucket: b} }

// Size implements View.
func (s *memoryState) Size() int64 { return s.size }

// Release implements View.
func (s *memoryState) Release() {}

type memoryCursor struct {
	s      *memoryState
	bucket Bucket
	at     int
}

func (c *memoryCursor) Seek(key []byte) (k, v []byte) {
	c.at, _ = c.s.find(c.bucket, key)
	return c.here()
}

func (c *memoryCursor) Last() (k, v []byte) {
	c.at = max(0, len(c.s.buckets[c.bucket])-1)
	return c.here()
}

func (c *memoryCursor) Next() (k, v []byte) {
	c.at++
	return c.here()
}

func (c *memoryCursor) here() (k, v []byte) {
	pairs := c.s.buckets[c.bucket]
	if c.at >= len(pairs) {
		return nil, nil
	}
	return pairs[c.at].key, pairs[c.at].value
}

// The memory engine's own dump: magic, then (bucket, key, value) triples, each
// part behind its uvarint length, an empty bucket name, and the CRC-32C of all.
const memoryMagic = "keelson-memory\n"

// maxDumpPart bounds a length read from a dump; values are far smaller.
const maxDumpPart = 64 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WriteTo implements View.
func (s *memoryState) WriteTo(w io.Writer) (int64, error) {
	var out bytes.Buffer
	out.WriteString(memoryMagic)
	part := func(p []byte) {
		out.Write(binary.AppendUvarint(nil, uint64(len(p))))
		out.Write(p)
	}
	for _, b := range Buckets {
		for _, p := range s.buckets[b] {
			part([]byte(b))
			part(p.key)
			part(p.value)
		}
	}
	part(nil)
	out.Write(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(out.Bytes(), castagnoli)))
	n, err := w.Write(out.Bytes())
	return int64(n), err
}

// ErrBadDump is returned for a dump that is not whole.
var ErrBadDump = errors.New("engine: bad memory dump")

// LoadMemory returns an engine with the content that a memory view wrote.
func LoadMemory(r io.Reader) (*Memory, error) {
	sum := crc32.New(castagnoli)
	in := &summed{r: bufio.NewReader(r), sum: sum}
	magic := make([]byte, len(memoryMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != memoryMagic {
		return nil, ErrBadDump
	}
	var ops []Op
	for {
		b, err := in.part()
		if err != nil {
			return nil, err
		}
		if len(b) == 0 {
			break
		}
		k, err := in.part()
		if err != nil {
			return nil, err
		}
		v, err := in.part()
		if err != nil {
			return nil, err
		}
		ops = append(ops, Op{Bucket: Bucket(b), Key: k, Value: v})
	}
	want := sum.Sum32()
	var tail [4]byte
	if _, err := io.ReadFull(in.r, tail[:]); err != nil || binary.LittleEndian.Uint32(tail[:]) != want {
		return nil, ErrBadDump
	}
	m := NewMemory()
	m.mu.state = m.mu.state.with(ops)
	return m, nil
}

// summed reads and checksums at once.
type summed struct {
	r   *bufio.Reader
	sum io.Writer
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	return n, err
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.sum.Write([]byte{b})
	}
	return b, err
}

func (s *summed) part() ([]byte, error) {
	n, err := binary.ReadUvarint(s)
	if err != nil || n > maxDumpPart {
		return nil, ErrBadDump
	}
	var p bytes.Buffer // grows with what is really there, not with what n claims
	if got, err := io.CopyN(&p, s, int64(n)); err != nil || got != int64(n) {
		return nil, fmt.Errorf("%w: %d of %d bytes", ErrBadDump, got, n)
	}
	return slices.Clip(append([]byte{}, p.Bytes()...)), nil
}
