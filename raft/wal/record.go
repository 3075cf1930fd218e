package wal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/planted"
)

// kind tells what a record says.
type kind uint8

const (
	// kindEntry: a is the index, b the term, typ Raft's entry type, the body its data.
	kindEntry kind = iota + 1
	// kindCut: the log now ends at index a, whose term is b; later entries are void.
	kindCut
	// kindState: the hard state (a footer body) has a new term or vote.
	kindState
	// kindPad: zeros that keep a state record and its footer apart.
	kindPad
	// kindFooter: the batch that began at offset b is complete; a is its sequence.
	kindFooter
)

func (k kind) String() string {
	names := [...]string{"?", "entry", "cut", "state", "pad", "footer"}
	if int(k) >= len(names) {
		return names[0]
	}
	return names[k]
}

const (
	headSize   = 32
	footerBody = 40
	footerSize = headSize + footerBody
	alignment  = 8
	// maxBody bounds what a length may claim. Raft's entries are bounded far
	// below; it only keeps a decoder from asking for absurd memory.
	maxBody = 1 << 30
	// statesApart is the distance between the two copies of a new hard state:
	// no single damaged sector, of any common size, holds both.
	statesApart = 4096
)

// magic opens each record, so that a search for one skips other bytes fast.
const magic = 0x4c57 // "WL"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head is the first part of a record. Its bytes, little-endian:
//
//	0  magic    uint16
//	2  kind     uint8
//	3  typ      uint8
//	4  length   uint32  of the body
//	8  a        uint64
//	16 b        uint64
//	24 bodySum  uint32  CRC-32C of the body
//	28 headSum  uint32  CRC-32C of bytes 0–27, started from the place
//
// The body follows, then zeros up to a multiple of 8.
type head struct {
	kind    kind
	typ     uint8
	length  uint32
	a, b    uint64
	bodySum uint32
}

// size returns the bytes of the whole record.
func (h head) size() int64 { return recordSize(int(h.length)) }

func recordSize(body int) int64 { return (headSize + int64(body) + alignment - 1) &^ (alignment - 1) }

// place is where a checksum starts from: the identity of the segment and the
// record's offset in it. The same bytes elsewhere do not pass.
//
// CRC is linear, so different starts give different sums of the same bytes:
// a record moved within its segment is always seen, one moved from another
// segment or another member's log escapes with a chance of 2^-32.
func place(seed uint32, off int64) uint32 { return seed ^ uint32(off/alignment) }

// appendRecord adds a record that will stand at offset off of its segment.
func appendRecord(buf []byte, h head, body []byte, seed uint32, off int64) []byte {
	n := len(buf)
	buf = append(buf, zeros[:headSize]...)
	buf = append(buf, body...)
	h.length = uint32(len(body))
	h.bodySum = crc32.Checksum(buf[n+headSize:], castagnoli)
	buf = append(buf, zeros[:h.size()-headSize-int64(len(body))]...)

	p := buf[n:]
	binary.LittleEndian.PutUint16(p, magic)
	p[2], p[3] = byte(h.kind), h.typ
	binary.LittleEndian.PutUint32(p[4:], h.length)
	binary.LittleEndian.PutUint64(p[8:], h.a)
	binary.LittleEndian.PutUint64(p[16:], h.b)
	binary.LittleEndian.PutUint32(p[24:], h.bodySum)
	binary.LittleEndian.PutUint32(p[28:], crc32.Update(place(seed, off), castagnoli, p[:28]))
	return buf
}

var zeros [statesApart]byte

// decodeHead decodes and checks the head at offset off, but not the body.
func decodeHead(p []byte, seed uint32, off int64) (head, bool) {
	if len(p) < headSize || binary.LittleEndian.Uint16(p) != magic {
		return head{}, false
	}
	h := head{
		kind:    kind(p[2]),
		typ:     p[3],
		length:  binary.LittleEndian.Uint32(p[4:]),
		a:       binary.LittleEndian.Uint64(p[8:]),
		b:       binary.LittleEndian.Uint64(p[16:]),
		bodySum: binary.LittleEndian.Uint32(p[24:]),
	}
	sum := crc32.Update(place(seed, off), castagnoli, p[:headSize-4])
	ok := sum == binary.LittleEndian.Uint32(p[28:]) &&
		h.kind >= kindEntry && h.kind <= kindFooter && h.length <= maxBody
	return h, ok
}

// decodeBody checks the rest of a record, p being the whole of it.
func decodeBody(h head, p []byte) ([]byte, bool) {
	end := headSize + int(h.length)
	body := p[headSize:end:end]
	if crc32.Checksum(body, castagnoli) != h.bodySum && !planted.IgnoreChecksum {
		return nil, false
	}
	for _, b := range p[end:h.size()] {
		if b != 0 {
			return nil, false
		}
	}
	return body, true
}

// footer is the body of footers and of state records.
type footer struct {
	// synced is the end of the last batch of this segment known to be durable
	// when this record was written: what lies below and does not verify is
	// damage.
	synced int64
	last   api.Index // the log's last entry
	state  HardState
}

func (f footer) encode() (p [footerBody]byte) {
	for i, v := range []uint64{uint64(f.synced), uint64(f.last), uint64(f.state.Term), uint64(f.state.Vote), uint64(f.state.Commit)} {
		binary.LittleEndian.PutUint64(p[8*i:], v)
	}
	return p
}

func decodeFooter(p []byte) (footer, bool) {
	if len(p) != footerBody {
		return footer{}, false
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(p[8*i:]) }
	f := footer{
		synced: int64(word(0)),
		last:   api.Index(word(1)),
		state:  HardState{Term: api.Term(word(2)), Vote: api.MemberID(word(3)), Commit: api.Index(word(4))},
	}
	return f, f.synced >= 0
}
