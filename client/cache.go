package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Cache is a range of the store in memory, as objects of type T, kept up to date
// by a watch: what a controller works from. Reading it costs no request.
//
// A cache is always the state of the store at one revision: the changes of a
// transaction appear together. It may be behind; Fresh waits until it is not.
type Cache[T any] struct {
	c       *Client
	r       Range
	decode  func(KV) (T, error)
	indexes map[string]func(T) []string

	run     sync.Mutex // held by Run
	changed []func(Change[T])

	mu struct {
		sync.RWMutex
		items    map[string]Item[T]
		index    map[string]map[string]map[string]struct{} // name, value, keys
		revision Revision                                  // 0: not filled yet
		moved    chan struct{}                             // closed when revision grows
		stream   *watchStream                              // to ask for progress; nil while there is no watch
	}
}

// Item is a key with the object that was made of its value.
type Item[T any] struct {
	KV
	Object T
	// Err is why the value could not be decoded; Object is then T's zero value.
	Err error
}

// Change is what happened to one key of a cache. Old is nil when it was created,
// New when it was deleted.
type Change[T any] struct {
	Old, New *Item[T]
	Revision Revision
}

// CacheOption changes how a cache is made.
type CacheOption[T any] func(*Cache[T])

// Index makes items findable by what by returns for their objects: any number of
// values each.
func Index[T any](name string, by func(T) []string) CacheOption[T] {
	return func(c *Cache[T]) { c.indexes[name] = by }
}

// Labels makes items findable by their labels: as an index whose values are
// "name=value".
func Labels[T any](index string, of func(T) map[string]string) CacheOption[T] {
	return Index(index, func(object T) (values []string) {
		for k, v := range of(object) {
			values = append(values, k+"="+v)
		}
		return values
	})
}

// OnChange calls f for every change, in the order of revisions, first of all for
// each key that there is when the cache is filled. The cache shows the change
// already. It waits for f, so what takes long belongs into a queue.
func OnChange[T any](f func(Change[T])) CacheOption[T] {
	return func(c *Cache[T]) { c.changed = append(c.changed, f) }
}

// NewCache makes a cache of a range, which is empty until Run fills it. decode
// makes an object of a value; a nil decode leaves the objects empty, for those
// who want the values.
func NewCache[T any](c *Client, r Range, decode func(KV) (T, error), opts ...CacheOption[T]) *Cache[T] {
	k := &Cache[T]{c: c, r: r, decode: decode, indexes: map[string]func(T) []string{}}
	for _, o := range opts {
		o(k)
	}
	k.mu.items, k.mu.moved = map[string]Item[T]{}, make(chan struct{})
	k.mu.index = map[string]map[string]map[string]struct{}{}
	for name := range k.indexes {
		k.mu.index[name] = map[string]map[string]struct{}{}
	}
	return k
}

// Run fills the cache and keeps it up to date until ctx ends, or it may no
// longer be read: it returns why. When history is compacted away before the
// cache has seen it, the cache is listed anew, and what changed is told like any
// other change.
func (k *Cache[T]) Run(ctx context.Context) error {
	k.run.Lock()
	defer k.run.Unlock()
	for round := 0; ; round++ {
		rev, err := k.list(ctx)
		if err == nil {
			err = k.follow(ctx, rev)
		}
		if !errors.Is(err, ErrCompacted) {
			return err
		}
		k.c.notice(NoticeCacheResync, "", err)
		if err := k.c.sleep(ctx, pause(min(round, 4))); err != nil {
			return err
		}
	}
}

// list reads the whole range and tells how it differs from what is there.
func (k *Cache[T]) list(ctx context.Context) (Revision, error) {
	var rev Revision
	fresh := map[string]Item[T]{}
	for kv, err := range k.c.Scan(ctx, k.r, ReadRevision(&rev)) {
		if err != nil {
			return 0, err
		}
		fresh[kv.Key] = k.item(kv)
	}
	k.mu.Lock()
	var changes []Change[T]
	for key, old := range k.mu.items {
		if _, still := fresh[key]; !still {
			changes = append(changes, Change[T]{Old: &old, Revision: rev})
		}
	}
	for key, it := range fresh {
		old, was := k.mu.items[key]
		switch {
		case !was:
			changes = append(changes, Change[T]{New: &it, Revision: rev})
		case old.Modified != it.Modified:
			changes = append(changes, Change[T]{Old: &old, New: &it, Revision: rev})
		}
	}
	slices.SortFunc(changes, func(a, b Change[T]) int { return cmp.Compare(a.key(), b.key()) })
	k.applyLocked(changes, rev)
	k.mu.Unlock()
	k.tell(changes)
	return rev, nil
}

// follow applies what a watch tells, until it ends.
func (k *Cache[T]) follow(ctx context.Context, rev Revision) error {
	w := k.c.newWatch(k.r, []WatchOption{After(rev), Bookmarks()})
	w.alone = true
	if err := k.c.hub.add(k.c.core, w); err != nil {
		return err
	}
	defer w.stream.remove(w)
	k.setStream(w.stream)
	defer k.setStream(nil)
	for {
		batches, err := w.take(ctx)
		if err != nil {
			return err
		}
		for _, b := range batches {
			changes, rev := k.changes(b)
			k.mu.Lock()
			for i := range changes {
				if old, was := k.mu.items[changes[i].key()]; was {
					changes[i].Old = &old
				}
				k.applyLocked(changes[i:i+1], 0)
			}
			k.applyLocked(nil, rev)
			k.mu.Unlock()
			k.tell(changes)
		}
	}
}

