package mvcc

import (
	"encoding/binary"
	"sort"

	"github.com/keelson-io/keelson/api"
)

// tail holds the records that have been applied, in order, until the flusher
// has them in the engine (and a little longer). It is written by the apply
// goroutine; readers use a tailView, which is fixed with the state.
//
// A chunk's arrays are filled in place and never moved, so a view that was
// taken before sees the same records at the same places; it never looks beyond
// its own length, which is the only part that changes.
type tail struct {
	chunks []*chunk
	n      int  // records in the last chunk
	closed bool // nothing is added to the last chunk any more
	bytes  int64

	buf []byte // where the next record is encoded; its start is shared already
}

// Sizes of the tail's pieces: small enough that a flushed tail is given back
// soon, large enough that looking up a record touches few of them.
const (
	chunkRecords   = 512
	chunkBufBytes  = 64 << 10
	recordOverhead = 48 // of a record in memory, beside its bytes
)

type chunk struct {
	recs  [chunkRecords]tailRecord
	n     int   // set when the next chunk is begun
	bytes int64 // owned by the writer
}

type tailRecord struct {
	rev  revision
	data []byte // with its trailer
}

// tailView is the tail as one state has it.
type tailView struct {
	chunks []*chunk
	n      int // records in the last chunk
}

func (t *tail) view() tailView { return tailView{chunks: t.chunks, n: t.n} }

// append encodes the item's record, and returns its bytes without the trailer.
func (t *tail) append(it *item, value []byte) Record {
	size := recordSize(it, value)
	if cap(t.buf)-len(t.buf) < size+recordSlack {
		t.buf = make([]byte, 0, max(size+recordSlack, chunkBufBytes))
	}
	start := len(t.buf)
	t.buf = appendRecord(t.buf, it, value)
	data := t.buf[start:len(t.buf):len(t.buf)]
	if len(t.chunks) == 0 || t.closed || t.n == chunkRecords {
		if len(t.chunks) > 0 {
			t.chunks[len(t.chunks)-1].n = t.n
		}
		t.chunks = append(t.chunks, &chunk{})
		t.n, t.closed = 0, false
	}
	c := t.chunks[len(t.chunks)-1]
	c.recs[t.n] = tailRecord{rev: it.rev(), data: data}
	t.n++
	c.bytes += int64(len(data)) + recordOverhead
	t.bytes += int64(len(data)) + recordOverhead
	return Record(data[: len(data)-trailerLen : len(data)-trailerLen])
}

// sum returns the checksum of the record that was appended last.
func (t *tail) sum() uint32 { return binary.LittleEndian.Uint32(t.buf[len(t.buf)-4:]) }

// cut makes the next record start a new chunk, so that what is there now can
// be dropped as a whole.
func (t *tail) cut() { t.closed = true }

// drop forgets the chunks whose records are all up to rev.
func (t *tail) drop(rev api.Revision) {
	v, k := t.view(), 0
	for k < len(t.chunks) && v.last(k) <= rev {
		t.bytes -= t.chunks[k].bytes
		k++
	}
	if k == 0 {
		return
	}
	if k == len(t.chunks) {
		t.n = 0
	}
	t.chunks = append([]*chunk(nil), t.chunks[k:]...)
}

// count returns the records of chunk k; there is at least one.
func (v tailView) count(k int) int {
	if k == len(v.chunks)-1 {
		return v.n
	}
	return v.chunks[k].n
}

// last returns the revision of the last record of chunk k.
func (v tailView) last(k int) api.Revision { return v.chunks[k].recs[v.count(k)-1].rev.main }

// seek returns the place of the first record not before (main, sub).
func (v tailView) seek(at revision) (k, i int) {
	k = sort.Search(len(v.chunks), func(k int) bool { return at.before(v.chunks[k].recs[0].rev) }) - 1
	if k < 0 {
		return 0, 0
	}
	c := v.chunks[k]
	i = sort.Search(v.count(k), func(i int) bool { return !c.recs[i].rev.before(at) })
	return k, i
}

// find returns the record with its trailer, or nil.
func (v tailView) find(at revision) []byte {
	if len(v.chunks) == 0 {
		return nil
	}
	k, i := v.seek(at)
	if i < v.count(k) {
		if r := &v.chunks[k].recs[i]; r.rev.main == at.main && r.rev.sub == at.sub {
			return r.data
		}
	}
	return nil
}

// scan calls fn for the records with from <= main <= to until it returns false.
func (v tailView) scan(from, to api.Revision, fn func(revision, []byte) bool) bool {
	if len(v.chunks) == 0 {
		return true
	}
	k, i := v.seek(revision{main: from})
	for ; k < len(v.chunks); k, i = k+1, 0 {
		c := v.chunks[k]
		for n := v.count(k); i < n; i++ {
			if c.recs[i].rev.main > to {
				return true
			}
			if !fn(c.recs[i].rev, c.recs[i].data) {
				return false
			}
		}
	}
	return true
}
