package direct

import (
	"encoding/binary"
	"runtime"
	"slices"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

// kickLocked has what waits sent soon.
func (c *Conn) kickLocked() {
	c.mu.again = true
	if c.mu.flushing || c.mu.gathering > 0 {
		return
	}
	c.mu.flushing = true
	go c.flush()
}

// Gather says that whoever calls it will Send soon.
func (c *Conn) Gather() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.gathering++
}

// Send sends what has gathered: a batch at once, more by and by. It does not wait for others that
// send.
func (c *Conn) Send() {
	c.mu.Lock()
	c.mu.gathering--
	waits := c.mu.gathering == 0 && c.mu.again
	c.mu.Unlock()
	if !waits {
		return
	}
	var err error
	within := false
	if c.writing.TryLock() {
		err = c.batch()
		within = !c.out.between()
		c.writing.Unlock()
	}
	c.mu.Lock()
	if c.mu.again && (!within || c.mu.err != nil) {
		c.kickLocked()
	}
	c.mu.Unlock()
	if err != nil {
		c.Close()
	}
}

// flush sends what was gathered, once others have had their turn and nobody has added anything
// meanwhile.
func (c *Conn) flush() {
	for seen := -1; ; {
		runtime.Gosched()
		c.mu.Lock()
		n := len(c.mu.ended)
		c.mu.Unlock()
		if n != seen && n < maxEnded {
			seen = n
			continue
		}
		if c.sendOnce() {
			return
		}
	}
}

// maxEnded is how many answers are enough to be sent.
const maxEnded = 64

// sendOnce sends a batch. It returns true if this is all that can be sent now: somebody
// kicks when there is more. Within a frame of grpc-go's, who completes that frame sends what waits.
func (c *Conn) sendOnce() (done bool) {
	c.writing.Lock()
	defer c.writing.Unlock()
	err := c.batch()
	c.mu.Lock()
	done = !c.mu.again || !c.out.between() && c.mu.err == nil
	c.mu.flushing = !done
	c.mu.Unlock()
	if err != nil {
		c.Close()
	}
	return done
}

// send writes all that waits. It is called under writing.
func (c *Conn) send() error {
	for c.out.between() {
		c.mu.Lock()
		more := c.mu.again
		c.mu.Unlock()
		if !more {
			return nil
		}
		if err := c.batch(); err != nil {
			return err
		}
	}
	return nil
}

// batch writes a batch of what waits, if anything does and this is between two frames; when the
// connection has ended, it drops all. It is called under writing.
func (c *Conn) batch() error {
	c.mu.Lock()
	if !c.mu.again || !c.out.between() && c.mu.err == nil {
		c.mu.Unlock()
		return nil
	}
	c.mu.again = false
	ended := c.mu.ended
	c.mu.ended, c.mu.spare = c.mu.spare, nil
	c.mu.Unlock()
	for _, call := range ended {
		call.answer = call.owner.Answer()
	}
	c.room()
	c.mu.Lock()
	c.mu.sending = append(c.mu.sending, ended...)
	clear(ended)
	if cap(ended) <= maxEnded {
		c.mu.spare = ended[:0]
	}
	c.fillLocked()
	c.mu.Unlock()
	return c.put()
}

// fillLocked makes a batch of frames.
func (c *Conn) fillLocked() {
	o := &c.out
	if c.mu.err != nil {
		for _, call := range c.mu.sending {
			call.answer.Message.Free()
		}
		c.mu.sending, c.mu.control, o.held = nil, nil, nil
		return
	}
	o.buf = append(o.buf, c.mu.control...)
	c.mu.control = c.mu.control[:0]
	c.releaseLocked()
	for len(c.mu.sending) > 0 && !o.full() {
		before := o.size()
		c.mu.sending = c.roundLocked(c.mu.sending)
		if o.size() == before {
			break
		}
	}
	c.mu.again = c.mu.again || len(c.mu.sending) > 0 && c.mu.window > 0
}

// roundLocked sends a frame of each answer, and returns those that have more.
func (c *Conn) roundLocked(all []*Call) []*Call {
	left := all[:0]
	for i, call := range all {
		if c.out.full() {
			return slices.Concat(all[i:], left) // these first, the next time
		}
		if c.stepLocked(call) {
			left = append(left, call)
		}
	}
	clear(all[len(left):])
	return left
}

// stepLocked sends a part of an answer. It reports whether there is more that may be sent now.
func (c *Conn) stepLocked(call *Call) (more bool) {
	o := &c.out
	a := &call.answer
	switch {
	case call.gone:
		a.Message.Free()
		return false
	case call.stream != nil:
		return c.streamLocked(call)
	case a.Status != nil && a.Status.Code() != codes.OK:
		a.Message.Free()
		o.buf = appendBlock(o.buf, http2.FlagHeadersEndStream, call.id, call.kind.ends(false, a.Status, a.Trailer))
		c.endLocked(call)
		return false
	case !call.begun:
		call.begun = true
		size := a.Message.Len()
		call.left = prefixBytes + size
		binary.BigEndian.PutUint32(call.bytes[1:], uint32(size))
		call.prefix = call.bytes[:]
		o.buf = appendBlock(o.buf, 0, call.id, call.kind.answered)
	}
	if !c.dataLocked(call) {
		return !call.parked
	}
	if call.left > 0 {
		return true
	}
	o.buf = appendBlock(o.buf, http2.FlagHeadersEndStream, call.id, succeeded)
	c.endLocked(call)
	return false
}

// dataLocked sends a frame of what a call has left, if the windows allow.
func (c *Conn) dataLocked(call *Call) bool {
	n := int(min(int64(call.left), frameBytes, call.window, c.mu.window))
	if n <= 0 {
		call.parked = call.window <= 0
		return false
	}
	c.mu.sent = true
	call.left -= n
	call.window -= int64(n)
	c.mu.window -= int64(n)
	c.mu.debt += int64(n)
	c.out.buf = appendHead(c.out.buf, n, http2.FrameData, 0, call.id)
	c.out.part(call, n)
	return true
}

// endLocked forgets a call that was answered.
func (c *Conn) endLocked(call *Call) {
	if !call.closed {
		c.out.buf = appendReset(c.out.buf, call.id, http2.ErrCodeNo)
	}
	c.mu.sent = true
	delete(c.mu.calls, call.id)
	c.drainedLocked()
}
