package wal

import (
	"go.etcd.io/raft/v3/raftpb"
)

// batch is what the next write will hold: records that stand at offset base of
// their segment. A footer ends it.
type batch struct {
	buf  []byte
	base int64
	seed uint32
	// stateEnd is where the last state record ends; 0 if the batch has none.
	stateEnd int64
}

// maxIdleBuffer bounds the memory that an empty batch keeps.
const maxIdleBuffer = 4 << 20

// begin empties the batch and places it.
func (b *batch) begin(base int64, seed uint32) {
	if cap(b.buf) > maxIdleBuffer {
		b.buf = nil
	}
	*b = batch{buf: b.buf[:0], base: base, seed: seed}
}

// bytes returns what is to be written. Where records of an earlier segment stand,
// that goes on with zeros to the end of the block: of a block that is written as a
// whole the system need not read the old content first.
func (b *batch) bytes(older int64) []byte {
	n := len(b.buf)
	if b.end() < older {
		b.buf = append(b.buf, zeros[:restOfBlock(b.end())]...)
	}
	p := b.buf
	b.buf = b.buf[:n]
	return p
}

// restOfBlock returns how many bytes a block has from off on, if off is inside one.
func restOfBlock(off int64) int64 { return -off & (statesApart - 1) }

// end returns the offset of the next record.
func (b *batch) end() int64 { return b.base + int64(len(b.buf)) }

func (b *batch) record(h head, body []byte) {
	b.buf = appendRecord(b.buf, h, body, b.seed, b.end())
}

func (b *batch) entry(e *raftpb.Entry) {
	b.record(head{kind: kindEntry, typ: uint8(e.GetType()), a: e.GetIndex(), b: e.GetTerm()}, e.GetData())
}

func (b *batch) cut(p Position) {
	b.record(head{kind: kindCut, a: uint64(p.Index), b: uint64(p.Term)}, nil)
}

// state adds the first copy of a new hard state; the footer holds the second.
func (b *batch) state(f footer) {
	body := f.encode()
	b.record(head{kind: kindState}, body[:])
	b.stateEnd = b.end()
}

// footer ends the batch. After a state record it stands far enough away that
// no single damaged sector takes both copies.
func (b *batch) footer(sequence uint64, f footer) {
	start := b.base
	if b.stateEnd > 0 {
		if gap := b.stateEnd + statesApart - b.end(); gap > 0 {
			b.record(head{kind: kindPad}, zeros[:gap])
		}
	}
	body := f.encode()
	b.record(head{kind: kindFooter, a: sequence, b: uint64(start)}, body[:])
}

// batchSize bounds the bytes of a batch with these entries and every other
// record that may join them.
func batchSize(entries []*raftpb.Entry) int64 {
	size := recordSize(0) + 2*recordSize(footerBody) + recordSize(statesApart)
	for _, e := range entries {
		size += recordSize(len(e.GetData()))
	}
	return size
}