// changes decodes a batch: whole revisions, or a bookmark. A deletion is a
// change without New whose Old holds the key.
func (k *Cache[T]) changes(b batch) (out []Change[T], rev Revision) {
	for _, ev := range b.told(k.c) {
		rev = ev.Revision
		switch ev.Type {
		case EventPut:
			it := k.item(ev.KV)
			out = append(out, Change[T]{New: &it, Revision: rev})
		case EventDelete:
			out = append(out, Change[T]{Old: &Item[T]{KV: ev.KV}, Revision: rev})
		}
	}
	return out, rev
}

func (ch Change[T]) key() string {
	if ch.New != nil {
		return ch.New.Key
	}
	return ch.Old.Key
}

func (k *Cache[T]) item(kv KV) Item[T] {
	it := Item[T]{KV: kv}
	if k.decode != nil {
		it.Object, it.Err = k.decode(kv)
	}
	return it
}

// applyLocked makes changes, and then a revision, visible.
func (k *Cache[T]) applyLocked(changes []Change[T], rev Revision) {
	for _, ch := range changes {
		key := ch.key()
		if old, was := k.mu.items[key]; was {
			k.indexLocked(old, false)
			delete(k.mu.items, key)
		}
		if ch.New != nil {
			k.mu.items[key] = *ch.New
			k.indexLocked(*ch.New, true)
		}
	}
	if rev > k.mu.revision {
		k.mu.revision = rev
		close(k.mu.moved)
		k.mu.moved = make(chan struct{})
	}
}

func (k *Cache[T]) tell(changes []Change[T]) {
	for _, ch := range changes {
		for _, f := range k.changed {
			f(ch)
		}
	}
}

func (k *Cache[T]) setStream(s *watchStream) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.stream = s
}

// Revision is the store's revision that the cache shows; 0 until it is filled.
func (k *Cache[T]) Revision() Revision {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.mu.revision
}

// Get returns one key.
func (k *Cache[T]) Get(key string) (Item[T], bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	it, ok := k.mu.items[key]
	return it, ok
}

// List returns all items, in the order of keys, and the revision of that state.
func (k *Cache[T]) List() ([]Item[T], Revision) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return inOrder(maps.Values(k.mu.items)), k.mu.revision
}

// Find returns the items for which an index has all of the values, in the order
// of keys.
func (k *Cache[T]) Find(index string, values ...string) []Item[T] {
	k.mu.RLock()
	defer k.mu.RUnlock()
	sets := make([]map[string]struct{}, len(values))
	for i, v := range values {
		sets[i] = k.mu.index[index][v]
	}
	if len(sets) == 0 {
		return nil
	}
	slices.SortFunc(sets, func(a, b map[string]struct{}) int { return cmp.Compare(len(a), len(b)) })
	return inOrder(func(yield func(Item[T]) bool) {
		for key := range sets[0] {
			if !slices.ContainsFunc(sets[1:], func(s map[string]struct{}) bool { _, has := s[key]; return !has }) && !yield(k.mu.items[key]) {
				return
			}
		}
	})
}

func inOrder[T any](items iter.Seq[Item[T]]) []Item[T] {
	return slices.SortedFunc(items, func(a, b Item[T]) int { return cmp.Compare(a.Key, b.Key) })
}

// indexLocked adds an item to the indexes or takes it out of them.
func (k *Cache[T]) indexLocked(it Item[T], add bool) {
	if it.Err != nil {
		return
	}
	for name, by := range k.indexes {
		of := k.mu.index[name]
		for _, v := range by(it.Object) {
			if !add {
				if delete(of[v], it.Key); len(of[v]) == 0 {
					delete(of, v)
				}
				continue
			}
			if of[v] == nil {
				of[v] = map[string]struct{}{}
			}
			of[v][it.Key] = struct{}{}
		}
	}
}

// progressPeriod is how often a cache that is waited for asks how far it is: a
// store without changes in the range says nothing by itself.
const progressPeriod = 20 * time.Millisecond

// Fresh waits until the cache shows everything that was written before Fresh was
// called, by anybody. Reading the cache after it is as good as reading the store.
// It costs one small request.
func (k *Cache[T]) Fresh(ctx context.Context) error {
	page, err := k.c.List(ctx, k.r, Limit(1), KeysOnly())
	if err != nil {
		return err
	}
	return k.Reach(ctx, page.Revision)
}

// Reach waits until the cache shows a revision: the one that a write returned,
// for instance.
func (k *Cache[T]) Reach(ctx context.Context, rev Revision) error {
	ticker := time.NewTicker(progressPeriod)
	defer ticker.Stop()
	for asked := false; ; {
		k.mu.RLock()
		now, moved, stream := k.mu.revision, k.mu.moved, k.mu.stream
		k.mu.RUnlock()
		if now >= rev && now > 0 {
			return nil
		}
		if !asked && stream != nil {
			asked = true
			stream.progress()
		}
		select {
		case <-moved:
		case <-ticker.C:
			asked = false
		case <-k.c.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return &Error{Op: pb.Watch_Watch_FullMethodName, Err: fmt.Errorf("%w: the cache shows revision %d, not yet %d", ctx.Err(), now, rev)}
		}
	}
}
