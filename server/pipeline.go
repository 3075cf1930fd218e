package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api/keelsonpb"
	"github.com/keelson-io/keelson/raft"
)

// A pipeline is a stream that carries many calls of one client (api/keelsonpb).
// Each call passes what a call by itself passes, in the same order: the
// interceptors' counters, refusals and queues, the handler's checks and rights,
// the audit log. What differs is who does it:
//
//	receiver   takes a message, checks its calls; writes that need not wait are
//	           proposed together, single-key reads share one read barrier
//	workers    do what may have to wait, a call each, exactly as by itself
//	raft       tells of the end of each write (pipelined.Ended)
//	the RPC's  sends the answers of all calls that have ended, together
//
// So a call that meets no obstacle has no goroutine. One that meets any is given
// to a worker from the beginning of its handler: no refusal is decided twice.
//
// # Invariants
//
//	a call is open from enter until its answer was sent, or cannot be sent any more
//	open <= keelsonpb.MaxCalls: then nothing more is received, and HTTP/2 holds the client back
//	each open call ends exactly once, by finish
//	after close no call is entered; the message with done leaves when none is open
//
// The last one tells the client which calls were never begun, so a member that
// stops leaves no write of unknown outcome behind.
type pipeline struct {
	s      *Server
	i      *interceptors
	stream grpc.ServerStream
	ctx    context.Context // of its calls: ends when nobody can hear of them
	cancel context.CancelFunc
	wake   chan struct{} // one token: something has ended, or everything
	work   chan func()   // to idle workers
	idle   atomic.Int32  // workers
	wait   sync.WaitGroup

	mu struct {
		sync.Mutex
		room   *sync.Cond // something was sent, or cannot be any more
		calls  map[uint64]*pipelined
		ended  []*pipelined // in the order in which they did
		open   int
		unsent int  // bytes of answers
		closed bool // no call begins any more
		lost   error
	}
}

const (
	// maxIdleWorkers of a stream wait for the next call that needs one.
	maxIdleWorkers = 64
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
	p := &pipeline{s: l.s, i: l.i, stream: stream, wake: make(chan struct{}, 1), work: make(chan func())}
	// The stream's own context ends as soon as the member is to stop; calls that
	// have begun go on.
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(stream.Context()))
	defer p.wait.Wait()
	defer p.cancel()
	p.mu.room = sync.NewCond(&p.mu)
	p.mu.calls = map[uint64]*pipelined{}
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
			err = p.begin(m.body)
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
	var left []*pipelined
	if err != nil && p.mu.lost == nil {
		p.mu.lost = err
		for _, c := range p.mu.calls {
			left = append(left, c)
		}
	}
	p.mu.room.Broadcast()
	p.mu.Unlock()
	if err != nil {
		p.cancel()
	}
	for _, c := range left {
		c.leave()
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
func (p *pipeline) enter(c *pipelined) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.mu.open >= keelsonpb.MaxCalls && !p.mu.closed {
		p.mu.room.Wait()
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

// finish ends a call; its answer is sent with others'.
func (p *pipeline) finish(c *pipelined, resp *Encoded, err error) {
	c.resp, c.err = resp, err
	p.mu.Lock()
	delete(p.mu.calls, c.id)
	p.mu.ended = append(p.mu.ended, c)
	if resp != nil {
		p.mu.unsent += resp.Buffers.Len()
	}
	first := len(p.mu.ended) == 1
	p.mu.Unlock()
	if first {
		p.signal()
	}
}

// awaitRoom waits while too many bytes of answers wait to be sent.
func (p *pipeline) awaitRoom() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.mu.unsent > maxUnsent && p.mu.lost == nil {
		p.mu.room.Wait()
	}
}

// run has a worker do something that may wait.
func (p *pipeline) run(job func()) {
	select {
	case p.work <- job:
	default:
		p.wait.Go(func() { p.worker(job) })
	}
}

// worker does jobs until there are more idle workers than are worth keeping: a
// goroutine that stays has its stack already.
func (p *pipeline) worker(job func()) {
	for {
		job()
		if p.idle.Add(1) > maxIdleWorkers {
			p.idle.Add(-1)
			return
		}
		select {
		case job = <-p.work:
			p.idle.Add(-1)
		case <-p.ctx.Done():
			return
		}
	}
}

// answer sends what has ended until nothing more can come. stop is closed when
// the member is to stop.
func (p *pipeline) answer(stop <-chan struct{}) error {
	var ended []*pipelined
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
func (p *pipeline) send(ended []*pipelined, lost bool) (err error) {
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
		p.mu.room.Broadcast()
		p.mu.Unlock()
		from = n
	}
	return err
}

// batch is what a message's calls have in common.
type batch struct {
	now      time.Time
	at       raft.Status
	commands []*raft.Command
	writes   []*pipelined // of the commands
	reads    []*pipelined
}

// begin begins the calls of a message.
func (p *pipeline) begin(body []byte) error {
	b := batch{now: p.i.metrics.clock.Now(), at: p.i.node.Status()}
	var refused error
	err := keelsonpb.ReadRequests(body, func(c keelsonpb.Call) {
		if refused != nil {
			return
		}
		if p.crowded() { // the next call waits for others to end: these may be the ones
			p.start(&b)
		}
		refused = p.call(&b, c)
	}, p.leave)
	p.start(&b)
	return errors.Join(err, refused)
}

func (p *pipeline) crowded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.open >= keelsonpb.MaxCalls
}

// start has the calls of a batch done, and empties it.
func (p *pipeline) start(b *batch) {
	if reads := b.reads; len(reads) > 0 {
		p.run(func() { p.readAll(reads) })
	}
	if len(b.commands) > 0 {
		if err := p.s.node.ProposeAll(b.commands); err != nil {
			for _, c := range b.writes {
				if c.command.Abandon() { // it was not taken
					p.s.metrics.log.pending.Dec()
					p.alone(c)
				}
			}
		}
	}
	b.commands, b.writes, b.reads = nil, nil, nil
}

// leave is told that the client waits no more for a call.
func (p *pipeline) leave(id uint64) {
	p.mu.Lock()
	c := p.mu.calls[id]
	p.mu.Unlock()
	if c != nil {
		c.leave()
	}
}
