package mvcc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// The rolling hash is a chain over everything that was ever written: each
// record's checksum, which covers its revision, key and value, is mixed into
// the value of the records before. Two members whose values at a revision are
// equal agree on every revision up to it; where they first differ is found by
// halving. It costs an addition and a multiplication a record and is always on.
//
// Base is the revision at which a chain began, because the file came from
// another program: chains of different bases say nothing about each other.

// chainLength is how many revisions back the values are remembered: 8 bytes each.
const chainLength = 1 << 16

// metaChain holds the chain as of the state in the engine: base, revision and
// value, eight big-endian bytes each, then a CRC-32C of them.
var metaChain = []byte("keelson_rolling_hash")

const chainRowLen = 28

// RollingHash is the value of a chain at a revision.
type RollingHash struct {
	Base     api.Revision
	Revision api.Revision
	Value    uint64
}

// chain is the working end of the rolling hash, and its recent values.
type chain struct {
	base  api.Revision
	first api.Revision // oldest revision whose value is remembered
	value uint64       // of all records so far
	ring  []uint64     // value at revision r is at r modulo its length
}

func newChain(base, rev api.Revision, value uint64) chain {
	c := chain{base: base, first: rev, value: value, ring: make([]uint64, chainLength)}
	c.close(rev)
	return c
}

// add mixes a record's checksum in.
func (c *chain) add(sum uint32) {
	v := (c.value ^ uint64(sum)) * 0x9e3779b97f4a7c15
	c.value = v ^ v>>32
}

// close notes the value at the end of a revision.
func (c *chain) close(rev api.Revision) {
	c.ring[rev%chainLength] = c.value
	c.first = max(c.first, rev-chainLength+1)
}

// RollingHash returns the value at a revision, or at the newest one before it
// that this store has. It reports false when that is too long ago.
func (s *Store) RollingHash(at api.Revision) (RollingHash, bool) {
	exposed := s.Revision()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.mu.chain
	at = min(at, exposed)
	if at < c.first {
		return RollingHash{}, false
	}
	return RollingHash{Base: c.base, Revision: at, Value: c.ring[at%chainLength]}, true
}

// RollingHashFrom returns the oldest revision whose value is remembered.
func (s *Store) RollingHashFrom() api.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.chain.first
}

// putChain adds the chain's row to a batch.
func putChain(t *engine.Batch, base, rev api.Revision, value uint64) {
	b := make([]byte, 0, chainRowLen)
	b = binary.BigEndian.AppendUint64(b, uint64(base))
	b = binary.BigEndian.AppendUint64(b, uint64(rev))
	b = binary.BigEndian.AppendUint64(b, value)
	t.Put(engine.Meta, metaChain, binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)))
}

// readChain reads the chain of a store that stands at rev. A row of another
// revision was left behind by a program that does not know it.
func readChain(v engine.View, rev api.Revision) (chain, error) {
	b := v.Get(engine.Meta, metaChain)
	if b == nil {
		return newChain(rev, rev, 0), nil
	}
	if len(b) != chainRowLen || binary.BigEndian.Uint32(b[24:]) != crc32.Checksum(b[:24], castagnoli) {
		return chain{}, fmt.Errorf("%w: %s: %x", ErrCorrupt, metaChain, b)
	}
	if api.Revision(binary.BigEndian.Uint64(b[8:])) != rev {
		return newChain(rev, rev, 0), nil
	}
	return newChain(api.Revision(binary.BigEndian.Uint64(b)), rev, binary.BigEndian.Uint64(b[16:])), nil
}
