package mvcc

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/api"
)

// The replicated half of leases: which exist, with what TTL, and which keys are
// attached. When a lease expires is the server's business.
//
// A lease is stored in bucket lease under its id (8 bytes, big-endian) as etcd's
// leasepb.Lease. Which keys are attached is not stored: the keys' own records
// say so.

// The fields of leasepb.Lease.
const (
	fieldLeaseID        = 1
	fieldLeaseTTL       = 2
	fieldLeaseRemaining = 3
)

// leaseTable is changed by the apply goroutine and read by any. It is not
// versioned: a reader may see an attachment a moment before its revision.
type leaseTable struct {
	mu struct {
		sync.RWMutex
		leases map[api.LeaseID]*lease
	}
}

type lease struct {
	ttl       int64
	remaining int64
	keys      map[string]struct{}
}

func newLeaseTable() *leaseTable {
	t := &leaseTable{}
	t.mu.leases = map[api.LeaseID]*lease{}
	return t
}

func (t *leaseTable) exists(id api.LeaseID) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.mu.leases[id] != nil
}

// add makes a lease; it reports false when there is one of this id.
func (t *leaseTable) add(id api.LeaseID, ttl, remaining int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.leases[id] != nil {
		return false
	}
	t.mu.leases[id] = &lease{ttl: ttl, remaining: remaining}
	return true
}

func (t *leaseTable) remove(id api.LeaseID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.mu.leases, id)
}

// checkpoint notes the remaining TTL and returns the lease's TTL.
func (t *leaseTable) checkpoint(id api.LeaseID, remaining int64) (ttl int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.mu.leases[id]
	if l == nil {
		return 0, false
	}
	l.remaining = remaining
	return l.ttl, true
}

// move detaches key from one lease and attaches it to another; 0 is none. It
// reports false when the lease to attach to does not exist.
func (t *leaseTable) move(key string, from, to api.LeaseID) bool {
	if from == to {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.mu.leases[from]; l != nil {
		delete(l.keys, key)
	}
	if to == 0 {
		return true
	}
	l := t.mu.leases[to]
	if l == nil {
		return false
	}
	if l.keys == nil {
		l.keys = map[string]struct{}{}
	}
	l.keys[key] = struct{}{}
	return true
}

// keys returns the attached keys in byte order.
func (t *leaseTable) keys(id api.LeaseID) []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	l := t.mu.leases[id]
	if l == nil {
		return nil
	}
	out := make([]string, 0, len(l.keys))
	for k := range l.keys {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Leases returns the ids of all leases in rising order.
func (s *Store) Leases() []api.LeaseID {
	t := s.leases
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]api.LeaseID, 0, len(t.mu.leases))
	for id := range t.mu.leases {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// Lease describes one lease.
func (s *Store) Lease(id api.LeaseID) (LeaseInfo, bool) {
	t := s.leases
	t.mu.RLock()
	defer t.mu.RUnlock()
	l := t.mu.leases[id]
	if l == nil {
		return LeaseInfo{}, false
	}
	return LeaseInfo{ID: id, TTL: l.ttl, Remaining: l.remaining, Keys: func() [][]byte {
		keys := t.keys(id)
		out := make([][]byte, len(keys))
		for i, k := range keys {
			out[i] = bytesOf(k)
		}
		return out
	}}, true
}

func leaseKey(id api.LeaseID) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

// encodeLease encodes a leasepb.Lease.
func encodeLease(id api.LeaseID, ttl, remaining int64) []byte {
	b := make([]byte, 0, 24)
	for num, v := range []int64{fieldLeaseID: int64(id), fieldLeaseTTL: ttl, fieldLeaseRemaining: remaining} {
		if v != 0 {
			b = protowire.AppendTag(b, protowire.Number(num), protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(v))
		}
	}
	return b
}

// decodeLease reads a stored lease; its key and its id must agree.
func decodeLease(key, value []byte) (id api.LeaseID, ttl, remaining int64, err error) {
	var f [4]int64
	for b := value; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || typ != protowire.VarintType || num >= protowire.Number(len(f)) {
			return 0, 0, 0, fmt.Errorf("%w: lease %x", ErrCorrupt, key)
		}
		v, m := protowire.ConsumeVarint(b[n:])
		if m < 0 {
			return 0, 0, 0, fmt.Errorf("%w: lease %x", ErrCorrupt, key)
		}
		f[num], b = int64(v), b[n+m:]
	}
	if len(key) != 8 || int64(binary.BigEndian.Uint64(key)) != f[fieldLeaseID] || f[fieldLeaseID] == 0 {
		return 0, 0, 0, fmt.Errorf("%w: lease %x holds id %x", ErrCorrupt, key, f[fieldLeaseID])
	}
	return api.LeaseID(f[fieldLeaseID]), f[fieldLeaseTTL], f[fieldLeaseRemaining], nil
}
