package transport

import (
	"fmt"

	"google.golang.org/grpc/mem"
)

// rawCodec passes buffers through: what is on the wire is the business of this
// package alone. Both directions use *mem.BufferSlice.
type rawCodec struct{}

func (rawCodec) Name() string { return "keelson-raw" }

// Marshal gives the caller's reference on the buffers to gRPC.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*mem.BufferSlice)
	if !ok {
		return nil, fmt.Errorf("transport: cannot send a %T", v)
	}
	return *b, nil
}

// Unmarshal takes a reference of its own, which the receiver frees.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*mem.BufferSlice)
	if !ok {
		return fmt.Errorf("transport: cannot receive a %T", v)
	}
	data.Ref()
	*b = data
	return nil
}
