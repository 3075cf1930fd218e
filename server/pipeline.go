package server

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api/keelsonpb"
)

// A pipeline is a stream that carries many calls of one client (api/keelsonpb). The receiver
// takes a message and has its calls begun together (intake.go); the RPC's own goroutine sends the
// answers of all that have ended.
//
// # Invariants
//
//	a call is open from enter until its answer was sent, or cannot be sent any more
//	open <= keelsonpb.MaxCalls: then nothing more is received, and HTTP/2 holds the client back
//	after close no call is entered; the message with done leaves when none is open
//
// The last one tells the client which calls were never begun, so a member that
// stops leaves no write of unknown outcome behind.
type pipeline struct {
	intake
	stream grpc.ServerStream
	ctx    context.Context    // of its calls
	cancel context.CancelFunc // when nobody can hear of them
	wake   chan struct{}      // one token: something has ended, or everything

	mu struct {
		sync.Mutex
		more   *sync.Cond // something was sent, or cannot be any more
		calls  map[uint64]*call
		ended  []*call // in the order in which they did
		open   int
		unsent int  // bytes of answers
		closed bool // no call begins any more
		lost   error
	}
}

const (
	// maxUnsent is how many bytes of answers may wait to be sent before a read waits.
	maxUnsent = 4 << 20
	// answerMessage is about what a message of answers has; larger answers have one
	// of their own.
	answerMessage = 64 << 10
)

// pipelines is the service.
type pipelines struct {
	s *Server
	i *interceptors
}

var pipelineService = grpc.ServiceDesc{
	ServiceName: keelsonpb.Service,
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{
		StreamName: keelsonpb.Stream, ServerStreams: true, ClientStreams: true,
		Handler: func(srv any, stream grpc.ServerStream) error { return srv.(*pipelines).serve(stream) },
	}},
	Metadata: keelsonpb.File,
}

func (l *pipelines) serve(stream grpc.ServerStream) error {
	p := &pipeline{stream: stream, wake: make(chan struct{}, 1)}
	// The stream's own context ends as soon as the member is to stop; calls that
	// have begun go on.
	ctx, cancel := context.WithCancel(context.WithoutCancel(stream.Context()))
	p.ctx, p.cancel = ctx, cancel
	p.intake = intake{s: l.s, i: l.i, workers: newWorkers(), ended: p.finished, awaitRoom: p.room}
	defer p.workers.stop()
	defer p.cancel()
	p.mu.more = sync.NewCond(&p.mu)
	p.mu.calls = map[uint64]*call{}
	if err := stream.SendMsg(encodeBytes(keelsonpb.AppendHello(nil, keelsonpb.MaxCalls))); err != nil {
		return err
	}
	go p.receive() // until this returns, because the stream is over then
	return p.answer(stream.Context().Done())
}

// requests is a message of calls, undecoded.
type requests struct{ body []byte }

func (r *requests) decode(body []byte) error {
	r.body = body
	return nil
}

// receive takes calls until the client has no more, or the stream ends.
func (p *pipeline) receive() {
	for {
		var m requests
		err := p.stream.RecvMsg(&m)
		if err == nil {
			err = p.message(m.body)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			p.close(nil)
			return
		default:
			p.close(err)
			return
		}
	}
}

// close lets no call begin any more. With an error nobody hears of those that
// have begun, either.
func (p *pipeline) close(err error) {
	p.mu.Lock()
	p.mu.closed = true
	var left []*call
	if err != nil && p.mu.lost == nil {
		p.mu.lost = err
		for _, c := range p.mu.calls {
			left = append(left, c)
		}
	}
	p.mu.more.Broadcast()
	p.mu.Unlock()
	if err != nil {
		p.cancel()
	}
	for _, c := range left {
		c.Leave()
	}
	p.signal()
}

