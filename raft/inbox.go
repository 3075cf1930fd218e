package raft

import (
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
)

// inbox is what waits for the loop goroutine. Everybody else puts things in and
// the loop takes all at once: the busier it is, the more it takes in one go.
type inbox struct {
	wake chan struct{} // one token: there is something
	mu   struct {
		sync.Mutex
		inboxItems
		bytes   int  // of commands
		stopped bool // nothing is taken any more
		// Readers whose barriers are under way. If they are no longer few, whoever waits
		// for the next one has the loop woken by their end.
		reading int

		// What the core held of commands when it last looked here.
		coreCount, coreBytes int
	}
}

type inboxItems struct {
	messages []*raftpb.Message
	commands []*Command
	batches  []forwardedBatch
	reads    *readBatch // readers that wait for the next barrier
	events   []func()   // rare ones, run by the loop
}

type forwardedBatch struct {
	term  uint64
	batch []byte
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// propose queues commands, within the bounds on what a member may hold: all or
// none.
func (b *inbox) propose(cmds ...*Command) error {
	b.mu.Lock()
	switch {
	case b.mu.stopped:
		b.mu.Unlock()
		return ErrStopped
	case len(b.mu.commands)+b.mu.coreCount+len(cmds) > api.MaxQueuedCommands,
		b.mu.bytes+b.mu.coreBytes >= api.MaxQueuedBytes:
		b.mu.Unlock()
		return ErrTooManyRequests
	}
	first := len(b.mu.commands) == 0
	b.mu.commands = append(b.mu.commands, cmds...)
	for _, cmd := range cmds {
		b.mu.bytes += cmd.frameSize()
	}
	b.mu.Unlock()
	if first {
		b.signal()
	}
	return nil
}

// join adds a reader to the next barrier, which calls then when it ends; nil: the
// reader waits.
func (b *inbox) join(born uint64, then func(error)) (*readBatch, error) {
	b.mu.Lock()
	if b.mu.stopped {
		b.mu.Unlock()
		return nil, ErrStopped
	}
	batch := b.mu.reads
	wake := batch == nil && b.mu.reading < fewReaders
	if batch == nil {
		batch = &readBatch{done: make(chan struct{}), born: born}
		b.mu.reads = batch
	}
	batch.readers++
	if then != nil {
		batch.then = append(batch.then, then)
	}
	b.mu.Unlock()
	if wake {
		b.signal()
	}
	return batch, nil
}

// readEnds says that the barriers of so many readers are under way no more.
func (b *inbox) readEnds(readers int) {
	b.mu.Lock()
	b.mu.reading -= readers
	wake := b.mu.reads != nil && b.mu.reading < fewReaders
	b.mu.Unlock()
	if wake {
		b.signal()
	}
}

// put queues messages; ones that come after the end are dropped.
func (b *inbox) put(msgs ...*raftpb.Message) {
	b.mu.Lock()
	if !b.mu.stopped {
		b.mu.messages = append(b.mu.messages, msgs...)
	}
	b.mu.Unlock()
	b.signal()
}

func (b *inbox) forwarded(f forwardedBatch) {
	b.mu.Lock()
	if !b.mu.stopped {
		b.mu.batches = append(b.mu.batches, f)
	}
	b.mu.Unlock()
	b.signal()
}

// post has the loop run fn; it reports false when the loop has ended.
func (b *inbox) post(fn func()) bool {
	b.mu.Lock()
	ok := !b.mu.stopped
	if ok {
		b.mu.events = append(b.mu.events, fn)
	}
	b.mu.Unlock()
	b.signal()
	return ok
}

// take swaps the contents for those of `into`, whose slices are reused. Readers are
// left while many wait for barriers that have begun.
func (b *inbox) take(into *inboxItems, core *proposals) {
	clear(into.messages)
	clear(into.commands)
	clear(into.batches)
	clear(into.events)
	b.mu.Lock()
	defer b.mu.Unlock()
	into.messages, b.mu.messages = b.mu.messages, into.messages[:0]
	into.commands, b.mu.commands = b.mu.commands, into.commands[:0]
	into.batches, b.mu.batches = b.mu.batches, into.batches[:0]
	into.events, b.mu.events = b.mu.events, into.events[:0]
	into.reads = nil
	if b.mu.reads != nil && b.mu.reading < fewReaders {
		into.reads, b.mu.reads = b.mu.reads, nil
		b.mu.reading += into.reads.readers
	}
	b.mu.coreCount, b.mu.coreBytes = core.count+len(into.commands), core.bytes+b.mu.bytes
	b.mu.bytes = 0
}

// held tells the inbox what the core holds, when that matters to its bounds.
func (b *inbox) held(core *proposals) {
	b.mu.Lock()
	b.mu.coreCount, b.mu.coreBytes = core.count, core.bytes
	b.mu.Unlock()
}

// stop refuses everything from now on and returns what was left.
func (b *inbox) stop() inboxItems {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.stopped = true
	left := b.mu.inboxItems
	b.mu.inboxItems = inboxItems{}
	return left
}

// queue hands work to one goroutine, which takes all that waits at once.
type queue[T any] struct {
	wake chan struct{}
	mu   struct {
		sync.Mutex
		items []T
	}
}

func newQueue[T any]() *queue[T] { return &queue[T]{wake: make(chan struct{}, 1)} }

func (q *queue[T]) put(items ...T) {
	q.mu.Lock()
	q.mu.items = append(q.mu.items, items...)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take swaps the items for `into`, which is reused.
func (q *queue[T]) take(into []T) []T {
	clear(into)
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.mu.items
	q.mu.items = into[:0]
	return items
}

func (q *queue[T]) waiting() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.mu.items) > 0
}
