package transport

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// A member that is about to join asks, before it knows any id, who belongs to
// the cluster. That is the one RPC without an identity in its handshake; on a
// port with TLS its caller has a peer's certificate all the same.

const announceMethod = "/" + serviceName + "/Announce"

// announceBytes bounds an answer: thousands of members.
const announceBytes = 1 << 20

// serveAnnounce runs on a goroutine of gRPC's.
func serveAnnounce(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	t := srv.(*GRPC)
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(keyProtocol); len(v) != 1 || v[0] != protocolVersion {
		_, err := refusal(fmt.Errorf("%w: it has %.40q, this member %q", ErrWrongProtocol, v, protocolVersion))
		return nil, err
	}
	var request mem.BufferSlice
	if err := decode(&request); err != nil {
		return nil, err
	}
	request.Free()
	if t.cfg.Announce == nil {
		return nil, status.Error(codes.Unimplemented, "this member announces nothing")
	}
	b, err := t.cfg.Announce(ctx)
	if err != nil {
		return nil, err
	}
	return &mem.BufferSlice{mem.SliceBuffer(b)}, nil
}
