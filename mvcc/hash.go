package mvcc

import (
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"sort"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// KVHash is etcd's hash of the history up to a revision: a CRC-32C of the name
// of bucket "key" and of its pairs, as etcd would store them, in order. What
// compaction at Compact gave up and Revision does not need is left out, so that
// it does not matter whether it has been deleted yet.
type KVHash struct {
	Hash     uint32
	Compact  api.Revision // -1 when never compacted
	Revision api.Revision
}

// maxCompactionHashes is how many hashes of compactions are remembered, as in etcd.
const maxCompactionHashes = 10

// hashPortion is how many records are hashed before the hash looks up whether
// it is still wanted.
const hashPortion = 4096

// HashKV returns the hash of the history up to revision at (0: the latest) and
// the store's revision. The hash of a revision at which a compaction was hashed
// is the one from then. Any goroutine; it reads the whole history up to at.
func (s *Store) HashKV(ctx context.Context, at api.Revision) (KVHash, api.Revision, error) {
	if h, ok := s.hashes.find(at); ok {
		return h, s.Revision(), nil
	}
	st, err := s.indexed()
	if err != nil {
		return KVHash{}, 0, err
	}
	defer st.view.release()
	switch {
	case at > 0 && at < st.compact:
		return KVHash{}, st.rev, ErrCompacted
	case at > st.rev:
		return KVHash{}, st.rev, ErrFutureRevision
	case at == 0:
		at = st.rev
	}
	scan := newHashScan(st, st.compact, at)
	for done := false; !done; {
		if err := ctx.Err(); err != nil {
			return KVHash{}, st.rev, err
		}
		if done, err = scan.step(hashPortion); err != nil {
			return KVHash{}, st.rev, err
		}
	}
	return scan.result(), st.rev, nil
}

// CompactionHashes returns the hashes of the last compactions, oldest first.
// There are none unless Config.HashCompactions is set.
func (s *Store) CompactionHashes() []KVHash { return s.hashes.list() }

// hashScan computes a KVHash in portions. The state's view must be held.
type hashScan struct {
	st      *state
	compact api.Revision
	rev     api.Revision
	// keep lists, in order, the records up to compact that are needed: those of
	// the keys that are live at rev.
	keep []revision
	sum  uint32
	from []byte // the first stored key that is not hashed yet
}

func newHashScan(st *state, compact, rev api.Revision) *hashScan {
	h := &hashScan{st: st, compact: compact, rev: rev, from: mainKey(0), sum: crc32.Update(0, castagnoli, []byte(engine.Key))}
	live := h.collect(rev)
	if live == 0 {
		// etcd leaves nothing out when no key is live; what is then stored is what
		// the compaction kept.
		h.collect(compact)
	}
	slices.SortFunc(h.keep, func(a, b revision) int {
		if a.before(b) {
			return -1
		}
		return 1 // no two are equal
	})
	return h
}

// collect fills keep with the records of the keys that are live at a revision,
// and returns how many keys are.
func (h *hashScan) collect(at api.Revision) (live int) {
	ascend(h.st.root, bounds{open: true}, func(it *item) bool {
		if r, ok := it.at(at); ok && !r.tomb {
			live++
			if r.main <= h.compact {
				h.keep = append(h.keep, r)
			}
		}
		return true
	})
	return live
}

// step hashes up to n records and reports whether that was all.
func (h *hashScan) step(n int) (done bool, err error) {
	v := h.st.view
	c := v.Cursor(engine.Key)
	end := mainKey(min(h.rev, v.rev) + 1)
	k, value := c.Seek(h.from)
	for ; k != nil && string(k) < string(end); k, value = c.Next() {
		if n--; n < 0 {
			h.from = append(h.from[:0], k...)
			return false, nil
		}
		rev, err := parseRevision(k)
		if err != nil {
			return false, err
		}
		rec, err := v.verify(k, value)
		if err != nil {
			return false, err
		}
		if err := h.add(rev, k, rec); err != nil {
			return false, err
		}
	}
	var key [tombstoneKeyLen]byte
	h.st.tail.scan(v.rev+1, h.rev, func(rev revision, data []byte) bool {
		err = h.add(rev, rev.appendTo(key[:0]), trimTrailer(data))
		return err == nil
	})
	return true, err
}

// add hashes one record unless it is left out. Records come in order.
func (h *hashScan) add(rev revision, key []byte, rec Record) error {
	if rev.main <= h.compact {
		for len(h.keep) > 0 && h.keep[0].before(rev) {
			h.keep = h.keep[1:]
		}
		if len(h.keep) == 0 || rev.before(h.keep[0]) {
			return nil // superseded, or a tombstone
		}
	}
	rec, err := hashedRecord(rev, rec)
	if err != nil {
		return err
	}
	h.sum = crc32.Update(crc32.Update(h.sum, castagnoli, key), castagnoli, rec)
	return nil
}

func (h *hashScan) result() KVHash { return KVHash{Hash: h.sum, Compact: h.compact, Revision: h.rev} }

// hashedRecord is the record as etcd stores it: its tombstones hold the key alone.
func hashedRecord(rev revision, rec Record) (Record, error) {
	if !rev.tomb {
		return rec, nil
	}
	num, typ, n := protowire.ConsumeTag(rec)
	if n < 0 || num != fieldKey || typ != protowire.BytesType {
		return nil, fmt.Errorf("%w: tombstone %d.%d does not begin with its key", ErrCorrupt, rev.main, rev.sub)
	}
	_, m := protowire.ConsumeBytes(rec[n:])
	if m < 0 {
		return nil, fmt.Errorf("%w: tombstone %d.%d", ErrCorrupt, rev.main, rev.sub)
	}
	return rec[:n+m], nil
}

// Hash returns a CRC-32C over all buckets and the store's revision, as etcd's
// Hash does: names in order, each with its pairs. What may differ between equal
// members is left out: where the state stands in the log, and the marks of
// physical work. Records are hashed as etcd stores them.
func (s *Store) Hash(ctx context.Context) (uint32, api.Revision, error) {
	if err := s.Flush(); err != nil {
		return 0, 0, err
	}
	st, err := s.acquire()
	if err != nil {
		return 0, 0, err
	}
	defer st.view.release()
	names := slices.Clone(engine.Buckets)
	slices.Sort(names)
	var sum uint32
	for _, name := range names {
		sum = crc32.Update(sum, castagnoli, []byte(name))
		n := 0
		st.view.Scan(name, nil, nil, func(k, v []byte) bool {
			if n++; n%hashPortion == 0 {
				if err = ctx.Err(); err != nil {
					return false
				}
			}
			if name == engine.Key {
				v, err = st.view.hashed(k, v)
			}
			if name != engine.Meta || !ownMeta(k) {
				sum = crc32.Update(crc32.Update(sum, castagnoli, k), castagnoli, v)
			}
			return err == nil
		})
		if err != nil {
			return 0, 0, err
		}
	}
	return sum, st.rev, nil
}

// hashed is a stored record as it is hashed.
func (v *sharedView) hashed(key, value []byte) ([]byte, error) {
	rev, err := parseRevision(key)
	if err != nil {
		return nil, err
	}
	rec, err := v.verify(key, value)
	if err != nil {
		return nil, err
	}
	return hashedRecord(rev, rec)
}

// ownMeta reports whether a row of bucket meta is about this member's file
// rather than about the replicated state.
func ownMeta(key []byte) bool {
	for _, own := range [][]byte{metaIndex, metaTerm, metaStorageVersion, metaTrusted, metaChain, metaFinished} {
		if string(key) == string(own) {
			return true
		}
	}
	return false
}

// find returns the remembered hash of a compaction at a revision.
func (h *compactionHashes) find(at api.Revision) (KVHash, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.mu.list {
		if e.Revision == at {
			return e, true
		}
	}
	return KVHash{}, false
}

func (h *compactionHashes) list() []KVHash {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.mu.list)
}

func (h *compactionHashes) add(e KVHash) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.list = append(h.mu.list, e)
	sort.Slice(h.mu.list, func(i, j int) bool { return h.mu.list[i].Revision < h.mu.list[j].Revision })
	if n := len(h.mu.list) - maxCompactionHashes; n > 0 {
		h.mu.list = slices.Delete(h.mu.list, 0, n)
	}
}
