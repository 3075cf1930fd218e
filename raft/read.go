package raft

import (
	"context"
	"sync"

	"github.com/keelson-io/keelson/planted"
)

// readBatch is the readers that share one barrier. err is set before done is
// closed, and then each of then is called. Nobody joins once the barrier has begun.
type readBatch struct {
	done    chan struct{}
	then    []func(error)
	readers int
	born    uint64 // tick of the first reader
	id      uint64 // of the barrier, once it has begun
	index   uint64 // to be applied; known once the leader has answered
	err     error
}

// fewReaders is up to how many wait for barriers that have begun while one begins for whoever
// comes. Beyond that they gather for the next one, which costs the same for any number.
//
// Invariant: the readers of a barrier came before its request left. So they also came before
// that of any later barrier, and the answer to one ends all older ones, and none that is later.
const fewReaders = 8

// ReadBarrier returns when this member has applied and published everything
// that any member had acknowledged before the call. It survives changes of
// leader.
func (n *Node) ReadBarrier(ctx context.Context) error {
	b, err := n.inbox.join(n.ticks.Load(), nil)
	if err != nil {
		return err
	}
	return n.await(ctx, b)
}

// AfterBarrier calls fn, once, when ReadBarrier would return, with its error. It does not
// wait for that; fn may be called within it, or by the node, and must not wait for either.
func (n *Node) AfterBarrier(fn func(error)) {
	if _, err := n.inbox.join(n.ticks.Load(), fn); err != nil {
		fn(err)
	}
}

func (n *Node) await(ctx context.Context, b *readBatch) error {
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readWaits holds the batches whose index is known but not yet applied.
type readWaits struct {
	mu struct {
		sync.Mutex
		applied uint64
		waiting []*readBatch
		stopped error
	}
}

// add completes the batch when its index is applied, at once or later.
func (w *readWaits) add(b *readBatch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.mu.stopped != nil:
		b.end(w.mu.stopped)
	case b.index <= w.mu.applied || planted.ReadBeforeApplied:
		b.end(nil)
	default:
		w.mu.waiting = append(w.mu.waiting, b)
	}
}

// advance completes the batches up to the applied index.
func (w *readWaits) advance(applied uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.applied = max(w.mu.applied, applied)
	w.keepLocked(func(b *readBatch) bool {
		if b.index > w.mu.applied {
			return true
		}
		b.end(nil)
		return false
	})
}

// expire ends the batches for which err has an error.
func (w *readWaits) expire(err func(b *readBatch) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keepLocked(func(b *readBatch) bool {
		e := err(b)
		if e != nil {
			b.end(e)
		}
		return e == nil
	})
}

func (w *readWaits) stop(err error) {
	w.mu.Lock()
	w.mu.stopped = err
	w.mu.Unlock()
	w.expire(func(*readBatch) error { return err })
}

func (w *readWaits) keepLocked(keep func(b *readBatch) bool) {
	kept := w.mu.waiting[:0]
	for _, b := range w.mu.waiting {
		if keep(b) {
			kept = append(kept, b)
		}
	}
	clear(w.mu.waiting[len(kept):])
	w.mu.waiting = kept
}

func (b *readBatch) end(err error) {
	b.err = err
	close(b.done)
	for _, fn := range b.then {
		fn(err)
	}
}
