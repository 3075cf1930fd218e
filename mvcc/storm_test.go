package mvcc

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// The storm's rule, by which readers know what to expect without a model: in
// each revision one transaction writes its revision to the counter and moves
// one unit between two of the accounts, so that
//
//	value(counter) == mod(counter) == the revision, sum of accounts == 0
//
// holds at every revision that can be read at all.
const stormAccounts = 50

func stormKey(i int) []byte { return fmt.Appendf(nil, "/account/%02d", i) }

// stormWrite is one transaction of the storm.
func stormWrite(s *Store, r *rand.Rand, balance []int) api.Revision {
	x := s.Begin()
	rev := x.Revision() + 1
	x.Put([]byte("/counter"), fmt.Append(nil, rev), 0)
	from, to := r.Intn(stormAccounts), r.Intn(stormAccounts)
	balance[from]--
	balance[to]++
	for _, i := range []int{from, to} {
		if balance[i] == 0 {
			x.DeleteRange(stormKey(i), nil, nil) // nothing on the account: no key
		} else {
			x.Put(stormKey(i), fmt.Append(nil, balance[i]), 0)
		}
	}
	if r.Intn(20) == 0 {
		if at := rev - api.Revision(r.Intn(60)); at > x.CompactRevision() {
			if err := x.Compact(at); err != nil {
				panic(err)
			}
		}
	}
	x.End()
	return rev
}

// stormRead checks the rule at a revision.
func stormRead(s *Store, at api.Revision, pin bool) error {
	x, err := s.Read(at)
	if errors.Is(err, ErrCompacted) || errors.Is(err, ErrFutureRevision) {
		return nil
	}
	if err != nil {
		return err
	}
	defer x.Release()
	if pin {
		x.Pin()
	}
	it, ok := x.Get([]byte("/counter"))
	if !ok {
		return fmt.Errorf("at %d: no counter", x.At())
	}
	sum, n, counter := 0, 0, 0
	value := func(it Item) (int, error) {
		rec, err := x.Record(it)
		if err != nil {
			return 0, err
		}
		var v int
		_, err = fmt.Sscan(valueOf(rec), &v)
		return v, err
	}
	if counter, err = value(it); err != nil {
		return err
	}
	if counter != int(x.At()) || it.Mod != x.At() {
		return fmt.Errorf("at %d: counter is %d, of revision %d", x.At(), counter, it.Mod)
	}
	x.Scan([]byte("/account/"), []byte("/account0"), func(it Item) bool {
		var v int
		if v, err = value(it); err != nil {
			return false
		}
		sum += v
		n++
		return true
	})
	if err != nil {
		return fmt.Errorf("at %d of %d: %w", x.At(), x.Revision(), err)
	}
	if c := x.Count([]byte("/account/"), []byte("/account0")); sum != 0 || c != n {
		return fmt.Errorf("at %d: sum %d, %d accounts, counted %d", x.At(), sum, n, c)
	}
	return nil
}

func valueOf(rec Record) string {
	kv := &mvccpb.KeyValue{}
	if err := proto.Unmarshal(rec, kv); err != nil {
		return err.Error()
	}
	return string(kv.Value)
}

// TestReadStorm lets readers of old and new revisions, history and Check run
// against the writer, the flusher and compaction, on both engines.
func TestReadStorm(t *testing.T) {
	engines := map[string]func(t *testing.T) engine.Engine{
		"memory": func(*testing.T) engine.Engine { return engine.NewMemory() },
		"bolt": func(t *testing.T) engine.Engine {
			return openBolt(t, filepath.Join(t.TempDir(), "db"), false)
		},
	}
	for name, open := range engines {
		t.Run(name, func(t *testing.T) {
			e := open(t)
			s, err := Open(Config{
				Clock: clock.System(), Engine: e, TailBytes: 8 << 10,
				FlushInterval: 5 * time.Millisecond, CompactionBatch: 20,
			})
			if err != nil {
				t.Fatal(err)
			}
			runReadStorm(t, s)
			mustCheck(t, s)
			rev := s.Revision()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Read(0); !errors.Is(err, ErrClosed) {
				t.Fatalf("read of a closed store: %v", err)
			}
			s = openOn(t, e, 0)
			mustCheck(t, s)
			if s.Revision() != rev {
				t.Fatalf("revision %d after restart, was %d", s.Revision(), rev)
			}
			if err := stormRead(s, 0, false); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.Close(), e.Close()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

const stormRevisions = 3000

func runReadStorm(t *testing.T, s *Store) {
	t.Helper()
	balance := make([]int, stormAccounts)
	r := rand.New(rand.NewSource(5))
	stormWrite(s, r, balance)
	s.Seal(1, 1)
	s.Publish()
	stop := runStore(t, s)
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var reads atomic.Int64
	background := func(seed int64, fn func(r *rand.Rand) error) {
		wg.Go(func() {
			r := rand.New(rand.NewSource(seed))
			for ctx.Err() == nil && !t.Failed() {
				if err := fn(r); err != nil {
					t.Error(err)
				}
				reads.Add(1)
			}
		})
	}
	background(1, func(*rand.Rand) error { return stormRead(s, 0, false) })
	background(0, func(*rand.Rand) error { unread(s); return nil })
	background(2, func(r *rand.Rand) error {
		// Revision 1 is the empty store.
		return stormRead(s, max(2, s.Revision()-api.Revision(r.Intn(50))), r.Intn(2) == 0)
	})
	background(3, func(r *rand.Rand) error {
		next := api.Revision(0)
		err := s.History(s.Revision()-api.Revision(r.Intn(50)), 1<<62, func(e *Event) bool {
			if next != 0 && e.Rev != next && e.Rev != next-1 {
				t.Errorf("history jumps to %d, wanted %d", e.Rev, next)
			}
			next = e.Rev + 1
			if err := e.FixPrev(); err != nil && !(errors.Is(err, ErrCompacted) && e.Rev <= s.CompactRevision()) {
				t.Errorf("event %d %q: %v", e.Rev, e.Key, err)
			}
			return true
		})
		if errors.Is(err, ErrCompacted) {
			return nil
		}
		return err
	})
	background(4, func(*rand.Rand) error {
		if problems := s.Check(); len(problems) > 0 {
			return problems[0]
		}
		snap, err := s.Snapshot()
		if err == nil {
			snap.Release()
		}
		return err
	})
	for i := 2; i < stormRevisions && !t.Failed(); i++ {
		stormWrite(s, r, balance)
		if r.Intn(3) == 0 {
			s.Seal(api.Index(i), 1)
			s.Publish()
		}
	}
	s.Seal(stormRevisions, 1)
	s.Publish()
	cancel()
	wg.Wait()
	t.Logf("%d reads against %d revisions", reads.Load(), stormRevisions)
}
