package mvcc

import (
	"bytes"
	"fmt"
	"math/rand"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// listing is what a scan gives: the framed records, how many keys, and how many
// of them came in pages.
type listing struct {
	bytes         []byte
	keys, inPages int
}

func list(t *testing.T, x *ReadTxn, key, end string, limit int64, pages bool) (l listing) {
	t.Helper()
	item := func(it Item) bool {
		if limit > 0 && int64(l.keys) == limit {
			return false
		}
		rec, err := x.Record(it)
		if err != nil {
			t.Fatal(err)
		}
		l.bytes = protowire.AppendTag(l.bytes, fieldPage, protowire.BytesType)
		l.bytes = protowire.AppendBytes(l.bytes, rec)
		l.keys++
		return true
	}
	if !pages {
		x.Scan([]byte(key), []byte(end), item)
		return l
	}
	x.ScanPages([]byte(key), []byte(end), limit, func(p Page) bool {
		l.bytes = append(l.bytes, p.Bytes...)
		l.keys += p.Keys
		l.inPages += p.Keys
		return true
	}, item)
	return l
}

// TestPagesAreTheRecords lists random ranges again and again while keys change,
// of the present and of a state that is held: with pages and without, the
// answers are the same bytes.
func TestPagesAreTheRecords(t *testing.T) {
	s := openOn(t, engine.NewMemory(), 50_000)
	r := rand.New(rand.NewSource(1))
	index := api.Index(0)
	apply := func(n int) {
		index++
		tx := s.Begin()
		for range n {
			key := fmt.Appendf(nil, "/k/%04d", r.Intn(2000))
			if r.Intn(6) == 0 {
				tx.DeleteRange(key, nil, nil)
			} else {
				tx.Put(key, bytes.Repeat([]byte{byte(r.Intn(256))}, r.Intn(300)), 0)
			}
		}
		tx.End()
		s.Seal(index, 1)
		s.Publish()
	}
	apply(3000)
	held := mustRead(t, s)
	defer held.Release()
	inPages := 0
	for round := range 300 {
		x := mustRead(t, s)
		if round%3 == 0 {
			x = held
		}
		from, to := fmt.Sprintf("/k/%04d", r.Intn(2000)), fmt.Sprintf("/k/%04d", r.Intn(2000))
		if r.Intn(4) == 0 {
			from, to = "/k/", "\x00"
		}
		limit := int64(0)
		if r.Intn(2) == 0 {
			limit = int64(r.Intn(500)) + 1
		}
		want := list(t, x, from, to, limit, false)
		for range 3 {
			got := list(t, x, from, to, limit, true)
			if got.keys != want.keys || !bytes.Equal(got.bytes, want.bytes) {
				t.Fatalf("round %d: [%s, %q) limit %d: %d keys with pages (%d in them), %d without", round, from, to, limit, got.keys, got.inPages, want.keys)
			}
			inPages += got.inPages
		}
		if x != held {
			x.Release()
			apply(r.Intn(20))
		}
		if round%40 == 0 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if inPages == 0 {
		t.Fatal("nothing came in pages")
	}
}

// TestPagesAge: a page is made at the second reading, kept while it is read, and
// dropped when it is not; the budget counts what is kept.
func TestPagesAge(t *testing.T) {
	c := clock.NewFake(time.Unix(100, 0))
	s, err := Open(Config{Clock: c, Engine: engine.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * leafCap {
		put(t, s, api.Index(i+1), fmt.Sprintf("%03d", i), "x")
	}
	all := func() listing {
		x := mustRead(t, s)
		defer x.Release()
		return list(t, x, "0", "\x00", 0, true)
	}
	if l := all(); l.inPages != 0 || s.pages.mu.bytes != 0 {
		t.Fatalf("first reading: %d keys in pages, %d bytes kept", l.inPages, s.pages.mu.bytes)
	}
	for range 5 {
		if l := all(); l.inPages == 0 || s.pages.mu.bytes != len(l.bytes) {
			t.Fatalf("%d keys in pages, %d bytes kept of %d", l.inPages, s.pages.mu.bytes, len(l.bytes))
		}
		c.Advance(pageLife)
		s.pages.expire(c.Now())
	}
	c.Advance(2 * pageLife)
	s.pages.expire(c.Now())
	if n := len(s.pages.mu.pages); n != 0 || s.pages.mu.bytes != 0 {
		t.Fatalf("%d old pages of %d bytes stay", n, s.pages.mu.bytes)
	}
	s.pages.mu.bytes = pageBudget // as if others had taken it all
	for range 3 {
		if l := all(); l.inPages != 0 || l.keys != 3*leafCap {
			t.Fatalf("over the budget: %d of %d keys in pages", l.inPages, l.keys)
		}
	}
}
