package server

import (
	"context"
	"net"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/server/direct"
)

// directCalls serves the busy unary calls of the client port that package direct takes in,
// below gRPC's server.
type directCalls struct {
	intake
	options   direct.Options
	listeners []*direct.Listener
}

func newDirectCalls(s *Server, i *interceptors, streams ...streamMethod) *directCalls {
	d := &directCalls{}
	d.intake = intake{
		s: s, i: i, workers: newWorkers(),
		ended: func(c *call) { c.wire.Done() }, awaitRoom: func() {},
	}
	d.options = direct.Options{
		MaxRequest: int(s.cfg.MaxRequestBytes) + api.RequestOverheadBytes,
		MaxHeaders: maxHeaderBytes,
		MaxStreams: s.cfg.MaxConcurrentStreams,
		PingMin:    s.cfg.KeepaliveMinTime,
		Now:        s.clock.Now,
		Context:    connContext,
		Begin:      d.beginAll,
	}
	for _, m := range busyMethods {
		d.options.Methods = append(d.options.Methods, m.name)
	}
	for _, m := range streams {
		d.options.Streams = append(d.options.Streams, m.name)
	}
	d.options.Codec = Codec()
	d.options.Serve = func(stream *direct.Stream) error {
		m := streams[stream.Method]
		info := &grpc.StreamServerInfo{FullMethod: m.name, IsClientStream: true, IsServerStream: true}
		return i.stream(m.server, stream, info, func(server any, ss grpc.ServerStream) error {
			return s.admitStream(server, ss, info, m.handler)
		})
	}
	return d
}

// streamMethod is a method with a stream of messages each way.
type streamMethod struct {
	name    string
	server  any
	handler grpc.StreamHandler
}

// streamOf is the only method of a service.
func streamOf(d *grpc.ServiceDesc, server any) streamMethod {
	return streamMethod{"/" + d.ServiceName + "/" + d.Streams[0].StreamName, server, d.Streams[0].Handler}
}

// directOf is what is below a stream, if that is not gRPC's server.
func directOf(stream grpc.ServerStream) *direct.Stream {
	for {
		switch s := stream.(type) {
		case *direct.Stream:
			return s
		case interface{ unwrap() grpc.ServerStream }:
			stream = s.unwrap()
		default:
			return nil
		}
	}
}

// under puts itself below a listener's gRPC server.
func (d *directCalls) under(l net.Listener) net.Listener {
	if d == nil {
		return l
	}
	below := &direct.Listener{Listener: l, Options: &d.options}
	d.listeners = append(d.listeners, below)
	return below
}

// drain waits until the calls that were taken have been answered; new ones are gRPC's.
func (d *directCalls) drain() {
	if d == nil {
		return
	}
	for _, l := range d.listeners {
		l.Drain()
	}
}

// stop ends what still goes on. There are no connections any more.
func (d *directCalls) stop() {
	if d == nil {
		return
	}
	for _, l := range d.listeners {
		l.Wait()
	}
	d.workers.stop()
}

// connContext is what the calls of a connection have in common, as gRPC's server has it.
func connContext(conn net.Conn) context.Context {
	p := &peer.Peer{Addr: conn.RemoteAddr(), LocalAddr: conn.LocalAddr()}
	_, p.AuthInfo, _ = newGateCredentials().ServerHandshake(conn)
	return peer.NewContext(context.Background(), p)
}

// beginAll begins calls that one read of a connection has brought.
func (d *directCalls) beginAll(calls []*direct.Call) {
	b := d.batch()
	for _, w := range calls {
		c := d.newCall(&busyMethods[w.Method])
		c.wire = w
		if w.Timeout > 0 {
			c.timer = d.s.clock.AfterFunc(w.Timeout, func() { c.leave(context.DeadlineExceeded) })
		}
		malformed := c.req.decode(w.Request)
		w.Own(c)
		d.begin(&b, c, w.Context, malformed, needsLeader(w.Context))
	}
	d.start(&b)
}

// Answer implements direct.Owner.
func (c *call) Answer() (a direct.Answer) {
	if c.rpc.series != nil {
		c.n.i.end(&c.rpc, c.resp, c.err, c.n.i.metrics.clock.Now())
	}
	if c.resp != nil {
		a.Message = c.resp.Buffers
	}
	if c.err != nil {
		a.Status = statusOf(c.err)
		if c.pushback > 0 {
			a.Trailer = metadata.Pairs(retryHeader, strconv.FormatUint(uint64(c.pushback), 10))
		}
	}
	return a
}

// statusOf is what gRPC's server makes of a handler's error.
func statusOf(err error) *status.Status {
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err)
	}
	return s
}
