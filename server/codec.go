package server

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

// Encoded is a message that is on the wire's form already: handlers return it
// or send it in place of the generated message, and the codec passes its
// buffers through. It is sent once; gRPC frees the buffers.
type Encoded struct {
	Buffers mem.BufferSlice
}

// shortMessage is a message in one allocation, if it is short: most answers are
// a header and little else.
type shortMessage struct {
	Encoded
	one   [1]mem.Buffer
	whole mem.SliceBuffer
	room  [64]byte
}

// newShortMessage returns a message and room for its bytes, at least size of
// them. finish takes the room back, filled.
func newShortMessage(size int) (*shortMessage, []byte) {
	m := &shortMessage{}
	if size <= len(m.room) {
		return m, m.room[:0]
	}
	return m, make([]byte, 0, size)
}

func (m *shortMessage) finish(b []byte) *Encoded {
	m.whole = b
	m.one[0] = &m.whole
	m.Buffers = m.one[:]
	return &m.Encoded
}

// encodeBytes makes a message of one buffer. The caller gives b away.
func encodeBytes(b []byte) *Encoded {
	m := &struct {
		Encoded
		one   [1]mem.Buffer
		whole mem.SliceBuffer
	}{whole: b}
	m.one[0] = &m.whole
	m.Buffers = m.one[:]
	return &m.Encoded
}

// request is a message that our own decoders read. The codec gives it a copy
// of the bytes that nobody else holds: it may keep slices into body, and body
// itself travels in the log.
type request interface {
	decode(body []byte) error
}

// Codec returns the codec of the client port: Encoded passes through, requests
// of the busy RPCs are decoded by hand, all else is left to protobuf. Its name
// is "proto", as clients ask for.
func Codec() encoding.CodecV2 { return codec{} }

type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(*Encoded); ok {
		return e.Buffers, nil
	}
	m := protoMessage(v)
	if m == nil {
		return nil, fmt.Errorf("codec: cannot encode a %T", v)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(request); ok {
		return r.decode(data.Materialize())
	}
	m := protoMessage(v)
	if m == nil {
		return fmt.Errorf("codec: cannot decode into a %T", v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return proto.Unmarshal(buf.ReadOnlyData(), m)
}

func protoMessage(v any) proto.Message {
	switch v := v.(type) {
	case proto.Message:
		return v
	case protoadapt.MessageV1:
		return protoadapt.MessageV2Of(v)
	}
	return nil
}
