package direct

import (
	"net"
	"sync"

	"google.golang.org/grpc/mem"
)

// gathered is what the next write sends: bytes that were copied into buf, and between them
// parts of answers as they are.
//
// Invariant: what is lent stays as it is until it is written: a buffer of an answer is freed after
// the write of its last byte.
type gathered struct {
	base []byte // where buf begins
	buf  []byte

	lends bool
	parts net.Buffers     // in order; buf's bytes from cut on follow
	cut   int             // of buf
	lent  int             // bytes in parts that are not buf's
	spent mem.BufferSlice // to be freed
}

const (
	// batchBytes is about what is copied for one write.
	batchBytes = 64 << 10
	// lentMost is about what is lent for one: large writes wake the other end less often,
	// and take no memory.
	lentMost = 1 << 20
	// lentBytes are worth a part of their own.
	lentBytes = 8 << 10
)

// batches are for as long as somebody writes: a quiet connection has none.
var batches = sync.Pool{New: func() any { return &gathered{base: make([]byte, 0, batchBytes+frameBytes+1<<10)} }}

// room makes sure that out has a batch.
func (c *Conn) room() {
	if c.out.gathered == nil {
		c.out.gathered = batches.Get().(*gathered)
		c.out.buf, c.out.lends = c.out.base, c.lends
	}
}

func (g *gathered) size() int { return len(g.buf) + g.lent }

// full reports whether this is enough for a write.
func (g *gathered) full() bool { return len(g.buf) >= batchBytes || g.lent >= lentMost }

// part adds the next n bytes of a call's answer.
func (g *gathered) part(c *Call, n int) {
	m := min(n, len(c.prefix))
	g.buf = append(g.buf, c.prefix[:m]...)
	c.prefix, n = c.prefix[m:], n-m
	for all := c.answer.Message; len(all) > 0; all = all[1:] {
		c.answer.Message = all
		p := all[0].ReadOnlyData()[c.off:]
		m = min(n, len(p))
		g.take(p[:m])
		if n -= m; m < len(p) {
			c.off += m
			return
		}
		g.spent = append(g.spent, all[0])
		c.off = 0
	}
	c.answer.Message = nil
}

// take adds bytes of an answer: as they are, or a copy.
func (g *gathered) take(p []byte) {
	if !g.lends || len(p) < lentBytes {
		g.buf = append(g.buf, p...)
		return
	}
	g.close()
	g.parts = append(g.parts, p)
	g.lent += len(p)
}

// close makes a part of what was copied last.
func (g *gathered) close() {
	if end := len(g.buf); end > g.cut {
		g.parts = append(g.parts, g.buf[g.cut:end:end])
		g.cut = end
	}
}

// put writes what is gathered, and gives the batch back.
func (c *Conn) put() (err error) {
	g := c.out.gathered
	c.out.gathered = nil
	switch {
	case len(g.parts) > 0:
		g.close()
		all := g.parts // which writing uses up
		_, err = c.Conn.(vectored).WriteBuffers(&all)
	case len(g.buf) > 0:
		_, err = c.through(g.buf)
	}
	if err != nil {
		c.fail(err)
	}
	g.spent.Free()
	clear(g.parts)
	clear(g.spent)
	*g = gathered{base: g.base, parts: g.parts[:0], spent: g.spent[:0]}
	batches.Put(g)
	return err
}

// vectored is a connection that may send several buffers at once, without copies.
type vectored interface {
	Vectored() bool
	WriteBuffers(all *net.Buffers) (int64, error)
}

// through writes a batch. A connection that gathers writes itself is told that this has been
// done.
func (c *Conn) through(b []byte) (int, error) {
	if w, ok := c.Conn.(interface{ WriteBatch(b []byte) (int, error) }); ok {
		return w.WriteBatch(b)
	}
	return c.Conn.Write(b)
}
