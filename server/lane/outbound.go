package lane

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
)

// outbound is where the server is in its frames.
type outbound struct {
	head  [headerBytes]byte
	have  int    // of head
	left  int    // of the frame's payload
	block bool   // within a header block
	look  bool   // the payload may have a claimed header,
	text  []byte // and is kept here
}

// between reports whether a frame may be written now.
func (o *outbound) between() bool { return o.have == 0 && o.left == 0 && !o.block }

// maxHeaders is how much of a frame of headers is looked at.
const maxHeaders = 4 << 10

// Write implements net.Conn, for the server.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	for {
		if err := c.send(); err != nil || n == len(p) {
			return n, err
		}
		may := c.follow(p[n:])
		if may == 0 {
			continue
		}
		m, err := c.Conn.Write(p[n : n+may])
		if n += m; err != nil {
			return n, err
		}
	}
}

// follow goes through what the server writes, as far as that may be written now: no frame
// begins while something waits, which may be of the stream that the frame ends.
func (c *Conn) follow(p []byte) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.speaks {
		return len(p)
	}
	for o := &c.out; n < len(p); {
		if o.left == 0 {
			if o.between() && len(c.mu.pending) > 0 {
				return n
			}
			m := copy(o.head[o.have:], p[n:])
			n += m
			if o.have += m; o.have < headerBytes {
				return n
			}
			o.have = 0
			c.beginsLocked()
		}
		m := min(o.left, len(p)-n)
		if o.look {
			o.text = append(o.text, p[n:n+m]...)
		}
		o.left -= m
		n += m
		if o.left == 0 && o.look {
			c.foundLocked()
		}
	}
	return n
}

// beginsLocked looks at the head of a frame of the server's.
func (c *Conn) beginsLocked() {
	o := &c.out
	o.left = int(o.head[0])<<16 | int(o.head[1])<<8 | int(o.head[2])
	id, flags := binary.BigEndian.Uint32(o.head[5:]), o.head[4]
	s := c.mu.streams[id]
	ends := false
	switch o.head[3] {
	case frameData:
		c.mu.server -= int64(o.left)
		if s != nil {
			s.window -= int64(o.left)
			s.passed += int64(o.left)
		}
		ends = flags&flagEndStream != 0
	case frameHeaders:
		o.block = flags&flagEndHeaders == 0
		ends = flags&flagEndStream != 0
		o.look = !ends && len(c.mu.claims) > 0 && o.left <= maxHeaders
	case frameContinuation:
		o.block = flags&flagEndHeaders == 0
	case frameReset:
		ends = true
	}
	if ends && s != nil {
		delete(c.mu.streams, id)
		s.ended = true
		c.wakeLocked()
	}
}

// foundLocked gives the stream of a header block to who has claimed it.
func (c *Conn) foundLocked() {
	o := &c.out
	for i, s := range c.mu.claims {
		if bytes.Contains(o.text, s.mark) {
			s.id, s.window = binary.BigEndian.Uint32(o.head[5:]), c.mu.initial
			c.mu.streams[s.id] = s
			c.mu.claims = slices.Delete(c.mu.claims, i, i+1)
			break
		}
	}
	o.look, o.text = false, nil
}

// piece is the payload of a frame that waits.
type piece struct {
	to   *Stream
	data []byte
}

const (
	frameBytes = 16 << 10 // the longest payload that every client takes
	batchBytes = 64 << 10
	// maxPending bounds what waits on a connection.
	maxPending = 256 << 10
	// pieceCost is what a piece takes beside its data, which may be few bytes.
	pieceCost = headerBytes + 64
)

// maxSpare is how many pieces a connection keeps room for: a few kilobytes.
const maxSpare = 128

var batches = sync.Pool{New: func() any { b := make([]byte, 0, batchBytes); return &b }}

// flush sends what was gathered, once others have had their turn and nobody has added anything
// meanwhile. It ends with that: within a frame of the server's, who completes that frame
// sends what waits.
func (c *Conn) flush() {
	for seen := uint64(0); ; {
		runtime.Gosched()
		c.mu.Lock()
		if c.mu.total != seen && c.mu.size < maxPending/2 {
			seen = c.mu.total
			c.mu.Unlock()
			continue
		}
		c.mu.Unlock()
		c.writing.Lock()
		err := c.send()
		c.mu.Lock()
		done := len(c.mu.pending) == 0 || !c.out.between() || err != nil
		c.mu.flushing = !done
		c.mu.Unlock()
		c.writing.Unlock()
		if err != nil {
			c.Close()
		}
		if done {
			return
		}
	}
}

// through writes a batch. A connection that gathers writes itself is told that this has been
// done.
func (c *Conn) through(b []byte) (int, error) {
	if w, ok := c.Conn.(interface{ WriteBatch(b []byte) (int, error) }); ok {
		return w.WriteBatch(b)
	}
	return c.Conn.Write(b)
}

// reuse keeps room for what will be gathered.
func (c *Conn) reuse(pieces []piece) {
	clear(pieces)
	if cap(pieces) <= maxSpare {
		c.mu.Lock()
		c.mu.spare = pieces[:0]
		c.mu.Unlock()
	}
}

// send writes what waits, if this is between two frames. It is called under writing.
func (c *Conn) send() error {
	if !c.out.between() {
		return nil
	}
	c.mu.Lock()
	pieces := c.mu.pending
	if len(pieces) == 0 {
		c.mu.Unlock()
		return nil
	}
	c.mu.pending, c.mu.spare = c.mu.spare, nil
	c.mu.Unlock()
	defer c.reuse(pieces)
	batch := batches.Get().(*[]byte)
	defer batches.Put(batch)
	b, size := (*batch)[:0], 0
	for i, p := range pieces {
		b = append(b, byte(len(p.data)>>16), byte(len(p.data)>>8), byte(len(p.data)), frameData, 0)
		b = binary.BigEndian.AppendUint32(b, p.to.id)
		b = append(b, p.data...)
		size += len(p.data) + pieceCost
		if i+1 < len(pieces) && len(b)+headerBytes+len(pieces[i+1].data) <= cap(b) {
			continue
		}
		_, err := c.through(b)
		c.mu.Lock()
		c.mu.size -= size
		c.wakeLocked()
		c.mu.Unlock()
		if err != nil {
			c.fail(err)
			return err
		}
		b, size = b[:0], 0
	}
	return nil
}
