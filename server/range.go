package server

import (
	"bytes"
	"context"
	"math"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/planted"
)

// keyspace is one state of the store: a read transaction, or a write transaction
// with its own changes. End keys are etcd's: empty means the single key, "\x00"
// means every key from key on.
type keyspace interface {
	// Revision is the store's revision in this state, which answers carry.
	Revision() api.Revision
	Get(key []byte) (mvcc.Item, bool)
	// Scan visits live keys in byte order until fn returns false.
	Scan(key, end []byte, fn func(mvcc.Item) bool)
	Count(key, end []byte) int
	// Record returns the stored KeyValue message; valid while the view is.
	Record(it mvcc.Item) (mvcc.Record, error)
}

// rangeTail is what an answer tells besides its keys.
type rangeTail struct {
	count int64 // keys of the whole range at the read revision, filters and limit aside
	more  bool  // the limit cut something off
}

// inKeyOrder reports whether the answer has the index's own order. A sort
// target without an order counts as such, as in etcd, although it sorts later.
func (r *rangeRequest) inKeyOrder() bool {
	return r.sortOrder == int32(pb.RangeRequest_NONE) ||
		(r.sortTarget == int32(pb.RangeRequest_KEY) && r.sortOrder == int32(pb.RangeRequest_ASCEND))
}

// sorts reports whether the collected keys must be sorted.
func (r *rangeRequest) sorts() bool {
	return !r.inKeyOrder() || r.sortTarget != int32(pb.RangeRequest_KEY) && r.sortOrder == int32(pb.RangeRequest_NONE)
}

// filtered reports whether keys are left out by their revisions.
func (r *rangeRequest) filtered() bool {
	return r.minMod != 0 || r.maxMod != 0 || r.minCreate != 0 || r.maxCreate != 0
}

func (r *rangeRequest) keeps(it *mvcc.Item) bool {
	switch mod, create := int64(it.Mod), int64(it.Create); {
	case r.maxMod != 0 && mod > r.maxMod,
		r.minMod != 0 && mod < r.minMod,
		r.maxCreate != 0 && create > r.maxCreate,
		r.minCreate != 0 && create < r.minCreate:
		return false
	}
	return true
}

// single reports whether the request names one key.
func (r *rangeRequest) single() bool { return len(r.end) == 0 }

// evaluate calls emit for each key of the answer, in order. The record is nil
// when the item alone makes the answer (keys only).
func (r *rangeRequest) evaluate(ctx context.Context, v keyspace, emit func(mvcc.Item, mvcc.Record) error) (rangeTail, error) {
	return r.evaluatePages(ctx, v, emit, nil)
}

// evaluatePages is evaluate with keys in pages as well, where that is possible
// and page is not nil.
func (r *rangeRequest) evaluatePages(ctx context.Context, v keyspace, emit func(mvcc.Item, mvcc.Record) error, page func(mvcc.Page) error) (rangeTail, error) {
	switch {
	case r.countOnly:
		return rangeTail{count: int64(v.Count(r.key, r.end))}, nil
	case r.sorts() || r.filtered():
		return r.evaluateSorted(ctx, v, emit)
	case r.single():
		it, ok := v.Get(r.key)
		if !ok {
			return rangeTail{}, nil
		}
		return rangeTail{count: 1}, r.emit(v, it, emit)
	}
	var tail rangeTail
	var err error
	item := func(it mvcc.Item) bool {
		if r.limit > 0 && tail.count >= r.limit && !(planted.LimitPlusOne && tail.count == r.limit) {
			tail.more = true
			return false
		}
		if tail.count%scanCheckEvery == 0 && ctx.Err() != nil {
			err = ctx.Err()
			return false
		}
		tail.count++
		err = r.emit(v, it, emit)
		return err == nil
	}
	if tx, ok := v.(*mvcc.ReadTxn); ok && page != nil && !r.keysOnly {
		tx.ScanPages(r.key, r.end, r.limit, func(p mvcc.Page) bool {
			tail.count += int64(p.Keys)
			if err = ctx.Err(); err == nil {
				err = page(p)
			}
			return err == nil
		}, item)
	} else {
		v.Scan(r.key, r.end, item)
	}
	if tail.more {
		tail.count = int64(v.Count(r.key, r.end))
	}
	return tail, err
}

