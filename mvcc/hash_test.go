package mvcc

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand"
	"testing"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// etcdRecord is a record as etcd stores it.
type etcdRecord struct {
	rev revision
	key string
	kv  []byte
}

// etcdRecords are all records that etcd would ever have stored for the model.
func etcdRecords(t *testing.T, m *model) []etcdRecord {
	t.Helper()
	var out []etcdRecord
	sub := int32(0)
	for i, e := range m.events {
		if i > 0 && m.events[i-1].rev != e.rev {
			sub = 0
		}
		kv := e.kv
		if e.delete {
			kv = &mvccpb.KeyValue{Key: e.kv.Key}
		}
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(kv)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, etcdRecord{revision{e.rev, sub, e.delete}, string(e.kv.Key), b})
		sub++
	}
	return out
}

// etcdKeep are the last records up to a revision of the keys that are live then.
func etcdKeep(all []etcdRecord, at api.Revision) map[revision]bool {
	last := map[string]revision{}
	for _, r := range all {
		if r.rev.main <= at {
			last[r.key] = r.rev
		}
	}
	keep := map[revision]bool{}
	for _, r := range last {
		if !r.tomb {
			keep[r] = true
		}
	}
	return keep
}

// etcdHash is etcd's algorithm over what a compaction at compact has left.
func etcdHash(all []etcdRecord, compact, at api.Revision, deleted bool) uint32 {
	h := crc32.New(castagnoli)
	h.Write([]byte("key"))
	keep, left := etcdKeep(all, at), etcdKeep(all, compact)
	for _, r := range all {
		old := r.rev.main <= compact
		switch {
		case r.rev.main > at,
			deleted && old && !left[r.rev] && !(r.rev.tomb && r.rev.main == compact), // gone from the file
			old && len(keep) > 0 && !keep[r.rev],
			r.rev.tomb && r.rev.main == compact:
			continue
		}
		h.Write(r.rev.appendTo(nil))
		h.Write(r.kv)
	}
	return h.Sum32()
}

func TestHashKVIsEtcds(t *testing.T) {
	for seed := range int64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewSource(seed))
			m := newModel()
			s := openOn(t, engine.NewMemory(), 1+r.Intn(20))
			for i := range 150 {
				c := randomCommand(r, m)
				m.apply(c)
				c.applyTo(t, s, api.Index(i+1))
				switch r.Intn(6) {
				case 0:
					if err := s.Flush(); err != nil {
						t.Fatal(err)
					}
				case 1, 2:
					if _, err := s.CompactStep(); err != nil {
						t.Fatal(err)
					}
				case 3:
					compareHash(t, s, m, max(m.compact, 1)+api.Revision(r.Intn(int(m.rev-max(m.compact, 1))+1)))
				}
			}
			compareHash(t, s, m, 0)
		})
	}
}

func compareHash(t *testing.T, s *Store, m *model, at api.Revision) {
	t.Helper()
	got, rev, err := s.HashKV(t.Context(), at)
	if err != nil {
		t.Fatalf("hash at %d: %v", at, err)
	}
	if at == 0 {
		at = m.rev
	}
	want := KVHash{Hash: etcdHash(etcdRecords(t, m), m.compact, at, true), Compact: m.compact, Revision: at}
	if got != want || rev != m.rev {
		t.Fatalf("hash at %d is %+v of a store at %d, want %+v at %d", at, got, rev, want, m.rev)
	}
}

func TestHashKVRefusals(t *testing.T) {
	s := openOn(t, engine.NewMemory(), 10)
	for i := range 8 {
		put(t, s, api.Index(i+1), "k", fmt.Sprint(i))
	}
	x := s.Begin()
	if err := x.Compact(5); err != nil {
		t.Fatal(err)
	}
	x.End()
	s.Seal(9, 1)
	s.Publish()
	for at, want := range map[api.Revision]error{4: ErrCompacted, 5: nil, 9: nil, 10: ErrFutureRevision} {
		if _, _, err := s.HashKV(t.Context(), at); !errors.Is(err, want) {
			t.Errorf("hash at %d: %v, want %v", at, err, want)
		}
	}
}

