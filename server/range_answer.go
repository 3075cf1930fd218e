package server

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/server/admission"
)

// Answers of ranges are built in pooled chunks: a list of forty megabytes costs
// no allocation of its own, and gRPC gives each chunk back as soon as it is
// written. What is built but not yet written is counted, over all answers.
const (
	chunkBytes = 64 << 10
	// smallAnswer is built without asking anybody.
	smallAnswer = 1 << 20
	// answersInFlight is what may wait for slow readers before the next large
	// answer is built. Together with the one being built it bounds the memory
	// that lists take.
	answersInFlight = 8 << 20
	// answerPatience is how long a large answer waits for that. Then it is built
	// all the same, so that readers who stopped reading stop nobody else.
	answerPatience = 2 * time.Second
)

// answers is the budget that all range answers of a member share.
type answers struct {
	clock    clock.Clock
	gate     *admission.Gate
	nobody   clientLoad // of answers to no connection: tests'
	inFlight atomic.Int64
	building chan struct{} // a token: one large answer is built at a time
	drained  chan struct{} // a hint that inFlight fell
	chunks   sync.Pool     // of *[]byte with capacity chunkBytes
}

func newAnswers(c clock.Clock, g *admission.Gate) *answers {
	return &answers{clock: c, gate: g, building: make(chan struct{}, 1), drained: make(chan struct{}, 1)}
}

// chunk is an empty chunk with room for length bytes.
func (p *answers) chunk(length int) *[]byte {
	if length <= chunkBytes {
		if c, ok := p.chunks.Get().(*[]byte); ok {
			*c = (*c)[:0]
			return c
		}
		length = chunkBytes
	}
	c := make([]byte, 0, length)
	return &c
}

// pulse hints that inFlight fell.
func (p *answers) pulse() {
	select {
	case p.drained <- struct{}{}:
	default:
	}
}

// answer is one message being built.
type answer struct {
	pool   *answers
	client *clientLoad // who is to have it
	bufs   mem.BufferSlice
	cur    *[]byte
	size   int // of all chunks but the current one
	paced  int // of that: what was waited for
	large  bool
}

// begin begins an answer to the caller of an RPC.
func (p *answers) begin(ctx context.Context) *answer {
	c := clientOf(ctx)
	if c == nil {
		c = &p.nobody
	}
	return &answer{pool: p, client: c}
}

// Get and Put make the answer the pool behind its own buffers: Put is called when
// gRPC has written one.
func (a *answer) Get(length int) *[]byte {
	c := a.pool.chunk(length)
	a.client.lend(a.pool, int64(cap(*c)))
	return c
}

func (a *answer) Put(c *[]byte) {
	a.client.giveBack(int64(cap(*c)))
	if cap(*c) == chunkBytes {
		a.pool.chunks.Put(c)
	}
	a.pool.pulse()
}

// len is the size of the message so far.
func (a *answer) len() int {
	if a.cur == nil {
		return a.size
	}
	return a.size + len(*a.cur)
}

// room returns the current chunk with room for n bytes. The caller appends at
// most n bytes and gives the slice back with keep.
func (a *answer) room(n int) []byte {
	if a.cur == nil || cap(*a.cur)-len(*a.cur) < n {
		a.flush()
		a.cur = a.Get(n)
	}
	return *a.cur
}

func (a *answer) keep(b []byte) { *a.cur = b }

func (a *answer) flush() {
	if a.cur == nil {
		return
	}
	a.size += len(*a.cur)
	a.bufs = append(a.bufs, mem.NewBuffer(a.cur, a))
	a.cur = nil
}

// mayGrow waits until there is room for more of the answer.
func (a *answer) mayGrow(ctx context.Context) error {
	if a.size >= smallAnswer && !a.large {
		if err := a.enlarge(ctx); err != nil {
			return err
		}
	}
	if a.large && a.size > a.paced {
		a.pool.gate.Pace(ctx.Done(), admission.Building, a.size-a.paced)
		a.paced = a.size
	}
	return nil
}

// kv appends one key of a RangeResponse.
func (a *answer) kv(ctx context.Context, it *mvcc.Item, rec mvcc.Record) error {
	if err := a.mayGrow(ctx); err != nil {
		return err
	}
	if rec != nil {
		b := a.room(1 + protowire.SizeBytes(len(rec)))
		a.keep(appendBytes(b, fieldRangeKVs, rec))
		return nil
	}
	b := a.room(1 + protowire.SizeBytes(itemBytes(it)))
	b, mark := openMessage(b, fieldRangeKVs)
	a.keep(closeMessage(appendItem(b, it), mark))
	return nil
}

// lentPage is the size from which a page is sent as it is, and not copied.
const lentPage = 4 << 10

// page appends keys that are encoded already.
func (a *answer) page(ctx context.Context, p mvcc.Page) error {
	if err := a.mayGrow(ctx); err != nil {
		return err
	}
	if len(p.Bytes) < lentPage {
		a.keep(append(a.room(len(p.Bytes)), p.Bytes...))
		return nil
	}
	a.flush()
	a.client.lend(a.pool, int64(cap(p.Bytes)))
	a.bufs = append(a.bufs, mem.NewBuffer(&p.Bytes, (*lender)(a)))
	a.size += len(p.Bytes)
	return nil
}

// lender is an answer as the pool behind the pages that it sends. They belong to
// the store: what comes back is only accounted for.
type lender answer

func (l *lender) Get(length int) *[]byte { return (*answer)(l).Get(length) }

func (l *lender) Put(b *[]byte) {
	l.client.giveBack(int64(cap(*b)))
	l.pool.pulse()
}

// enlarge waits until this answer may grow beyond smallAnswer.
func (a *answer) enlarge(ctx context.Context) error {
	select {
	case a.pool.building <- struct{}{}:
		a.large = true
	case <-ctx.Done():
		return ctx.Err()
	}
	if a.pool.inFlight.Load()-int64(a.size) <= answersInFlight {
		return nil
	}
	timer := a.pool.clock.NewTimer(answerPatience)
	defer timer.Stop()
	for a.pool.inFlight.Load()-int64(a.size) > answersInFlight {
		select {
		case <-a.pool.drained:
		case <-timer.C():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// done ends the building and returns the message.
func (a *answer) done() *Encoded {
	a.flush()
	a.release()
	return &Encoded{Buffers: a.bufs}
}

// drop gives everything back.
func (a *answer) drop() {
	a.flush()
	a.release()
	a.bufs.Free()
	a.bufs = nil
}

func (a *answer) release() {
	if a.large {
		<-a.pool.building
		a.large = false
	}
}
