package resource

import (
	"bytes"
	"compress/flate"
	"hash/crc32"
	"slices"
	"sync"
	"time"
)

// Compressing a list costs many times what sending it does, and clients that list ask
// for it: a controller that starts, or lost its watch, gets what others got before. So
// the compressed form of some neighbouring objects is kept. Each such piece is
// compressed by itself and ends on a byte, so that pieces make one gzip stream in any
// order, with the separators between them stored as they are.
const (
	// pressBudget bounds the pieces kept; they are made anew for every list beyond it.
	pressBudget = 64 << 20
	// pressLife is how long a piece is kept that no list contains.
	pressLife = time.Minute
	// A piece ends at an object whose name says so, once it is as long as the window
	// of the compression, and so begins again at the same objects after one was added
	// or went.
	pieceBytes    = 32 << 10
	maxPieceBytes = 4 * pieceBytes
	pieceEnds     = 8 // one of so many names
)

// piece is what some objects of a list became.
type piece struct {
	marks  []mark // of its objects
	zipped []byte
	sum    checksum
	used   time.Time // under the lock of pieces
}

// mark tells an object at a revision from all others of its collection.
type mark struct {
	key string
	rev int64
}

// pieceKey is where a piece is looked for; its marks say whether it is the one.
type pieceKey struct {
	prefix, form string
	first        mark
	n            int
}

// pieces keeps those that lists have used lately.
type pieces struct {
	mu struct {
		sync.Mutex
		kept  map[pieceKey]*piece
		bytes int
	}
}

// pieceOf is how many of the entries the next piece has.
func pieceOf(entries []*entry) int {
	size := 0
	for i, e := range entries {
		size += len(e.json)
		if size >= maxPieceBytes || size >= pieceBytes && nameHash(e.key)%pieceEnds == 0 {
			return i + 1
		}
	}
	return len(entries)
}

// nameHash is FNV-1a's.
func nameHash(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

func (p *piece) is(entries []*entry) bool {
	return slices.EqualFunc(p.marks, entries, func(m mark, e *entry) bool { return m.rev == e.rev && m.key == e.key })
}

// cost is what keeping a piece takes, about.
func (p *piece) cost() int { return cap(p.zipped) + 64*len(p.marks) }

// get returns the piece of the entries, made by press unless it is kept.
func (ps *pieces) get(prefix, form string, entries []*entry, now time.Time, press func([]*entry) *piece) *piece {
	key := pieceKey{prefix, form, mark{entries[0].key, entries[0].rev}, len(entries)}
	ps.mu.Lock()
	p := ps.mu.kept[key]
	if p != nil && p.is(entries) {
		p.used = now
		ps.mu.Unlock()
		return p
	}
	ps.mu.Unlock()
	p = press(entries)
	for _, e := range entries {
		p.marks = append(p.marks, mark{e.key, e.rev})
	}
	p.used = now
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if old := ps.mu.kept[key]; old != nil {
		ps.mu.bytes -= old.cost()
		delete(ps.mu.kept, key)
	}
	if ps.mu.bytes+p.cost() <= pressBudget {
		if ps.mu.kept == nil {
			ps.mu.kept = map[pieceKey]*piece{}
		}
		ps.mu.kept[key] = p
		ps.mu.bytes += p.cost()
	}
	return p
}

// expire drops what no list has used for pressLife.
func (ps *pieces) expire(now time.Time) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for key, p := range ps.mu.kept {
		if now.Sub(p.used) > pressLife {
			ps.mu.bytes -= p.cost()
			delete(ps.mu.kept, key)
		}
	}
}

// presser compresses pieces.
type presser struct {
	to    *flate.Writer
	plain []byte
	out   bytes.Buffer
}

var pressers = sync.Pool{New: func() any {
	p := &presser{}
	p.to, _ = flate.NewWriter(&p.out, gzipSpeed) // the level is a valid one
	return p
}}

// press compresses what fill appends. It ends on a byte and refers to nothing before.
func press(fill func([]byte) []byte) *piece {
	p := pressers.Get().(*presser)
	defer pressers.Put(p)
	p.plain = fill(p.plain[:0])
	p.out.Reset()
	p.to.Reset(&p.out)
	_, _ = p.to.Write(p.plain) // into memory
	_ = p.to.Flush()
	return &piece{zipped: bytes.Clone(p.out.Bytes()), sum: sumOf(p.plain)}
}

// checksum is the CRC-32 of some bytes, in the form that can be joined with another's.
type checksum struct {
	crc   uint32
	bytes uint32 // modulo 2^32, as gzip tells it
	shift uint32 // x^(8*bytes) modulo the polynomial: what so many bytes make of a CRC before them
}

func sumOf(b []byte) checksum {
	return checksum{crc32.ChecksumIEEE(b), uint32(len(b)), shiftOf(len(b))}
}

// then is the checksum of c's bytes and next's behind them.
func (c checksum) then(next checksum) checksum {
	return checksum{timesModulo(next.shift, c.crc) ^ next.crc, c.bytes + next.bytes, timesModulo(c.shift, next.shift)}
}

// unit is the polynomial 1: the highest bit is the lowest power.
const unit = 1 << 31

// timesModulo multiplies polynomials over two elements modulo CRC-32's.
func timesModulo(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a&unit != 0 {
			product ^= b
		}
		b = b>>1 ^ crc32.IEEE*(b&1)
	}
	return product
}

// shiftOf is x^(8*n), by squaring.
func shiftOf(n int) uint32 {
	shift, square := uint32(unit), uint32(unit>>8) // x^8
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			shift = timesModulo(shift, square)
		}
		square = timesModulo(square, square)
	}
	return shift
}
