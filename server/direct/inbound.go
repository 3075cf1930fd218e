package direct

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"golang.org/x/net/http2"
)

// block is the beginning of a header block.
type block struct {
	id        uint32
	endStream bool
}

// next reads a frame: it is a call's, or it passes.
func (c *Conn) next() error {
	if !c.greeted {
		return c.greet()
	}
	f, err := c.frames.ReadFrame()
	var bad http2.StreamError
	switch {
	case errors.As(err, &bad):
		c.reset(bad.StreamID)
		c.control(appendReset(nil, bad.StreamID, bad.Code))
		return c.forward.WriteRSTStream(bad.StreamID, bad.Code) // as if the client had
	case err != nil:
		return err
	}
	switch f := f.(type) {
	case *http2.HeadersFrame:
		c.block = block{f.StreamID, f.StreamEnded()}
		return c.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.ContinuationFrame:
		return c.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.DataFrame:
		return c.data(f)
	case *http2.RSTStreamFrame:
		if c.reset(f.StreamID) {
			return nil
		}
		return c.forward.WriteRSTStream(f.StreamID, f.ErrCode)
	case *http2.WindowUpdateFrame:
		if pass := c.grant(f.StreamID, f.Increment); pass > 0 {
			return c.forward.WriteWindowUpdate(f.StreamID, pass)
		}
		return nil
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		return c.ping(f)
	case *http2.GoAwayFrame:
		return c.forward.WriteGoAway(f.LastStreamID, f.ErrCode, f.DebugData())
	case *http2.PushPromiseFrame:
		return fmt.Errorf("%w: a client does not push", errIllegal)
	}
	return nil // grpc-go ignores them as well
}

// greet passes the preface.
func (c *Conn) greet() error {
	b := make([]byte, len(http2.ClientPreface))
	n, err := io.ReadFull(c.in, b)
	c.pass.Write(b[:n])
	if n > 0 && !bytes.Equal(b[:n], []byte(http2.ClientPreface)[:n]) {
		return nil // grpc-go has the words for this, and closes
	}
	c.greeted = true
	return err
}

// fragment reads headers. Those of a call are taken, all others pass.
func (c *Conn) fragment(b []byte, isLast bool) error {
	if err := c.headers.read(b, isLast); err != nil || !isLast {
		return err
	}
	defer c.headers.reset()
	id := c.block.id
	c.mu.Lock()
	taken := c.mu.calls[id]
	c.mu.Unlock()
	if taken != nil { // the end of the request, with trailers; gRPC has none
		return c.requestData(taken, nil, 0, c.block.endStream)
	}
	if id > c.newest && id%2 == 1 {
		c.newest = id
		if !c.block.endStream && c.take(id) {
			return nil
		}
	}
	text := c.headers.encoded()
	first := text[:min(len(text), frameBytes)]
	text = text[len(first):]
	err := c.forward.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: first, EndStream: c.block.endStream, EndHeaders: len(text) == 0,
	})
	for len(text) > 0 && err == nil {
		first = text[:min(len(text), frameBytes)]
		text = text[len(first):]
		err = c.forward.WriteContinuation(id, len(text) == 0, first)
	}
	return err
}

// take makes a call of the block, if it is one.
func (c *Conn) take(id uint32) bool {
	call, isStream, ok := c.headers.call(c.o.Methods, c.o.Streams)
	if !ok {
		return false
	}
	call.conn, call.id = c, id
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.idle || c.mu.err != nil {
		return false
	}
	c.mu.newest = id
	if uint32(len(c.mu.calls)) >= c.o.MaxStreams {
		c.controlLocked(appendReset(nil, id, http2.ErrCodeRefusedStream), true)
		return true
	}
	call.window = c.mu.initial
	c.mu.calls[id] = call
	if isStream {
		c.openLocked(call)
	}
	return true
}

// data takes a part of a call's request.
func (c *Conn) data(f *http2.DataFrame) error {
	c.mu.Lock()
	call := c.mu.calls[f.StreamID]
	c.mu.Unlock()
	if call == nil {
		return c.forward.WriteData(f.StreamID, f.StreamEnded(), f.Data())
	}
	// The connection's window opens again at once: a request is bounded by itself.
	if c.unread += f.Length; c.unread >= windowBytes/4 {
		c.control(appendWindow(nil, 0, c.unread))
		c.unread = 0
	}
	return c.requestData(call, f.Data(), f.Length-uint32(len(f.Data())), f.StreamEnded())
}

