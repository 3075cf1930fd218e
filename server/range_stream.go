package server

import (
	"bytes"
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/server/admission"
)

// RangeStream answers a range in messages of about api.RangeChunkBytes. Their
// keys follow each other; header, count and more come with the last one only.
// All messages read one revision: the one that was asked for, or the latest
// when the stream began. Between messages nothing of the store is held, so a
// slow reader costs nothing; a compaction that overtakes it ends the stream.

// fieldStreamRange is RangeStreamResponse.range_response.
const fieldStreamRange = 1

func (s *Server) rangeStream(r *rangeRequest, stream grpc.ServerStream) error {
	if err := checkRangeStream(r); err != nil {
		return err
	}
	ctx := stream.Context()
	if !r.serializable {
		if err := s.node.ReadBarrier(ctx); err != nil {
			return err
		}
	}
	who, err := s.permitRead(ctx, r)
	if err != nil {
		return err
	}
	c := streamCursor{s: s, r: *r, at: max(r.revision, 0), next: r.key}
	for !c.done {
		m, err := c.message(ctx)
		if err != nil {
			return err
		}
		if err := s.fresh(who); err != nil {
			return err
		}
		if err := stream.SendMsg(m); err != nil {
			return err
		}
	}
	return nil
}

// streamCursor is how far a stream has come.
type streamCursor struct {
	s      *Server
	r      rangeRequest
	at     api.Revision // 0 until the first message fixed it
	header api.Revision // the store's revision when the stream began
	next   []byte       // first key that was not sent
	sent   int64
	done   bool
}

// message reads and encodes the next message.
func (c *streamCursor) message(ctx context.Context) (*Encoded, error) {
	pass, err := c.s.load.enterAs(ctx, admission.Request{Class: admission.List, Cost: api.RangeChunkBytes}, c.s.clock.Now())
	if err != nil {
		return nil, err
	}
	defer func() { c.s.load.gate.Leave(pass, c.s.clock.Now(), false) }()
	tx, err := c.s.Store().Read(c.at)
	if err != nil {
		return nil, err
	}
	defer tx.Release()
	if c.header == 0 {
		c.header, c.at = tx.Revision(), tx.At()
	}
	a := c.s.answers.begin(ctx)
	more, err := c.fill(ctx, tx, a)
	if err != nil {
		a.drop()
		return nil, err
	}
	if c.done {
		count := c.sent
		if more || c.r.countOnly {
			count = int64(tx.Count(c.r.key, c.r.end))
		}
		b := a.room(2*headerBytes + 2)
		b = c.s.appendFullHeader(b, c.header, c.s.node.Status().Term)
		b = appendBool(b, fieldRangeMore, more)
		a.keep(appendInt(b, fieldRangeCount, count))
	} else {
		tx.Pin() // the next message reads the same state without searching history
	}
	return wrapped(a), nil
}

// fill appends keys until the message is full, the limit is reached or the
// range ends; it sets done in the last two cases. more: the limit cut keys off.
func (c *streamCursor) fill(ctx context.Context, tx *mvcc.ReadTxn, a *answer) (more bool, err error) {
	c.done = true
	if c.r.countOnly {
		return false, nil
	}
	tx.Scan(c.next, c.r.end, func(it mvcc.Item) bool {
		switch {
		case c.r.limit > 0 && c.sent == c.r.limit:
			more = true
			return false
		case a.len() >= api.RangeChunkBytes:
			c.next, c.done = bytes.Clone(it.Key), false
			return false
		case c.sent%scanCheckEvery == 0 && ctx.Err() != nil:
			err = ctx.Err()
			return false
		}
		c.sent++
		err = c.r.emit(tx, it, func(it mvcc.Item, rec mvcc.Record) error { return a.kv(ctx, &it, rec) })
		return err == nil
	})
	return more, err
}

// wrapped puts the built RangeResponse into a RangeStreamResponse.
func wrapped(a *answer) *Encoded {
	size := a.len()
	prefix := protowire.AppendTag(make([]byte, 0, 8), fieldStreamRange, protowire.BytesType)
	prefix = protowire.AppendVarint(prefix, uint64(size))
	m := a.done()
	m.Buffers = append(mem.BufferSlice{mem.SliceBuffer(prefix)}, m.Buffers...)
	return m
}
