package client

import (
	"fmt"

	"google.golang.org/grpc/mem"
)

// pipeCodec passes the messages of a pipe through: they are encoded already, and
// are decoded an answer at a time.
type pipeCodec struct{}

func (pipeCodec) Name() string { return "proto" }

// sending is a message that goes out. gRPC gives its buffer back.
type sending []byte

// received is a message that came in, until free.
type received struct{ buf mem.Buffer }

func (r *received) bytes() []byte { return r.buf.ReadOnlyData() }
func (r *received) free()         { r.buf.Free() }

// newMessage returns an empty message.
func newMessage() []byte { return (*mem.DefaultBufferPool().Get(pipeMessage))[:0] }

func (pipeCodec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(sending)
	if !ok {
		return nil, fmt.Errorf("pipe: cannot send a %T", v)
	}
	b := []byte(m)
	return mem.BufferSlice{mem.NewBuffer(&b, mem.DefaultBufferPool())}, nil
}

func (pipeCodec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*received)
	if !ok {
		return fmt.Errorf("pipe: cannot receive a %T", v)
	}
	r.buf = data.MaterializeToBuffer(mem.DefaultBufferPool())
	return nil
}
