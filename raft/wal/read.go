package wal

import (
	"fmt"
	"math/bits"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
)

// readChunk bounds one read of the file; a longer entry is read alone.
const readChunk = 1 << 20

// Entries returns the entries [lo, hi), synced or not, as many as fit into
// maxBytes (of their protobuf encoding), but at least one. They are verified
// again: what the disk lost since Open is reported as *DamageError. ErrCompacted
// and ErrUnavailable say that lo or hi is out of the log.
func (w *WAL) Entries(lo, hi api.Index, maxBytes uint64) ([]*raftpb.Entry, error) {
	var entries []*raftpb.Entry
	var size uint64
	for lo < hi {
		s, err := w.span(lo, hi, min(maxBytes-size, readChunk))
		if err != nil {
			return nil, err
		}
		more, err := s.read()
		if err != nil {
			return nil, err
		}
		for _, e := range more {
			size += encodedSize(e)
			if size > maxBytes && len(entries) > 0 {
				return entries, nil
			}
			entries = append(entries, e)
		}
		if size >= maxBytes {
			return entries, nil
		}
		lo += api.Index(len(more))
	}
	return entries, nil
}

// encodedSize is proto.Size(e), without the detour through reflection.
func encodedSize(e *raftpb.Entry) uint64 {
	varint := func(v uint64) uint64 { return uint64(bits.Len64(v|1)+6) / 7 }
	size := 2 + 1 + varint(e.GetTerm()) + 1 + varint(e.GetIndex())
	if n := uint64(len(e.GetData())); n > 0 {
		size += 1 + varint(n) + n
	}
	return size
}

// span is a stretch of one segment that holds consecutive live entries.
type span struct {
	seg     *segment
	first   api.Index
	offsets []uint32 // of the entries
	from    int64
	bytes   []byte // what stands there, if it was not written yet
	size    int64
}

// span finds entries from lo on, up to hi and the end of a segment, and holds
// the segment for reading them.
func (w *WAL) span(lo, hi api.Index, maxBytes uint64) (*span, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	t, b := w.mu.table, &w.mu.batch
	switch {
	case w.mu.closed:
		return nil, ErrClosed
	case lo <= t.start.Index:
		return nil, ErrCompacted
	case hi > t.last.Index+1:
		return nil, ErrUnavailable
	}
	seg := t.find(lo)
	from, end := seg.offset(lo), lo
	buffered := seg == t.active() && from >= b.base
	for end < hi && end <= seg.last() {
		if end > lo && (uint64(seg.endOf(end)-from) > maxBytes || !buffered && seg == t.active() && seg.offset(end) >= b.base) {
			break
		}
		end++
	}
	// The offsets are copied: a later cut and append overwrites them.
	s := &span{seg: seg, first: lo, from: from, size: seg.endOf(end-1) - from}
	s.offsets = slices.Clone(seg.offsets[lo-seg.first : end-seg.first])
	if buffered {
		s.bytes = slices.Clone(b.buf[from-b.base:][:s.size])
		return s, nil
	}
	seg.acquire()
	return s, nil
}

// block holds one entry with what its pointers point to, so that a span of
// entries takes one allocation.
type block struct {
	entry       raftpb.Entry
	term, index uint64
	typ         raftpb.EntryType
}

func (s *span) read() (entries []*raftpb.Entry, err error) {
	if s.bytes == nil {
		s.bytes = make([]byte, s.size)
		_, err := s.seg.file.ReadAt(s.bytes, s.from)
		if closeErr := s.seg.release(); err == nil {
			err = closeErr
		}
		if err != nil {
			return nil, fmt.Errorf("wal: read %s at %d: %w", s.seg.name(), s.from, err)
		}
	}
	blocks := make([]block, len(s.offsets))
	entries = make([]*raftpb.Entry, len(blocks))
	for k := range blocks {
		off := int64(s.offsets[k]) * alignment
		h, data, ok := decodeRecord(s.bytes[off-s.from:], s.seg.checksum, off)
		if !ok || h.kind != kindEntry || h.a != uint64(s.first)+uint64(k) {
			return nil, &DamageError{s.seg.name(), off, fmt.Sprintf("entry %d does not verify", uint64(s.first)+uint64(k))}
		}
		entries[k] = blocks[k].set(h, data)
	}
	return entries, nil
}

func (b *block) set(h head, data []byte) *raftpb.Entry {
	b.index, b.term, b.typ = h.a, h.b, raftpb.EntryType(h.typ)
	b.entry.Index, b.entry.Term, b.entry.Type = &b.index, &b.term, &b.typ
	if len(data) > 0 {
		b.entry.Data = data
	}
	return &b.entry
}

// decodeRecord decodes and checks the whole record at the start of p.
func decodeRecord(p []byte, seed uint32, off int64) (head, []byte, bool) {
	h, ok := decodeHead(p, seed, off)
	if !ok || int64(len(p)) < h.size() {
		return head{}, nil, false
	}
	body, ok := decodeBody(h, p[:h.size()])
	return h, body, ok
}
