package server

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/server/direct"
)

// Fields of etcdserverpb.WatchResponse; events, number 11, come from mvcc with
// tag and length.
const (
	fieldWatchID       = 2
	fieldWatchCreated  = 3
	fieldWatchCanceled = 4
	fieldWatchCompact  = 5
	fieldWatchReason   = 6
	fieldWatchFragment = 7
)

// watchSender puts the answers of one stream on the wire. Events come encoded:
// it adds the header, the watch's id, and shares the rest.
type watchSender struct {
	server *watchServer
	stream grpc.ServerStream
	direct *direct.Stream // stream, if it is one: it sends together what is sent at once, and copies short parts

	term      api.Term // for headers; asked once for all that is sent together
	header    []byte   // field 1 as it was sent last
	headerRev api.Revision
	headerAt  api.Term

	batch   *mvcc.Batch // sent last: watches of one group get it one after the other
	buffers mem.BufferSlice

	room []byte // cut into prefixes; a message is small, an allocation is not
	free []watchMessage
}

// watchMessage is an answer on its way; prefix and slots save allocations.
type watchMessage struct {
	Encoded
	prefix mem.SliceBuffer
	slots  [2]mem.Buffer
}

// Sizes of what is allocated at once. A message keeps its whole block in memory
// until the last of the block has been written.
const (
	prefixBlock  = 2048
	messageBlock = 32
	maxPrefix    = 128 // of an answer without a reason
)

func newWatchSender(s *watchServer, stream grpc.ServerStream) *watchSender {
	return &watchSender{server: s, stream: stream, direct: directOf(stream)}
}

// send sends a delivery, and those that were taken with it.
func (w *watchSender) send(d mvcc.Delivery, watches *mvcc.WatchStream) error {
	if w.direct != nil {
		w.direct.Gather()
		defer w.direct.Send()
	}
	w.term = w.server.cfg.Backend.Term()
	events := 0
	defer func() { w.server.cfg.Sent(events) }()
	for more := true; more; d, more = watches.Taken() {
		if d.Kind == mvcc.DeliverEvents {
			events += len(d.Batch.Events)
		}
		if err := w.sendOne(d); err != nil {
			return err
		}
	}
	return nil
}

func (w *watchSender) sendOne(d mvcc.Delivery) error {
	if d.Kind != mvcc.DeliverEvents {
		return w.stream.SendMsg(encodeBytes(w.control(d)))
	}
	if d.Fragment && len(d.Batch.Events) > 1 {
		if prefix := len(w.prefix(d, false)); prefix+d.Batch.Size() >= w.server.cfg.FragmentBytes {
			return w.sendFragments(d)
		}
	}
	if d.Batch != w.batch {
		w.batch, w.buffers = d.Batch, w.buffers[:0:0]
		for _, piece := range d.Batch.Wire() {
			w.buffers = append(w.buffers, mem.SliceBuffer(piece))
		}
	}
	return w.stream.SendMsg(w.message(w.prefix(d, false), w.buffers))
}

// message joins a prefix and the shared rest.
func (w *watchSender) message(prefix []byte, rest mem.BufferSlice) *Encoded {
	if len(w.free) == 0 {
		w.free = make([]watchMessage, messageBlock)
	}
	m := &w.free[0]
	if w.direct == nil {
		w.free = w.free[1:]
	}
	m.prefix = prefix
	m.Buffers = append(m.slots[:0], &m.prefix)
	m.Buffers = append(m.Buffers, rest...)
	return &m.Encoded
}

// prefix is all that comes before the events of an answer.
func (w *watchSender) prefix(d mvcc.Delivery, fragment bool) []byte {
	if len(w.room) < maxPrefix {
		w.room = make([]byte, prefixBlock)
	}
	b := append(w.room[:0:maxPrefix], w.headerFor(d.Revision)...)
	b = appendInt(b, fieldWatchID, d.ID)
	b = appendBool(b, fieldWatchFragment, fragment)
	if w.direct == nil {
		w.room = w.room[len(b):]
	}
	return b[:len(b):len(b)]
}

// sendFragments splits an answer as etcd does: each fragment but the last says
// that more follows, stays below the limit, and has one event at least.
func (w *watchSender) sendFragments(d mvcc.Delivery) error {
	limit := w.server.cfg.FragmentBytes
	events := d.Batch.Events
	for len(events) > 0 {
		prefix := w.prefix(d, true)
		size := len(prefix)
		var pieces mem.BufferSlice
		n := 0
		for ; n < len(events); n++ {
			piece := events[n].Wire(d.Batch.PrevKV)
			if size += len(piece); n > 0 && size >= limit {
				break
			}
			pieces = append(pieces, mem.SliceBuffer(piece))
		}
		if events = events[n:]; len(events) == 0 {
			prefix = w.prefix(d, false)
		}
		if err := w.stream.SendMsg(w.message(prefix, pieces)); err != nil {
			return err
		}
	}
	return nil
}

// control is an answer without events.
func (w *watchSender) control(d mvcc.Delivery) []byte {
	b := append(make([]byte, 0, maxPrefix), w.headerFor(d.Revision)...)
	b = appendInt(b, fieldWatchID, d.ID)
	b = appendBool(b, fieldWatchCreated, d.Kind == mvcc.DeliverCreated || d.Kind == mvcc.DeliverRefused)
	b = appendBool(b, fieldWatchCanceled,
		d.Kind == mvcc.DeliverRefused || d.Kind == mvcc.DeliverCanceled || d.Kind == mvcc.DeliverCompacted)
	b = appendInt(b, fieldWatchCompact, int64(d.Compact))
	if d.Reason != "" {
		b = protowire.AppendTag(b, fieldWatchReason, protowire.BytesType)
		b = protowire.AppendString(b, d.Reason)
	}
	return b
}

// headerFor returns the header of an answer; most follow one of the same
// revision.
func (w *watchSender) headerFor(rev api.Revision) []byte {
	if w.header == nil || w.headerRev != rev || w.headerAt != w.term {
		b, mark := openMessage(w.header[:0], fieldHeader)
		b = appendUint(b, fieldHeaderCluster, uint64(w.server.cfg.Cluster))
		b = appendUint(b, fieldHeaderMember, uint64(w.server.cfg.Member))
		b = appendUint(b, fieldHeaderRevision, uint64(rev))
		b = appendUint(b, fieldHeaderTerm, uint64(w.term))
		w.header, w.headerRev, w.headerAt = closeMessage(b, mark), rev, w.term
	}
	return w.header
}