// TestHashOfCompactions follows etcd: a compaction is hashed with what it
// deletes, and HashKV at its revision goes on answering with that.
func TestHashOfCompactions(t *testing.T) {
	r := rand.New(rand.NewSource(5))
	m := newModel()
	s := openOn(t, engine.NewMemory(), 7)
	s.cfg.HashCompactions = true
	index := api.Index(0)
	before := api.Revision(-1)
	for round := range 14 {
		for range 20 {
			c := randomCommand(r, m)
			if c.kind == "compact" {
				continue
			}
			index++
			m.apply(c)
			c.applyTo(t, s, index)
		}
		index++
		c := command{kind: "compact", compact: m.rev - 3}
		m.apply(c)
		c.applyTo(t, s, index)
		for more := true; more; {
			var err error
			if more, err = s.CompactStep(); err != nil {
				t.Fatal(err)
			}
		}
		all := etcdRecords(t, m)
		want := KVHash{Hash: etcdHash(all, before, c.compact, false), Compact: before, Revision: c.compact}
		got, _, err := s.HashKV(t.Context(), c.compact)
		if err != nil || got != want {
			t.Fatalf("round %d: hash of the compaction is %+v (%v), want %+v", round, got, err, want)
		}
		before = c.compact
	}
	if list := s.CompactionHashes(); len(list) != maxCompactionHashes || list[len(list)-1].Revision != before {
		t.Errorf("remembered %+v", list)
	}
}

// TestHashIsOfTheState wants equal hashes from stores with one content that
// stand at different places of the log and of their physical work.
func TestHashIsOfTheState(t *testing.T) {
	build := func(flushes bool) *Store {
		s := openOn(t, engine.NewMemory(), 3)
		for i := range 20 {
			put(t, s, api.Index(i*2+1), fmt.Sprint("k", i%4), fmt.Sprint(i))
			if flushes {
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
				s.Seal(api.Index(i*2+2), 2)
				s.Publish()
			}
		}
		return s
	}
	a, b := build(false), build(true)
	hash := func(s *Store) uint32 {
		sum, rev, err := s.Hash(t.Context())
		if err != nil || rev != s.Revision() {
			t.Fatalf("%v at %d", err, rev)
		}
		return sum
	}
	if hash(a) != hash(b) {
		t.Errorf("hashes are %x and %x", hash(a), hash(b))
	}
	put(t, b, 99, "k1", "other")
	if hash(a) == hash(b) {
		t.Error("different contents have one hash")
	}
}

// TestRollingHash wants the chain to depend on the content alone, across flushes
// and restarts, and to show the first revision that differs.
func TestRollingHash(t *testing.T) {
	const divergent = 40
	run := func(seed int64, differs bool) *Store {
		r := rand.New(rand.NewSource(seed))
		mem := engine.NewMemory()
		s := openOn(t, mem, 5)
		write := func(i api.Index) {
			value := fmt.Sprint(i)
			if rev := s.Revision() + 1; differs && rev == divergent {
				value = "wrong"
			}
			put(t, s, i, fmt.Sprint("k", i%7), value)
		}
		for i := api.Index(1); i <= 80; i++ {
			write(i)
			if r.Intn(5) == 0 {
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			if i < 30 && r.Intn(10) == 0 {
				mem = mem.Crash()
				s = openOn(t, mem, 5)
				for j := s.Durable() + 1; j <= i; j++ {
					write(j)
				}
			}
		}
		return s
	}
	a, b, c := run(1, false), run(2, false), run(3, true)
	for rev := max(a.RollingHashFrom(), b.RollingHashFrom(), c.RollingHashFrom()); rev <= a.Revision(); rev++ {
		at := func(s *Store) RollingHash {
			h, ok := s.RollingHash(rev)
			if !ok || h.Revision != rev || h.Base != 1 {
				t.Fatalf("value at %d: %+v, %v", rev, h, ok)
			}
			return h
		}
		if at(a) != at(b) {
			t.Fatalf("revision %d: %+v and %+v", rev, at(a), at(b))
		}
		if same := at(a) == at(c); same != (rev < divergent) {
			t.Fatalf("revision %d: equal is %v although they part at %d", rev, same, divergent)
		}
	}
	if _, ok := a.RollingHash(0); ok {
		t.Error("there is a value at revision 0")
	}
	if h, ok := a.RollingHash(1 << 40); !ok || h.Revision != a.Revision() {
		t.Errorf("the newest value is %+v", h)
	}
}

func TestRollingHashForgets(t *testing.T) {
	c := newChain(1, 1, 0)
	for rev := api.Revision(2); rev < 3*chainLength; rev++ {
		c.add(uint32(rev))
		c.close(rev)
	}
	if want := api.Revision(2 * chainLength); c.first != want {
		t.Errorf("the oldest is %d, want %d", c.first, want)
	}
}