// scanCheckEvery is how many keys a scan goes on before it looks whether its
// caller has left.
const scanCheckEvery = 256

func (r *rangeRequest) emit(v keyspace, it mvcc.Item, emit func(mvcc.Item, mvcc.Record) error) error {
	if r.keysOnly {
		return emit(it, nil)
	}
	rec, err := v.Record(it)
	if err != nil {
		return err
	}
	return emit(it, rec)
}

// evaluateSorted collects first, then filters, sorts and cuts. When the order
// is NONE but a target is given, etcd cuts before it sorts; so do we.
func (r *rangeRequest) evaluateSorted(ctx context.Context, v keyspace, emit func(mvcc.Item, mvcc.Record) error) (rangeTail, error) {
	stop := int64(math.MaxInt64)
	if r.inKeyOrder() && !r.filtered() && r.limit > 0 && r.limit < math.MaxInt64 {
		stop = r.limit + 1
	}
	found := sortable{by: r.sortTarget}
	var tail rangeTail
	var err error
	v.Scan(r.key, r.end, func(it mvcc.Item) bool {
		if tail.count == stop {
			tail.count = int64(v.Count(r.key, r.end))
			return false
		}
		if tail.count%scanCheckEvery == 0 && ctx.Err() != nil {
			err = ctx.Err()
			return false
		}
		tail.count++
		if r.keeps(&it) {
			err = found.add(v, it)
		}
		return err == nil
	})
	if err != nil {
		return tail, err
	}
	if r.sorts() {
		found.sort(r.sortOrder)
	}
	if r.limit > 0 && int64(len(found.items)) > r.limit {
		found.items, tail.more = found.items[:r.limit], true
	}
	for i, it := range found.items {
		switch {
		case found.values == nil:
			err = r.emit(v, it, emit)
		case r.keysOnly: // etcd reads the value to sort by it, and so keeps the lease
			err = emit(it, found.recs[i].withoutValue())
		default:
			err = emit(it, mvcc.Record(found.recs[i]))
		}
		if err != nil {
			return tail, err
		}
	}
	return tail, nil
}

// sortable holds keys to be sorted as etcd sorts them: by the standard
// library's sort.Sort, whose order among equals is the same for the same input.
type sortable struct {
	by     int32
	items  []mvcc.Item
	recs   []record // when sorted by value
	values [][]byte // when sorted by value
}

func (s *sortable) add(v keyspace, it mvcc.Item) error {
	s.items = append(s.items, it)
	if s.by != int32(pb.RangeRequest_VALUE) {
		return nil
	}
	rec, err := v.Record(it)
	if err != nil {
		return err
	}
	value, err := record(rec).value()
	if err != nil {
		return err
	}
	s.recs, s.values = append(s.recs, record(rec)), append(s.values, value)
	return nil
}

func (s *sortable) sort(order int32) {
	if order == int32(pb.RangeRequest_DESCEND) {
		sort.Sort(sort.Reverse(s))
		return
	}
	sort.Sort(s)
}

func (s *sortable) Len() int { return len(s.items) }

func (s *sortable) Swap(i, j int) {
	s.items[i], s.items[j] = s.items[j], s.items[i]
	if s.values != nil {
		s.recs[i], s.recs[j] = s.recs[j], s.recs[i]
		s.values[i], s.values[j] = s.values[j], s.values[i]
	}
}

func (s *sortable) Less(i, j int) bool {
	a, b := &s.items[i], &s.items[j]
	switch pb.RangeRequest_SortTarget(s.by) {
	case pb.RangeRequest_VERSION:
		return a.Version < b.Version
	case pb.RangeRequest_CREATE:
		return a.Create < b.Create
	case pb.RangeRequest_MOD:
		return a.Mod < b.Mod
	case pb.RangeRequest_VALUE:
		return bytes.Compare(s.values[i], s.values[j]) < 0
	}
	return bytes.Compare(a.Key, b.Key) < 0
}
