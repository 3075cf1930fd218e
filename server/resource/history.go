package resource

import (
	"context"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
)

// replay reads changes of a kind from the store's history: those after rev, until
// the collection's ring takes over. emit gets them in order; replay returns the
// revision that it has come to. mvcc.ErrCompacted: history does not reach back to
// rev.
func replay(ctx context.Context, store Store, c *collection, rev int64, emit func(*change) error) (int64, error) {
	stream := store.Watch()
	defer stream.Close()
	_, err := stream.Watch(mvcc.WatchRequest{
		Key: []byte(c.kind.Prefix), End: prefixEnd(c.kind.Prefix), Start: api.Revision(rev + 1), PrevKV: true,
	})
	if err != nil {
		return rev, err
	}
	stream.RequestProgress()
	for {
		d, err := stream.Next(ctx)
		if err != nil {
			return rev, err
		}
		switch d.Kind {
		case mvcc.DeliverEvents:
			for _, ev := range d.Batch.Events {
				ch, err := c.changeOf(ev)
				if err == nil {
					err = emit(ch)
				}
				if err != nil {
					return rev, err
				}
			}
			rev = int64(d.Batch.Revision)
		case mvcc.DeliverProgress:
			rev = max(rev, int64(d.Revision))
		case mvcc.DeliverCompacted:
			return rev, mvcc.ErrCompacted
		case mvcc.DeliverCanceled, mvcc.DeliverRefused:
			return rev, errHistoryGone
		default:
			continue
		}
		if _, _, ok := c.after(nil, rev); ok {
			return rev, nil
		}
		if d.Kind == mvcc.DeliverProgress {
			stream.RequestProgress()
		}
	}
}

// changeOf makes a change of an event of history, which brings its previous value.
func (c *collection) changeOf(ev *mvcc.Event) (*change, error) {
	ch := &change{rev: int64(ev.Rev), key: string(ev.Key[len(c.kind.Prefix):])}
	var err error
	if ev.PrevRev != 0 {
		if ch.old, err = newEntry(c.kind, ch.key, valueOf(ev.Prev), int64(ev.PrevRev)); err != nil {
			return nil, err
		}
	}
	if !ev.Delete {
		ch.new, err = newEntry(c.kind, ch.key, valueOf(ev.KV), int64(ev.Rev))
	}
	return ch, err
}
