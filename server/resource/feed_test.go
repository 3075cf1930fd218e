package resource

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// loneStore is a store without a cluster: what it is to have caught up, a test
// says.
type loneStore struct {
	*mvcc.Store
	mu    sync.Mutex
	heard bool
	ok    chan struct{} // closed while it hears of a cluster
}

func newLoneStore(t testing.TB) *loneStore {
	t.Helper()
	s, err := mvcc.Open(mvcc.Config{Clock: clock.System(), Engine: engine.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &loneStore{Store: s, ok: make(chan struct{})}
}

// hears says whether the store hears of a cluster.
func (s *loneStore) hears(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case yes && !s.heard:
		close(s.ok)
	case !yes && s.heard:
		s.ok = make(chan struct{})
	}
	s.heard = yes
}

func (s *loneStore) put(key, value string) {
	txn := s.Begin()
	txn.Put([]byte(key), []byte(value), 0)
	rev := txn.End().Revision
	s.Seal(api.Index(rev), 1)
	s.Publish()
}

func (s *loneStore) Barrier(ctx context.Context) error {
	s.mu.Lock()
	ok := s.ok
	s.mu.Unlock()
	select {
	case <-ok:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *loneStore) Watch() *mvcc.WatchStream { return s.NewWatchStream() }

func (s *loneStore) Commit(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error) {
	return nil, errors.New("nobody writes here")
}

func (s *loneStore) Grant(context.Context, int64) (api.LeaseID, error) {
	return 0, errors.New("nobody writes here")
}

func (s *loneStore) Leads() bool { return false }

func stored(name string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"namespace":"default"}}`, name)
}

// TestCatchesUpFirst: a member that was away shows nobody what it had before,
// however little they ask for.
func TestCatchesUpFirst(t *testing.T) {
	s := newLoneStore(t)
	s.put("/registry/configmaps/default/old", stored("old"))
	ask := loneLayer(t, s)
	paths := []string{"/api/v1/configmaps?resourceVersion=0", "/api/v1/namespaces/default/configmaps/old?resourceVersion=0"}
	for _, path := range paths {
		if code := ask(path); code != http.StatusTooManyRequests {
			t.Errorf("%s: %d before the member has caught up", path, code)
		}
	}
	s.hears(true)
	for _, path := range paths {
		for end := time.Now().Add(time.Minute); ask(path) != http.StatusOK; {
			if time.Now().After(end) {
				t.Fatalf("%s: not answered", path)
			}
		}
	}
}

// runLayer runs a layer on a store, by a clock that stands still.
func runLayer(t testing.TB, s *loneStore) (*Layer, *clock.Fake) {
	t.Helper()
	fake := clock.NewFake(time.Unix(0, 0))
	l := New(Config{Store: s, Clock: fake, Logger: slog.New(slog.DiscardHandler), Random: func(b []byte) { clear(b) }})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { l.feed.run(ctx) })
	running.Go(func() { l.feelPulse(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return l, fake
}

// loneLayer runs a layer on a store by a clock that goes on, fast, while somebody
// waits. ask sends a request and returns the status of the answer, once that has ended.
func loneLayer(t *testing.T, s *loneStore) (ask func(path string) int) {
	t.Helper()
	l, fake := runLayer(t, s)
	return func(path string) int {
		answer := make(chan int)
		go func() {
			w := httptest.NewRecorder()
			l.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			answer <- w.Code
		}()
		for {
			select {
			case code := <-answer:
				return code
			case <-time.After(time.Millisecond):
				fake.Advance(freshTimeout) // who waits gives up
			}
		}
	}
}

// TestCutOff: watches of a member that does not reach the cluster end, and it takes
// no new ones until it does.
func TestCutOff(t *testing.T) {
	s := newLoneStore(t)
	s.put("/registry/configmaps/default/a", stored("a"))
	s.hears(true)
	ask := loneLayer(t, s)
	watch := "/api/v1/configmaps?watch=true&resourceVersion=0&timeoutSeconds=1000000000"
	for ask("/api/v1/configmaps?resourceVersion=0") != http.StatusOK {
		continue // it has yet to catch up
	}
	ended := make(chan int)
	go func() { ended <- ask(watch) }()
	select {
	case code := <-ended:
		t.Fatalf("%d: a watch of a member that hears of the cluster ended", code)
	case <-time.After(50 * time.Millisecond): // many a pulse
	}
	s.hears(false)
	if code := <-ended; code != http.StatusOK {
		t.Errorf("the watch ended with %d", code)
	}
	if code := ask(watch); code != http.StatusServiceUnavailable {
		t.Errorf("a member that is cut off answers a watch with %d", code)
	}
	s.hears(true)
	if code := ask("/api/v1/configmaps?watch=true&resourceVersion=0&timeoutSeconds=1"); code != http.StatusOK {
		t.Errorf("a member that is back answers a watch with %d", code)
	}
}

// TestLoadsOnce: of two that load a collection, the one with the older state does not
// undo what the other has done and what came since.
func TestLoadsOnce(t *testing.T) {
	s := newLoneStore(t)
	s.put("/registry/configmaps/default/a", stored("a"))
	older, err := s.Read(0)
	if err != nil {
		t.Fatal(err)
	}
	defer older.Release()
	s.put("/registry/configmaps/default/b", stored("b"))
	newer, err := s.Read(0)
	if err != nil {
		t.Fatal(err)
	}
	defer newer.Release()

	kind := &Kind{Version: "v1", Name: "ConfigMap", Plural: "configmaps", Namespaced: true, Prefix: "/registry/configmaps/"}
	c := newCollection(kind, int64(older.At()), slog.New(slog.DiscardHandler), func() {})
	c.unload(int64(newer.At())) // the feed begins again while the first load is under way
	if loaded, err := c.load(older); loaded || err != nil {
		t.Fatalf("a state that lacks what the feed passed over was taken: %v, %v", loaded, err)
	}
	for _, tx := range []*mvcc.ReadTxn{newer, older} {
		if loaded, err := c.load(tx); !loaded || err != nil {
			t.Fatalf("loaded %v, %v", loaded, err)
		}
	}
	if got := c.snapshot(0); len(got.entries) != 2 || got.rev != int64(newer.At()) {
		t.Errorf("%d entries at %d, want 2 at %d", len(got.entries), got.rev, newer.At())
	}
}
