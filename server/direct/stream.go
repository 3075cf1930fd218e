package direct

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Stream is a call with any number of messages each way, as its handler sees it.
//
// Invariants:
//   - What the client may still send, and what has come and was not received, are at most
//     the window that it was told of, or one message and a quarter of the window if that is more.
//   - SendMsg waits while streamBytes are to be sent.
//   - The client is told once how it ends, after all that was sent.
type Stream struct {
	Method int // index in Options.Streams

	call    *Call
	ctx     context.Context
	leave   context.CancelFunc
	arrived chan struct{} // a token: more has come
	room    chan struct{} // a token: less is to be sent
	gathers bool          // the sender has called Gather

	// Under conn.mu.
	in      []byte // has come, and was not received
	credit  int64  // what the client may send
	queued  bool   // there is something to send
	copied  *[]byte
	header  metadata.MD
	trailer metadata.MD
	begin   bool           // headers may go
	final   *status.Status // how it ends; nil: not yet
}

var _ grpc.ServerStream = (*Stream)(nil)

// streamBytes of messages may wait for the client, and one more message.
const streamBytes = 64 << 10

// openLocked makes a stream of a call that was taken.
func (c *Conn) openLocked(call *Call) {
	s := &Stream{Method: call.Method, call: call, credit: c.mu.own, arrived: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	if call.Timeout > 0 {
		s.ctx, s.leave = context.WithTimeout(call.Context, call.Timeout)
		context.AfterFunc(s.ctx, func() { s.expired() })
	} else {
		s.ctx, s.leave = context.WithCancel(call.Context)
	}
	call.stream, call.owner = s, s
	c.streams.Go(s.run)
}

// run serves the stream.
func (s *Stream) run() {
	defer s.leave()
	st := status.New(codes.OK, "")
	if err := s.call.conn.o.Serve(s); err != nil {
		var ok bool
		if st, ok = status.FromError(err); !ok {
			st = status.FromContextError(err)
		}
	}
	s.end(st)
}

// end has the client told how the stream ends, if nobody has yet.
func (s *Stream) end(st *status.Status) {
	if s.expired() {
		return
	}
	c := s.call.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.final == nil {
		s.final = st
		s.queueLocked()
	}
}

// expired resets the stream if its time is over, as grpc-go does: its client knows.
func (s *Stream) expired() bool {
	if !errors.Is(s.ctx.Err(), context.DeadlineExceeded) {
		return false
	}
	s.cut(http2.ErrCodeCancel)
	return true
}

// cut resets the stream, if it has not ended.
func (s *Stream) cut(code http2.ErrCode) {
	if c := s.call.conn; c.reset(s.call.id) {
		c.control(appendReset(nil, s.call.id, code))
	}
}

// fail ends the stream with an error that is not its handler's, as grpc-go does.
func (s *Stream) fail(st *status.Status) error {
	s.end(st)
	s.leave()
	return st.Err()
}

// Leave implements Owner.
func (s *Stream) Leave() { s.leave() }

// Answer implements Owner; nobody asks.
func (s *Stream) Answer() Answer { return Answer{} }

// Context implements grpc.ServerStream. It ends when nobody listens any more.
func (s *Stream) Context() context.Context { return s.ctx }

// SetHeader implements grpc.ServerStream.
func (s *Stream) SetHeader(md metadata.MD) error { return s.setHeader(md, false) }

// SendHeader implements grpc.ServerStream.
func (s *Stream) SendHeader(md metadata.MD) error { return s.setHeader(md, true) }

func (s *Stream) setHeader(md metadata.MD, send bool) error {
	c := s.call.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.begin || s.final != nil {
		return status.Error(codes.Internal, "transport: SendHeader called multiple times")
	}
	s.header = metadata.Join(s.header, md)
	if send {
		s.begin = true
		s.queueLocked()
	}
	return nil
}

// SetTrailer implements grpc.ServerStream.
func (s *Stream) SetTrailer(md metadata.MD) {
	s.call.conn.mu.Lock()
	defer s.call.conn.mu.Unlock()
	s.trailer = metadata.Join(s.trailer, md)
}

// Gather says that the sender has more, so that it is written at once: it will Send soon.
func (s *Stream) Gather() {
	s.gathers = true
	s.call.conn.Gather()
}

// Send sends what has gathered.
func (s *Stream) Send() {
	s.gathers = false
	s.call.conn.Send()
}

// SendMsg implements grpc.ServerStream.
func (s *Stream) SendMsg(m any) error {
	c := s.call.conn
	msg, err := c.o.Codec.Marshal(m)
	if err != nil {
		return s.fail(status.Newf(codes.Internal, "grpc: error while marshaling: %v", err))
	}
	for {
		c.mu.Lock()
		if s.call.gone || s.final != nil || s.ctx.Err() != nil {
			c.mu.Unlock()
			msg.Free()
			<-s.ctx.Done() // soon, if not yet
			return status.FromContextError(s.ctx.Err()).Err()
		}
		if s.call.left < streamBytes {
			s.addLocked(msg)
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
		gathers := s.gathers
		if gathers {
			s.Send()
		}
		select {
		case <-s.room:
		case <-s.ctx.Done():
		}
		if gathers {
			s.Gather()
		}
	}
}

// addLocked queues a message: short parts of it are copied, long ones lent.
func (s *Stream) addLocked(msg mem.BufferSlice) {
	s.begin = true
	size := msg.Len()
	s.call.left += prefixBytes + size
	var prefix [prefixBytes]byte
	binary.BigEndian.PutUint32(prefix[1:], uint32(size))
	s.copyLocked(prefix[:])
	for _, part := range msg {
		if part.Len() >= lentBytes {
			s.sealLocked()
			s.call.answer.Message = append(s.call.answer.Message, part)
			continue
		}
		s.copyLocked(part.ReadOnlyData())
		part.Free()
	}
	s.queueLocked()
}

// copyLocked queues bytes. Buffers are as large as what waits already: most streams send little.
func (s *Stream) copyLocked(p []byte) {
	for len(p) > 0 {
		if s.copied == nil {
			s.copied = mem.DefaultBufferPool().Get(max(len(p), min(s.call.left, frameBytes)))
			*s.copied = (*s.copied)[:0]
		}
		b := *s.copied
		n := min(cap(b)-len(b), len(p))
		*s.copied, p = append(b, p[:n]...), p[n:]
		if len(p) > 0 {
			s.sealLocked()
		}
	}
}

// sealLocked ends the buffer that is copied into.
func (s *Stream) sealLocked() {
	if s.copied != nil {
		s.call.answer.Message = append(s.call.answer.Message, mem.NewBuffer(s.copied, mem.DefaultBufferPool()))
		s.copied = nil
	}
}

// queueLocked has what waits sent soon.
func (s *Stream) queueLocked() {
	c := s.call.conn
	if s.queued || s.call.gone {
		return
	}
	s.queued = true
	c.mu.sending = append(c.mu.sending, s.call)
	c.kickLocked()
}

// streamLocked sends a part of what a stream has to send. It reports whether there is more that
// may be sent now.
func (c *Conn) streamLocked(call *Call) (more bool) {
	s, o := call.stream, &c.out
	s.sealLocked()
	if s.begin && !call.begun {
		call.begun = true
		o.buf = appendBlock(o.buf, 0, call.id, call.kind.begins(s.header))
	}
	if call.left > 0 {
		if !c.dataLocked(call) {
			return !call.parked
		}
		if call.left < streamBytes {
			token(s.room)
		}
		if call.left > 0 {
			return true
		}
	}
	s.queued = false
	if s.final != nil {
		o.buf = appendBlock(o.buf, http2.FlagHeadersEndStream, call.id, call.kind.ends(call.begun, s.final, s.trailer))
		c.endLocked(call)
	}
	return false
}

// RecvMsg implements grpc.ServerStream.
func (s *Stream) RecvMsg(m any) error {
	c := s.call.conn
	for {
		c.mu.Lock()
		msg, no, err := s.nextLocked()
		c.mu.Unlock()
		switch {
		case no != nil:
			return s.fail(no)
		case err != nil:
			return err
		case msg != nil:
			err := c.o.Codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(msg[prefixBytes:])}, m)
			if err != nil {
				return s.fail(status.Newf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err))
			}
			c.mu.Lock()
			if s.in = s.in[len(msg):]; len(s.in) == 0 {
				s.in = nil
			}
			c.mu.Unlock()
			return nil
		}
		select {
		case <-s.arrived:
		case <-s.ctx.Done():
			return status.FromContextError(s.ctx.Err()).Err()
		}
	}
}

