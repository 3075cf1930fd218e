package resource

import (
	"encoding/binary"
	"io"
)

// zipped is a gzip stream (RFC 1952) of pieces and of short texts between them, on
// its way to a client.
type zipped struct {
	to  io.Writer
	buf []byte
	sum checksum
	err error // the client has left
}

// gzipHead says: deflate, no name, no time, the fastest compression, no system.
var gzipHead = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255}

func newZipped(to io.Writer) *zipped {
	return &zipped{to: to, buf: append(make([]byte, 0, flushBytes+maxPieceBytes), gzipHead...), sum: sumOf(nil)}
}

// maxStored is what a stored block has room for (RFC 1951, 3.2.4).
const maxStored = 1<<16 - 1

// text appends some bytes as they are; last ends the stream.
func (z *zipped) text(b []byte, last bool) {
	z.sum = z.sum.then(sumOf(b))
	for {
		n := min(len(b), maxStored)
		var final byte
		if last && n == len(b) {
			final = 1
		}
		z.buf = append(z.buf, final)
		z.buf = binary.LittleEndian.AppendUint16(z.buf, uint16(n))
		z.buf = binary.LittleEndian.AppendUint16(z.buf, ^uint16(n))
		z.buf = append(z.buf, b[:n]...)
		if b = b[n:]; len(b) == 0 {
			return
		}
	}
}

// piece appends a piece, and sends what there is when it is enough.
func (z *zipped) piece(p *piece) {
	z.sum = z.sum.then(p.sum)
	z.buf = append(z.buf, p.zipped...)
	if len(z.buf) >= flushBytes {
		z.flush()
	}
}

func (z *zipped) flush() {
	if z.err == nil {
		_, z.err = z.to.Write(z.buf)
	}
	z.buf = z.buf[:0]
}

// end appends the last text and sends the rest.
func (z *zipped) end(b []byte) {
	z.text(b, true)
	z.buf = binary.LittleEndian.AppendUint32(z.buf, z.sum.crc)
	z.buf = binary.LittleEndian.AppendUint32(z.buf, z.sum.bytes)
	z.flush()
}
