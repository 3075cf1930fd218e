package bench

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// rawCodec sends bytes that are a message already, and leaves what comes back
// undecoded, as its length.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("raw codec: %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	n, ok := v.(*int)
	if !ok {
		return fmt.Errorf("raw codec: %T", v)
	}
	*n = data.Len()
	return nil
}

// rawRange sends a range request and gives the size of the answer.
func rawRange(ctx context.Context, conn *grpc.ClientConn, req []byte) (int, error) {
	var size int
	err := conn.Invoke(ctx, pb.KV_Range_FullMethodName, req, &size, grpc.ForceCodecV2(rawCodec{}))
	return size, err
}

func encode(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // a message of ours with valid fields
	}
	return b
}
