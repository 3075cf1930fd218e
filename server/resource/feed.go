package resource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
)

// feed follows every change of the store and brings it to the collections. One
// goroutine runs it.
type feed struct {
	store Store
	log   *slog.Logger
	clock clock.Clock
	// concerns counts changes that may give controllers something to do.
	concerns atomic.Uint64
	// applied: up to here all revisions are in the collections. It rises under mu.
	applied atomic.Int64

	mu struct {
		sync.Mutex
		byPrefix map[string]*collection
		got      int64         // revisions up to here were taken from the stream
		moved    chan struct{} // closed when applied rises
	}
}

func newFeed(store Store, c clock.Clock, log *slog.Logger) *feed {
	f := &feed{store: store, clock: c, log: log}
	f.mu.byPrefix = map[string]*collection{}
	f.mu.moved = make(chan struct{})
	return f
}

// everything is the range of all keys.
var everything = []byte{0}

// errHistoryGone ends a round of the feed: what it lacks was compacted.
var errHistoryGone = errors.New("the store compacted what the feed lacks")

// run follows until ctx ends. It begins again, with the collections read anew,
// when the store cannot tell what happened meanwhile.
//
// A member that was away first catches up with the cluster: what it had before would
// show clients that come to it a state that they have long seen changed.
func (f *feed) run(ctx context.Context) {
	for f.store.Barrier(ctx) != nil && ctx.Err() == nil {
		sleep(ctx, f.clock, restartPause)
	}
	for ctx.Err() == nil {
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		f.log.Warn("following the store begins again", "error", err)
		sleep(ctx, f.clock, restartPause)
	}
}

// restartPause lies between two attempts to follow the store or to serve after
// an error that should not happen.
const restartPause = 100 * time.Millisecond

func sleep(ctx context.Context, c clock.Clock, d time.Duration) {
	timer := c.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-ctx.Done():
	}
}

func (f *feed) follow(ctx context.Context) error {
	stream := f.store.Watch()
	defer stream.Close()
	if _, err := stream.Watch(mvcc.WatchRequest{Key: everything, End: everything}); err != nil {
		return err
	}
	for {
		d, err := stream.Next(ctx)
		if err != nil {
			return err
		}
		switch d.Kind {
		case mvcc.DeliverCreated:
			if err := f.begin(int64(d.Revision)); err != nil {
				return err
			}
		case mvcc.DeliverEvents:
			f.take(d.Batch)
		case mvcc.DeliverCompacted, mvcc.DeliverCanceled, mvcc.DeliverRefused:
			return errHistoryGone
		}
	}
}

// begin loads the collections that there are, at rev or later: the stream brings
// what follows rev.
func (f *feed) begin(rev int64) error {
	f.mu.Lock()
	f.mu.got = rev
	all := slices.Collect(maps.Values(f.mu.byPrefix))
	f.mu.Unlock()
	for _, c := range all {
		c.unload(rev)
		if err := f.load(c); err != nil {
			return err
		}
	}
	f.advance(rev)
	return nil
}

// bytes is what the collections' objects take.
func (f *feed) bytes() (n uint64) {
	f.mu.Lock()
	all := slices.Collect(maps.Values(f.mu.byPrefix))
	f.mu.Unlock()
	for _, c := range all {
		n += uint64(c.size())
	}
	return n
}

func (f *feed) take(b *mvcc.Batch) {
	f.mu.Lock()
	f.mu.got = int64(b.Revision)
	f.mu.Unlock()
	eachRevision(b.Events, f.spread)
	f.advance(int64(b.Revision))
}

// spread gives each collection its part of one revision's events, at once: for
// a collection a revision happens as a whole.
func (f *feed) spread(events []*mvcc.Event) {
	if len(events) == 1 {
		if c := f.of(events[0].Key); c != nil {
			c.apply(events)
		}
		return
	}
	parts := map[*collection][]*mvcc.Event{}
	for _, ev := range events {
		if c := f.of(ev.Key); c != nil {
			parts[c] = append(parts[c], ev)
		}
	}
	for c, part := range parts {
		c.apply(part)
	}
}

func (f *feed) advance(rev int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied.Store(max(f.applied.Load(), rev))
	close(f.mu.moved)
	f.mu.moved = make(chan struct{})
}

// of finds the collection of a key: its prefix ends with the key's third slash, or the
// fourth.
func (f *feed) of(key []byte) *collection {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := 0
	for slashes := 0; slashes < 4; slashes++ {
		n := bytes.IndexByte(key[at:], '/')
		if n < 0 {
			return nil
		}
		at += n + 1
		if slashes >= 2 {
			if c := f.mu.byPrefix[string(key[:at])]; c != nil {
				return c
			}
		}
	}
	return nil
}

// collection returns the cache of a kind's objects, loading it if this is the first
// time that somebody asks.
func (f *feed) collection(ctx context.Context, k *Kind) (*collection, error) {
	f.mu.Lock()
	c := f.mu.byPrefix[k.Prefix]
	fresh := c == nil
	if fresh {
		c = newCollection(k, f.mu.got, f.log, func() { f.concerns.Add(1) })
		f.mu.byPrefix[k.Prefix] = c
	}
	f.mu.Unlock()
	if fresh {
		if err := f.load(c); err != nil {
			f.forget(k.Prefix)
			return nil, err
		}
	}
	return c, c.await(ctx)
}

// await waits until the one who came first has loaded the collection.
func (c *collection) await(ctx context.Context) error {
	if c.isLoaded() {
		return nil
	}
	b := c.listen()
	defer c.leave(b)
	for !c.isLoaded() {
		select {
		case <-b.rung:
		case <-ctx.Done():
			return fmt.Errorf("%s was not read in time: %w", c.kind.qualified(), ctx.Err())
		}
	}
	return nil
}

func (c *collection) isLoaded() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.loaded
}

// load fills a collection from a state that has everything that the feed passed on
// before the collection was there. The state is published right after its events,
// so this hardly ever takes another attempt.
func (f *feed) load(c *collection) error {
	for {
		tx, err := f.store.Read(0)
		if err != nil {
			return err
		}
		loaded, err := c.load(tx)
		tx.Release()
		if loaded || err != nil {
			return err
		}
		sleep(context.Background(), f.clock, time.Millisecond)
	}
}

// forget drops the cache of a collection; nobody serves it any more.
func (f *feed) forget(prefix string) {
	f.mu.Lock()
	c := f.mu.byPrefix[prefix]
	delete(f.mu.byPrefix, prefix)
	f.mu.Unlock()
	if c != nil {
		c.end()
	}
}

// revision returns what the feed has applied.
func (f *feed) revision() int64 { return f.applied.Load() }

// ring rings for all who listen to any collection.
func (f *feed) ring() {
	f.mu.Lock()
	all := slices.Collect(maps.Values(f.mu.byPrefix))
	f.mu.Unlock()
	for _, c := range all {
		c.ring()
	}
}

// waitFor waits until everything up to rev is in the collections, and returns what
// is.
func (f *feed) waitFor(ctx context.Context, rev int64) (int64, error) {
	for {
		f.mu.Lock()
		applied, moved := f.applied.Load(), f.mu.moved
		f.mu.Unlock()
		if applied >= rev {
			return applied, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return applied, ctx.Err()
		}
	}
}

// valueOf is the value of an encoded KeyValue message; the store checked it.
func valueOf(rec mvcc.Record) []byte {
	const fieldValue = 5
	b := []byte(rec)
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		if num == fieldValue && typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return nil
			}
			return v
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return nil
		}
		b = b[n:]
	}
	return nil
}
