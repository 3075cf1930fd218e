package mvcc

import (
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/api"
)

// Record is an encoded mvccpb.KeyValue message whose checksum has been verified
// and cut off.
type Record []byte

// Event is one change of one key, as watchers see it. Events are built once,
// by the apply goroutine or by a history read, and then shared: everything
// below is fixed when the event is handed over and never changes, save the
// caches, which are filled in at most once and atomically.
//
// Order: (Rev, Sub) rises over the events of a store; all events of one Rev
// belong to one transaction and are delivered together.
type Event struct {
	Rev    api.Revision
	Sub    int64
	Key    []byte
	Delete bool
	Create bool        // create_revision == mod_revision: the key was not there before
	Lease  api.LeaseID // of the new value; 0 for a delete
	// KV is the encoded mvccpb.KeyValue without checksum. For a delete it has
	// the key and mod_revision only. Its bytes live as long as the event.
	KV Record

	// PrevRev and PrevSub name the record that held the value before the
	// event's transaction; PrevRev is 0 when there was none. Source reads it. Prev may be set directly
	// instead when the bytes are at hand.
	PrevRev api.Revision
	PrevSub int64
	Source  PrevSource
	Prev    Record

	plain atomic.Pointer[[]byte] // the event as it goes on the wire, without prev_kv
	full  atomic.Pointer[[]byte] // the same with prev_kv
}

// PrevSource reads the record of an older revision. A published event's source
// is asked under the hub's lock, before the event's state is exposed, so the
// compaction that could delete the record has not begun yet. The bytes live as
// long as the event does.
type PrevSource interface {
	PrevRecord(rev api.Revision, sub int64) (Record, error)
}

// FixPrev reads the previous value, once. It is called when the first watcher
// that wants it matches, and before anyone else has the event: it is not safe
// for concurrent use. A non-nil error is ErrCompacted or a corrupt record.
func (e *Event) FixPrev() error {
	if e.Prev != nil || e.PrevRev == 0 || e.Source == nil {
		return nil
	}
	kv, err := e.Source.PrevRecord(e.PrevRev, e.PrevSub)
	if err != nil {
		return err
	}
	e.Prev = kv
	return nil
}

// Field numbers of etcd's mvccpb.Event and of WatchResponse.events.
const (
	fieldEventType    = 1
	fieldEventKV      = 2
	fieldEventPrevKV  = 3
	fieldWatchEvents  = 11
	eventTypeDelete   = 1
	eventFramingBytes = 24 // tags and lengths around the two records, at most
)

// Wire returns the event as one element of WatchResponse.events, tag and
// length included. It is encoded once for each of the two forms; the returned
// slice is shared and must not be changed.
func (e *Event) Wire(withPrev bool) []byte {
	withPrev = withPrev && e.Prev != nil
	cache := &e.plain
	if withPrev {
		cache = &e.full
	}
	if b := cache.Load(); b != nil {
		return *b
	}
	b := e.encode(withPrev)
	cache.Store(&b) // two racing encoders store equal bytes
	return b
}

// WireSize returns what Wire will take, within a few bytes of framing.
func (e *Event) WireSize(withPrev bool) int {
	n := len(e.KV) + eventFramingBytes
	if withPrev {
		n += len(e.Prev)
	}
	return n
}

func (e *Event) encode(withPrev bool) []byte {
	size := protowire.SizeTag(fieldEventKV) + protowire.SizeBytes(len(e.KV))
	if e.Delete {
		size += protowire.SizeTag(fieldEventType) + protowire.SizeVarint(eventTypeDelete)
	}
	if withPrev {
		size += protowire.SizeTag(fieldEventPrevKV) + protowire.SizeBytes(len(e.Prev))
	}
	b := make([]byte, 0, protowire.SizeTag(fieldWatchEvents)+protowire.SizeBytes(size))
	b = protowire.AppendTag(b, fieldWatchEvents, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	if e.Delete {
		b = protowire.AppendTag(b, fieldEventType, protowire.VarintType)
		b = protowire.AppendVarint(b, eventTypeDelete)
	}
	b = protowire.AppendTag(b, fieldEventKV, protowire.BytesType)
	b = protowire.AppendBytes(b, e.KV)
	if withPrev {
		b = protowire.AppendTag(b, fieldEventPrevKV, protowire.BytesType)
		b = protowire.AppendBytes(b, e.Prev)
	}
	return b
}