func (p *pipeline) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// enter makes a call open. False: it does not begin.
func (p *pipeline) enter(c *call) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.mu.open >= keelsonpb.MaxCalls && !p.mu.closed {
		p.mu.more.Wait()
	}
	if p.mu.closed {
		return false, nil
	}
	if p.mu.calls[c.id] != nil {
		return false, status.Errorf(codes.InvalidArgument, "call %d is under way already", c.id)
	}
	p.mu.calls[c.id] = c
	p.mu.open++
	return true, nil
}

// finished has the answer of a call sent, with others'.
func (p *pipeline) finished(c *call) {
	p.mu.Lock()
	delete(p.mu.calls, c.id)
	p.mu.ended = append(p.mu.ended, c)
	p.mu.unsent += c.size()
	first := len(p.mu.ended) == 1
	p.mu.Unlock()
	if first {
		p.signal()
	}
}

// room waits while too many bytes of answers wait to be sent.
func (p *pipeline) room() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.mu.unsent > maxUnsent && p.mu.lost == nil {
		p.mu.more.Wait()
	}
}

// answer sends what has ended until nothing more can come. stop is closed when
// the member is to stop.
func (p *pipeline) answer(stop <-chan struct{}) error {
	var ended []*call
	for {
		select {
		case <-p.wake:
		case <-stop:
			stop = nil
			p.close(nil)
		}
		p.mu.Lock()
		ended, p.mu.ended = p.mu.ended, ended[:0]
		lost := p.mu.lost
		p.mu.Unlock()
		if err := p.send(ended, lost != nil); err != nil && lost == nil {
			p.close(err)
			continue
		}
		clear(ended)
		p.mu.Lock()
		over := p.mu.closed && p.mu.open == 0
		p.mu.Unlock()
		switch {
		case !over:
		case lost != nil:
			return lost
		default:
			return p.stream.SendMsg(encodeBytes(keelsonpb.AppendDone(nil)))
		}
	}
}

// send tells of calls that have ended, and sends their answers unless nobody
// hears them. After an error the rest counts as sent: nobody will hear of it.
func (p *pipeline) send(ended []*call, lost bool) (err error) {
	for from := 0; from < len(ended); {
		m := answerBatch{pool: mem.DefaultBufferPool()}
		now := p.i.metrics.clock.Now()
		n := from
		for ; n < len(ended) && !m.full(ended[n]); n++ {
			c := ended[n]
			if c.rpc.series != nil {
				p.i.end(&c.rpc, c.resp, c.err, now)
			}
			m.add(c)
		}
		switch {
		case lost || err != nil:
			m.buffers().Free()
		default:
			err = p.stream.SendMsg(&Encoded{m.buffers()})
		}
		p.mu.Lock()
		p.mu.open -= n - from
		p.mu.unsent -= m.bytes
		p.mu.more.Broadcast()
		p.mu.Unlock()
		from = n
	}
	return err
}

// message begins the calls of a message.
func (p *pipeline) message(body []byte) error {
	b := p.batch()
	var refused error
	err := keelsonpb.ReadRequests(body, func(one keelsonpb.Call) {
		if refused != nil {
			return
		}
		if p.crowded() { // the next call waits for others to end: these may be the ones
			p.start(&b)
		}
		refused = p.one(&b, one)
	}, p.leave)
	p.start(&b)
	return errors.Join(err, refused)
}

func (p *pipeline) crowded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.open >= keelsonpb.MaxCalls
}

// leave is told that the client waits no more for a call.
func (p *pipeline) leave(id uint64) {
	p.mu.Lock()
	c := p.mu.calls[id]
	p.mu.Unlock()
	if c != nil {
		c.Leave()
	}
}

// one begins a call. An error ends the stream.
func (p *pipeline) one(b *batch, of keelsonpb.Call) error {
	if of.Method == 0 || int(of.Method) >= len(busyMethods) {
		return status.Errorf(codes.Unimplemented, "unknown method %d", of.Method)
	}
	c := p.newCall(&busyMethods[of.Method])
	c.id = of.ID
	malformed := c.req.decode(of.Request)
	if ok, err := p.enter(c); !ok {
		return err
	}
	p.begin(b, c, p.ctx, malformed, of.NeedsLeader)
	return nil
}
