package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
)

// A call is a unary RPC on the connection of the bulk class. Request and answer
// are sealed. The request is the kind (1 byte) and the payload, the answer one of
//
//	0, answer            what the handler returned
//	1, code (4), text    the handler's error, as a gRPC status
//
// so an error that a handler returned is never taken for a lost connection.
const (
	answerOK    = 0
	answerError = 1
)

// Call implements Transport. An error of the peer's handler comes back as a gRPC
// status error with the same code and text; all others are this package's.
func (t *GRPC) Call(ctx context.Context, to api.MemberID, kind uint8, payload []byte) ([]byte, error) {
	l := t.link(to)
	if l == nil {
		return nil, fmt.Errorf("%w: %s", ErrUnknownPeer, to)
	}
	if len(payload)+1 > t.cfg.MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(payload))
	}
	cc := l.client.Load()
	if cc == nil {
		return nil, fmt.Errorf("%w: %s", ErrUnreachable, to)
	}
	request := sealed([]byte{kind}, payload)
	var answer mem.BufferSlice
	if err := cc.Invoke(l.outgoing(ctx), callMethod, request, &answer); err != nil {
		return nil, t.callError(ctx, to, err)
	}
	body := answer.Materialize()
	answer.Free()
	body, err := unseal(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w: %w", ErrUnreachable, to, ErrUnknownOutcome, err)
	}
	return decodeAnswer(body)
}

// callError tells apart why a call has no answer.
func (t *GRPC) callError(ctx context.Context, to api.MemberID, err error) error {
	switch {
	case t.ctx.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	case status.Code(err) == codes.ResourceExhausted:
		return fmt.Errorf("%w: %s", ErrTooLarge, status.Convert(err).Message())
	}
	return fmt.Errorf("%w: %s: %w: %s", ErrUnreachable, to, ErrUnknownOutcome, status.Convert(err).Message())
}

func decodeAnswer(body []byte) ([]byte, error) {
	switch {
	case len(body) >= 1 && body[0] == answerOK:
		return body[1:], nil
	case len(body) >= 5 && body[0] == answerError:
		code := codes.Code(binary.BigEndian.Uint32(body[1:]))
		if code == codes.OK {
			code = codes.Unknown
		}
		return nil, status.Error(code, string(body[5:]))
	}
	return nil, fmt.Errorf("%w: an answer of %d bytes", errMalformed, len(body))
}

func encodeError(err error) []byte {
	s, _ := status.FromError(err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		s = status.FromContextError(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{answerError}, uint32(s.Code())), s.Message()...)
}

// serveCall runs on a goroutine of gRPC's.
func serveCall(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	t := srv.(*GRPC)
	id, h, err := t.admit(ctx)
	if err != nil {
		if _, is := status.FromError(err); !is {
			_, err = refusal(err)
		}
		return nil, err
	}
	var request mem.BufferSlice
	if err := decode(&request); err != nil {
		return nil, err
	}
	body := request.Materialize()
	request.Free()
	if body, err = unseal(body); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if len(body) == 0 {
		return nil, status.Error(codes.InvalidArgument, "a call without a kind")
	}
	answer, err := h.Call(ctx, id.from, body[0], body[1:])
	if err == nil && len(answer)+1 > t.cfg.MaxFrame {
		err = status.Error(codes.ResourceExhausted, ErrTooLarge.Error())
	}
	if err != nil {
		return sealed(encodeError(err)), nil
	}
	return sealed([]byte{answerOK}, answer), nil
}

// sealed is one gRPC message of sealed parts.
func sealed(parts ...[]byte) *mem.BufferSlice {
	out := mem.BufferSlice{mem.SliceBuffer(sealOf(parts...))}
	for _, p := range parts {
		out = append(out, mem.SliceBuffer(p))
	}
	return &out
}

func remoteAddress(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return "unknown"
}
