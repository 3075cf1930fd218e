package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

// op is what a record does to the table.
type op struct {
	kind kind // kindEntry or kindCut
	at   Position
	off  int64
	size int64
}

// readBatch is a complete batch as recovery found it.
type readBatch struct {
	end int64
	ops []op
	footer
	sequence uint64
}

// scanner reads one segment and tells complete batches from torn and damaged
// bytes. It changes nothing.
type scanner struct {
	head  header
	name  string
	seed  uint32
	in    window
	size  int64 // of the file
	limit int64 // where the segment ends, if it is closed; else size
	// closed: a later segment says where this one ends.
	closed bool
	visit  func(Record)

	// What it found.
	accepted int64       // end of the last complete batch
	bad      int64       // the first byte that is part of no valid record; limit if none
	reason   string      // what is wrong there
	proven   int64       // what lies below was once durable
	batches  []readBatch // complete, in order
	marked   api.Index   // the highest commit index in a proof that Mark left
	newest   HardState   // the newest term and vote in any valid copy
	garbage  int64       // end of the last byte above accepted that is this segment's and not zero
}

// scan reads batches from the start up to the first that does not verify.
// After it, accepted < proven means damage; otherwise all above accepted is
// what a crash left of a write that never counted.
func (s *scanner) scan() error {
	s.accepted, s.proven = recordsStart, s.head.proven
	if err := s.readProofs(); err != nil {
		return err
	}
	sequence, ops := s.head.sequence, []op(nil)
	for off := s.accepted; ; {
		s.bad = off
		if off >= s.limit {
			break
		}
		h, body, err := s.record(off)
		if err != nil {
			return err
		}
		if body == nil {
			s.reason = "record does not verify"
			break
		}
		next := off + h.size()
		f, isFooter := s.stateOf(h, body)
		if h.kind == kindFooter {
			if !isFooter || h.a != sequence || h.b != uint64(s.accepted) || f.synced > s.accepted || next > s.limit {
				s.reason = "footer does not fit its batch"
				break
			}
			s.batches = append(s.batches, readBatch{next, ops, f, sequence})
			s.accepted, ops = next, nil
			sequence++
		} else if h.kind == kindEntry || h.kind == kindCut {
			ops = append(ops, op{h.kind, Position{api.Index(h.a), api.Term(h.b)}, off, h.size()})
		}
		s.show(h, off, f)
		off = next
	}
	s.garbage = s.bad
	if s.closed {
		s.proven = max(s.proven, s.limit)
		return nil
	}
	return s.search(s.bad)
}

// readProofs reads what Mark left.
func (s *scanner) readProofs() error {
	for _, off := range proofs {
		h, body, err := s.record(off)
		if err != nil {
			return err
		}
		if body == nil {
			continue
		}
		if f, ok := s.stateOf(h, body); ok {
			s.marked = max(s.marked, f.state.Commit)
		}
	}
	return nil
}

// stateOf decodes the hard state of a state or footer record and notes what it
// proves. A term or vote from a torn batch may be used: to remember a vote that
// was never sent does no harm.
func (s *scanner) stateOf(h head, body []byte) (footer, bool) {
	if h.kind != kindState && h.kind != kindFooter {
		return footer{}, false
	}
	f, ok := decodeFooter(body)
	if ok {
		s.proven = max(s.proven, f.synced)
		s.newest.adopt(f.state)
	}
	return f, ok
}

// adopt takes over a newer term, or the vote of the same term.
func (hs *HardState) adopt(other HardState) {
	switch {
	case other.Term > hs.Term:
		hs.Term, hs.Vote = other.Term, other.Vote
	case other.Term == hs.Term && hs.Vote == 0:
		hs.Vote = other.Vote
	}
}

// record decodes the record at off; the body is nil if it does not verify.
func (s *scanner) record(off int64) (head, []byte, error) {
	if off >= s.size {
		return head{}, nil, nil
	}
	p, err := s.in.at(off, headSize)
	if err != nil {
		return head{}, nil, err
	}
	h, ok := decodeHead(p, s.seed, off)
	if !ok || off+h.size() > s.size {
		return head{}, nil, nil
	}
	p, err = s.in.at(off, int(h.size()))
	if err != nil || int64(len(p)) < h.size() {
		return head{}, nil, err
	}
	body, ok := decodeBody(h, p)
	if !ok {
		return head{}, nil, nil
	}
	return h, body, nil
}

// search looks at every place from off to the end of the file for records that
// survived behind a bad one, for what they prove.
func (s *scanner) search(off int64) error {
	for off < s.size {
		p, err := s.in.at(off, windowSize)
		if err != nil {
			return err
		}
		skip := skipZeros(p)
		if off += skip; skip == int64(len(p)) {
			if skip == 0 {
				return nil // the file is shorter than it was
			}
			continue
		}
		if off >= s.head.older {
			s.garbage = max(s.garbage, min(off+alignment, s.size))
		}
		if p := p[skip:]; len(p) >= 2 && binary.LittleEndian.Uint16(p) == magic {
			h, body, err := s.record(off)
			if err != nil {
				return err
			}
			if body != nil {
				s.stateOf(h, body)
				s.garbage = max(s.garbage, off+min(h.size(), headSize))
			}
		}
		off += alignment
	}
	return nil
}

// skipZeros returns how many bytes of p, in whole words, are zero at its start.
func skipZeros(p []byte) (n int64) {
	for ; len(p) >= alignment; p = p[alignment:] {
		if binary.LittleEndian.Uint64(p) != 0 {
			return n
		}
		n += alignment
	}
	for _, b := range p {
		if b != 0 {
			return n
		}
	}
	return n + int64(len(p))
}

func (s *scanner) show(h head, off int64, f footer) {
	if s.visit == nil {
		return
	}
	s.visit(Record{
		Segment: s.head.number, Offset: off, Size: h.size(), Kind: h.kind.String(),
		A: h.a, B: h.b, Type: h.typ, Length: int(h.length),
		Synced: f.synced, Last: f.last, State: f.state,
	})
}

// damage describes the first bad byte.
func (s *scanner) damage() *DamageError {
	return &DamageError{
		File:   s.name,
		Offset: s.bad,
		Reason: fmt.Sprintf("%s, but everything up to %d was durable", s.reason, s.proven),
	}
}

// window reads a file front to back in large pieces.
type window struct {
	file vfs.File
	size int64 // of the file
	buf  []byte
	off  int64 // of buf
}

const windowSize = 256 << 10

// at returns n bytes at off, fewer only at the end of the file. They are valid
// until the next call.
func (w *window) at(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), w.size-off))
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		size := int(min(int64(max(n, windowSize)), w.size-off))
		if cap(w.buf) < size {
			w.buf = make([]byte, size)
		}
		w.buf, w.off = w.buf[:size], off
		got, err := w.file.ReadAt(w.buf, off)
		w.buf = w.buf[:got]
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("wal: read %s at %d: %w", w.file.Name(), off, err)
		}
	}
	p := w.buf[off-w.off:]
	return p[:min(n, len(p))], nil
}