// requestData takes a part of a request, and so much padding.
func (c *Conn) requestData(call *Call, p []byte, padding uint32, isLast bool) error {
	if call.stream != nil {
		c.streamData(call, p, padding, isLast)
		return nil
	}
	if isLast {
		c.mu.Lock()
		call.closed = true
		c.mu.Unlock()
	}
	if call.Request != nil { // one message is all that there can be
		return nil
	}
	done, refused, more := call.feed(p, isLast, c.o.MaxRequest)
	if !done {
		more += padding
	}
	if more > 0 {
		c.control(appendWindow(nil, call.id, more))
	}
	switch {
	case refused != nil:
		call.Request = []byte{}
		call.Own(refusal{refused})
		call.Done()
	case done:
		c.fresh = append(c.fresh, call)
	}
	return nil
}

// reset ends a call for which the client waits no more.
func (c *Conn) reset(id uint32) bool {
	c.mu.Lock()
	call := c.mu.calls[id]
	var owner Owner
	if call != nil {
		delete(c.mu.calls, id)
		call.gone = true
		owner = call.owner
		c.drainedLocked()
		if call.parked {
			call.parked = false
			c.mu.sending = append(c.mu.sending, call) // to be dropped
			c.kickLocked()
		}
	}
	c.mu.Unlock()
	if owner != nil {
		owner.Leave()
	}
	return call != nil
}

// grant notes a WINDOW_UPDATE, and returns what grpc-go is to have of it.
func (c *Conn) grant(id, inc uint32) (pass uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int64(inc)
	if id == 0 {
		keep := min(n, c.mu.debt)
		c.mu.debt -= keep
		c.mu.window += n                            // one that grows too large is grpc-go's to refuse
		if c.mu.held > 0 || len(c.mu.sending) > 0 { // else a pong would go, by itself
			c.kickLocked()
		}
		return uint32(n - keep)
	}
	call := c.mu.calls[id]
	if call == nil {
		return inc
	}
	call.window = min(call.window+n, maxWindow)
	c.unparkLocked(call)
	return 0
}

func (c *Conn) unparkLocked(call *Call) {
	if call.parked && call.window > 0 {
		call.parked = false
		c.mu.sending = append(c.mu.sending, call)
		c.kickLocked()
	}
}

// settings follows the window of new streams, which changes that of all. They pass.
func (c *Conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return c.forward.WriteSettingsAck()
	}
	var all []http2.Setting
	c.mu.Lock()
	_ = f.ForeachSetting(func(s http2.Setting) error {
		all = append(all, s)
		if s.ID == http2.SettingHeaderTableSize && s.Val < tableBytes {
			c.mu.idle = true // the next header block must say so, and only grpc-go's do
		}
		if s.ID == http2.SettingInitialWindowSize {
			for _, call := range c.mu.calls {
				call.window += int64(s.Val) - c.mu.initial
				c.unparkLocked(call)
			}
			c.mu.initial = int64(s.Val)
		}
		return nil
	})
	c.mu.Unlock()
	return c.forward.WriteSettings(all...)
}

// ping answers a ping that is due to calls that grpc-go does not know. All others are grpc-go's.
func (c *Conn) ping(f *http2.PingFrame) error {
	if f.IsAck() {
		return c.forward.WritePing(true, f.Data)
	}
	now := c.o.Now()
	c.mu.Lock()
	ours := c.mu.sent || len(c.mu.calls) > 0 && now.Sub(c.pinged) >= c.o.PingMin
	c.mu.sent = false
	wait := ours && !c.mu.pongs
	if ours {
		c.mu.pongs = true
		c.controlLocked(appendPong(nil, f.Data), false)
	}
	c.mu.Unlock()
	c.pinged = now
	if wait {
		c.pongs.wait(c)
	}
	if ours {
		return nil
	}
	return c.forward.WritePing(false, f.Data)
}

// control sends a short frame.
func (c *Conn) control(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.controlLocked(frame, true)
}

// maxControl bounds the short frames that wait: a client that causes more reads nothing.
const maxControl = 64 << 10

// controlLocked sends a short frame, now or with what comes next.
func (c *Conn) controlLocked(frame []byte, now bool) {
	if len(c.mu.control) > maxControl {
		c.flooded = fmt.Errorf("%w: the client reads nothing", errIllegal)
		return
	}
	c.mu.control = append(c.mu.control, frame...)
	if now {
		c.kickLocked()
	}
}
