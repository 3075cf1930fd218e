package server

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// innerConn is the gateway's way to this member's own gRPC services: no socket
// and no connection, but the whole of the gRPC server, with its interceptors and
// limits. Each RPC carries what is known of the HTTP client itself (its address
// and the certificate that it showed, or none) and the headers it sent. The
// member has no part in it: there is no identity of its own that it could lend
// to a caller (GHSA-h6xx-pmxh-3wgp).
type innerConn struct {
	server http.Handler // *grpc.Server
}

var _ grpc.ClientConnInterface = (*innerConn)(nil)

// Invoke implements grpc.ClientConnInterface.
func (c *innerConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.open(ctx, method)
	if err != nil {
		return err
	}
	if err := s.SendMsg(args); err != nil && err != io.EOF {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	err = s.RecvMsg(reply)
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			if err == nil { // a refusal has none
				*o.HeaderAddr, _ = s.Header()
			}
		case grpc.TrailerCallOption:
			*o.TrailerAddr = s.Trailer()
		}
	}
	if err == io.EOF {
		return status.Errorf(codes.Internal, "%s ended without an answer", method)
	}
	return err
}

// NewStream implements grpc.ClientConnInterface.
func (c *innerConn) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.open(ctx, method)
}

func (c *innerConn) open(ctx context.Context, method string) (*innerStream, error) {
	caller, ok := ctx.Value(callerKey{}).(*caller)
	if !ok {
		return nil, status.Error(codes.Internal, "an inner call without a caller")
	}
	caller.hold(ctx, 0) // the body has been decoded
	in, out := io.Pipe()
	w := &innerWriter{
		ctx: ctx, caller: caller, messages: make(chan []byte), done: make(chan struct{}),
		head: http.Header{}, frame: make([]byte, 0, frameHeader),
	}
	s := &innerStream{ctx: ctx, out: out, w: w}
	r := (&http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: method}, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: wireHeader(ctx), Body: in, Host: caller.request.Host,
		RemoteAddr: caller.request.RemoteAddr, TLS: caller.request.TLS,
	}).WithContext(ctx)
	go func() {
		defer close(w.done)
		c.server.ServeHTTP(w, r)
		in.CloseWithError(io.EOF)
	}()
	return s, nil
}

// wireHeader is a call's outgoing metadata as HTTP/2 has it.
func wireHeader(ctx context.Context) http.Header {
	h := http.Header{}
	md, _ := metadata.FromOutgoingContext(ctx)
	for name, values := range md {
		for _, v := range values {
			if strings.HasSuffix(name, "-bin") {
				v = base64.RawStdEncoding.EncodeToString([]byte(v))
			}
			h[name] = append(h[name], v)
		}
	}
	delete(h, "content-type")
	h.Set("Content-Type", "application/grpc")
	return h
}

// innerStream is one RPC as the gateway sees it.
type innerStream struct {
	ctx context.Context
	out *io.PipeWriter
	w   *innerWriter
}

// frameHeader precedes each gRPC message: a byte for compression, four for the length.
const frameHeader = 5

// SendMsg implements grpc.ClientStream.
func (s *innerStream) SendMsg(m any) error {
	size := proto.Size(m.(proto.Message))
	b, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, frameHeader, frameHeader+size), m.(proto.Message))
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-frameHeader))
	if _, err := s.out.Write(b); err != nil {
		return io.EOF // RecvMsg tells why
	}
	return nil
}

// CloseSend implements grpc.ClientStream.
func (s *innerStream) CloseSend() error { return s.out.Close() }

// RecvMsg implements grpc.ClientStream.
func (s *innerStream) RecvMsg(m any) error {
	select {
	case b := <-s.w.messages:
		if err := proto.Unmarshal(b, m.(proto.Message)); err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		return nil
	case <-s.w.done:
		return s.w.status()
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

// Header implements grpc.ClientStream. Our services set no headers.
func (s *innerStream) Header() (metadata.MD, error) {
	return metadata.Pairs("content-type", "application/grpc"), nil
}

// Trailer implements grpc.ClientStream. Our services set none.
func (s *innerStream) Trailer() metadata.MD { return nil }

// Context implements grpc.ClientStream.
func (s *innerStream) Context() context.Context { return s.ctx }

// innerWriter is the http.ResponseWriter of one RPC. It cuts what the server
// writes into messages and hands them over one by one: a slow HTTP client slows
// the RPC down.
type innerWriter struct {
	ctx      context.Context
	caller   *caller
	messages chan []byte
	done     chan struct{} // closed when the server is through

	// Owned by the server's goroutine until done is closed.
	head  http.Header
	code  int
	frame []byte // as far as it has come; its capacity is what is awaited
	err   error  // why nothing more is taken
}

// Header implements http.ResponseWriter.
func (w *innerWriter) Header() http.Header { return w.head }

// WriteHeader implements http.ResponseWriter.
func (w *innerWriter) WriteHeader(code int) { w.code = code }

// Flush implements http.Flusher: nothing is held back.
func (w *innerWriter) Flush() {}

// Write implements http.ResponseWriter. gRPC does not look at its error; status
// tells it.
func (w *innerWriter) Write(p []byte) (int, error) {
	size := len(p)
	for w.err == nil && len(p) > 0 {
		n := min(cap(w.frame)-len(w.frame), len(p))
		w.frame, p = append(w.frame, p[:n]...), p[n:]
		if len(w.frame) == cap(w.frame) {
			w.err = w.advance()
		}
	}
	return size, w.err
}

// advance is called when what was awaited is complete: a frame's header, or all
// of the frame.
func (w *innerWriter) advance() error {
	body := int64(binary.BigEndian.Uint32(w.frame[1:]))
	if len(w.frame) == frameHeader && body > 0 {
		if body > maxGatewayAnswer {
			return status.Errorf(codes.ResourceExhausted,
				"the answer has %d bytes; the gateway turns at most %d into JSON: set a limit, or use gRPC", body, maxGatewayAnswer)
		}
		if err := w.caller.hold(w.ctx, body*answerFactor); err != nil {
			return err
		}
		w.frame = append(make([]byte, 0, frameHeader+body), w.frame...)
		return nil
	}
	select {
	case w.messages <- w.frame[frameHeader:]:
		w.frame = make([]byte, 0, frameHeader)
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// status is what the RPC ended with; io.EOF if well.
func (w *innerWriter) status() error {
	if w.err != nil {
		return w.err
	}
	code, err := strconv.ParseUint(w.head.Get("Grpc-Status"), 10, 32)
	if err != nil { // it never reached a service
		return status.Errorf(codes.InvalidArgument, "the request was refused with HTTP status %d", w.code)
	}
	if codes.Code(code) == codes.OK {
		return io.EOF
	}
	text := w.head.Get("Grpc-Message")
	if plain, err := url.PathUnescape(text); err == nil {
		text = plain
	}
	return status.Error(codes.Code(code), text)
}
