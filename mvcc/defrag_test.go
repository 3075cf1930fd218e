package mvcc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// loosen makes a file that is mostly free space: n values, all but a few deleted.
func loosen(t testing.TB, s *Store, n int, size int) (index api.Index) {
	t.Helper()
	value := make([]byte, size)
	for i := range n {
		index++
		put(t, s, index, fmt.Sprintf("old%06d", i), string(value))
	}
	x := s.Begin()
	x.DeleteRange([]byte("old"), []byte("old9"), nil)
	rev := x.Revision()
	if err := x.Compact(rev); err != nil {
		t.Fatal(err)
	}
	x.End()
	index++
	s.Seal(index, 1)
	s.Publish()
	return index
}

// TestDefragmentUnderLoad writes and reads while the file is rewritten again
// and again: no write is lost, none waits for a rewrite, and the space comes back.
func TestDefragmentUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	e := openBolt(t, path, false)
	s, err := Open(Config{Clock: clock.System(), Engine: e, FlushInterval: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	index := loosen(t, s, 4000, 8<<10)
	stop := runStore(t, s)
	deadline := time.Now().Add(time.Minute)
	for s.Space().InUse > s.Space().Allocated/2 {
		if time.Now().After(deadline) {
			t.Fatalf("the compaction leaves %+v", s.Space())
		}
		time.Sleep(time.Millisecond)
	}
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() { readUntil(t, s, done) })
	written := 0
	wait.Go(func() {
		for ; written < 10_000; written++ { // 10,000: less than what is free
			select {
			case <-done:
				return
			default:
			}
			index++
			put(t, s, index, fmt.Sprintf("new%06d", written), "v")
		}
	})
	var before, after engine.Stats
	for i := range 5 {
		b, a, err := s.Defragment(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if after = a; i == 0 {
			before = b
		}
	}
	close(done)
	wait.Wait()
	if after.Allocated > before.Allocated/2 {
		t.Errorf("from %+v to %+v", before, after)
	}
	mustCheck(t, s)
	stop()
	if err := errors.Join(s.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
	again := openOn(t, openBolt(t, path, false), 10)
	mustCheck(t, again)
	x := mustRead(t, again)
	defer x.Release()
	if n := x.Count([]byte("new"), []byte("nex")); n != written || written == 0 {
		t.Errorf("%d of %d writes are there after a restart", n, written)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > before.Allocated {
		t.Errorf("the file: %v, %v", info.Size(), err)
	}
}

// readUntil reads the first keys again and again.
func readUntil(t *testing.T, s *Store, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		x := mustRead(t, s)
		for _, it := range firstItems(x, 20) {
			if _, err := x.Record(it); err != nil {
				t.Errorf("%s: %v", it.Key, err)
			}
		}
		x.Release()
	}
}

func firstItems(x *ReadTxn, n int) (items []Item) {
	x.Scan([]byte{0}, []byte{0}, func(it Item) bool {
		items = append(items, it)
		return len(items) < n
	})
	return items
}

// resting is a memory engine whose rewrite rests until told to go on.
type resting struct {
	*engine.Memory
	begun chan struct{}
	goOn  chan struct{}
}

func (e *resting) Rewrite(rest func() error) error {
	e.begun <- struct{}{}
	for range e.goOn {
		if err := rest(); err != nil {
			return err
		}
	}
	return nil
}

func openResting(t *testing.T) (*Store, *resting) {
	e := &resting{Memory: engine.NewMemory(), begun: make(chan struct{}), goOn: make(chan struct{})}
	s, err := Open(Config{Clock: clock.System(), Engine: e, TailBytes: 1 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return s, e
}

// TestWritesDoNotWaitForARewrite has a rewrite that makes no progress at all.
func TestWritesDoNotWaitForARewrite(t *testing.T) {
	s, e := openResting(t)
	failed := make(chan error)
	go func() {
		_, _, err := s.Defragment(t.Context())
		failed <- err
	}()
	<-e.begun
	index := api.Index(0)
	for s.Space().Tail <= rewriteTailFactor<<10 {
		index++
		put(t, s, index, fmt.Sprint("k", index%3), string(make([]byte, 100)))
		if s.Space().Tail > (rewriteTailFactor<<10)-200 {
			break // one more would wait for the engine: the bound of the tail
		}
	}
	if s.Durable() != 0 {
		t.Errorf("flushed to %d during a rewrite", s.Durable())
	}
	x := mustRead(t, s)
	if n := x.Count([]byte("k"), []byte("l")); n != 3 {
		t.Errorf("%d keys", n)
	}
	x.Release()
	close(e.goOn)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil || s.Durable() != index {
		t.Errorf("durable %d of %d, %v", s.Durable(), index, err)
	}
	mustCheck(t, s)
}

// TestRewriteGivesWay fills the tail beyond its bound: the rewrite ends, the
// write goes on.
func TestRewriteGivesWay(t *testing.T) {
	s, e := openResting(t)
	failed := make(chan error)
	go func() {
		_, _, err := s.Defragment(t.Context())
		failed <- err
	}()
	<-e.begun
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for i := range api.Index(400) {
			put(t, s, i+1, "k", string(make([]byte, 100)))
		}
	}()
	for {
		select {
		case e.goOn <- struct{}{}:
			continue
		case err := <-failed:
			if !errors.Is(err, ErrDefragGaveWay) {
				t.Errorf("the rewrite ended with %v", err)
			}
		}
		break
	}
	<-wrote
	mustCheck(t, s)
}

func TestDefragmentEnds(t *testing.T) {
	for name, end := range map[string]func(stop func(), cancel func()){
		"with its caller":  func(_, cancel func()) { cancel() },
		"with the flusher": func(stop, _ func()) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			s, e := openResting(t)
			run, stop := context.WithCancel(t.Context())
			call, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 2)
			go func() { ended <- s.Run(run) }()
			go func() {
				_, _, err := s.Defragment(call)
				ended <- err
			}()
			<-e.begun
			end(stop, cancel)
			go func() {
				for {
					select {
					case e.goOn <- struct{}{}:
					case <-t.Context().Done():
						return
					}
				}
			}()
			if err := <-ended; !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) && err != nil {
				t.Error(err)
			}
			stop()
			<-ended
		})
	}
}

// discarding tells of calls of Discard.
type discarding struct {
	engine.Engine
	called func()
}

func (e discarding) Discard(rest func() error) error {
	e.called()
	return e.Engine.Discard(rest)
}

// TestOldFileIsDiscarded: after a defragmentation nobody holds the old file, and it goes
// portion by portion, while the store flushes again.
func TestOldFileIsDiscarded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	called := 0
	var s *Store
	e := discarding{openBolt(t, path, false), func() {
		called++
		if !s.flushing.TryLock() {
			t.Error("flushes wait for an old file to go")
			return
		}
		s.flushing.Unlock()
	}}
	s, err := Open(Config{Clock: clock.System(), Engine: e})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		put(t, s, api.Index(i+1), fmt.Sprint("k", i), string(make([]byte, 1<<20)))
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	mustRead(t, s).Release()
	_, after, err := s.Defragment(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if now := s.Space(); now.Allocated != after.Allocated || now.InUse != after.InUse {
		t.Errorf("the space is %+v, after a rewrite to %+v", now, after)
	}
	if info, err := old.Stat(); err != nil || called != 1 || info.Size() > 16<<20 {
		t.Fatalf("called %d times, %d bytes are left, %v", called, info.Size(), err)
	}
	mustCheck(t, s)
}