// nextLocked looks for a message, with its prefix, in what has come. If there is none yet, the client
// may send more.
func (s *Stream) nextLocked() (msg []byte, no *status.Status, err error) {
	if err := s.ctx.Err(); err != nil {
		return nil, nil, status.FromContextError(err).Err()
	}
	size, whole, no := framed(s.in, s.call.conn.o.MaxRequest)
	switch {
	case no != nil || whole:
		return s.in[:size:size], no, nil
	case s.call.closed && len(s.in) >= prefixBytes:
		return nil, status.New(codes.Internal, io.ErrUnexpectedEOF.Error()), nil
	case s.call.closed:
		return nil, nil, io.EOF
	}
	s.grantLocked(int64(size - len(s.in)))
	return nil, nil, nil
}

// grantLocked lets the client send more, if it is worth a frame or if it is needed; padding may come
// with that.
func (s *Stream) grantLocked(need int64) {
	c := s.call.conn
	more := c.mu.own - int64(len(s.in)) - s.credit
	if more < c.mu.own/4 {
		if s.credit >= need {
			return
		}
		more = need - s.credit + c.mu.own/4
	}
	if s.call.gone || s.final != nil {
		return
	}
	s.credit += more
	c.controlLocked(appendWindow(nil, s.call.id, uint32(more)), true)
}

// streamData takes what a client sends on a stream, and so much padding.
func (c *Conn) streamData(call *Call, p []byte, padding uint32, isLast bool) {
	c.mu.Lock()
	s := call.stream
	s.credit -= int64(len(p)) + int64(padding)
	tooMuch := s.credit < 0
	if !tooMuch && !call.closed {
		s.in = append(s.in, p...)
		call.closed = isLast
		token(s.arrived)
	}
	c.mu.Unlock()
	if tooMuch {
		s.cut(http2.ErrCodeFlowControl)
	}
}

// ownWindow follows grpc-go's settings: how much clients may send on a stream.
func (c *Conn) ownWindow(settings []byte) {
	const size = 6 // of a setting
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; len(settings) >= size; settings = settings[size:] {
		if http2.SettingID(binary.BigEndian.Uint16(settings)) != http2.SettingInitialWindowSize {
			continue
		}
		now := int64(binary.BigEndian.Uint32(settings[2:]))
		for _, call := range c.mu.calls {
			if call.stream != nil {
				call.stream.credit += now - c.mu.own
			}
		}
		c.mu.own = now
	}
}

// token leaves a token; one is enough for any number of causes.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
