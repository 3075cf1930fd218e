package server

import (
	"context"
	"strconv"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api/keelsonpb"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/raft"
)

// pipelined is one call of a pipeline.
type pipelined struct {
	p        *pipeline
	id       uint64
	rpc      rpcRun
	serve    func(s *Server, ctx context.Context, req any) (*Encoded, error) // as by itself
	passed   bool                                                            // rpc.pass was taken
	who      auth.Principal                                                  // of the command
	command  raft.Command
	proposed bool // command was, from here

	left   atomic.Bool // the client waits no more
	cancel atomic.Pointer[context.CancelFunc]

	// Set by finish.
	resp     *Encoded
	err      error
	pushback uint32
}

// pipelineMethod is an RPC that may be called through a pipeline.
type pipelineMethod struct {
	name string
	make func() request
	call func(s *Server, ctx context.Context, req any) (*Encoded, error)
}

var pipelineMethods = [...]pipelineMethod{
	keelsonpb.Range:       through("Range", (*Server).Range),
	keelsonpb.Put:         through("Put", (*Server).Put),
	keelsonpb.DeleteRange: through("DeleteRange", (*Server).DeleteRange),
	keelsonpb.Txn:         through("Txn", (*Server).Txn),
}

func through[R any, P interface {
	*R
	request
}](name string, call func(*Server, context.Context, P) (*Encoded, error)) pipelineMethod {
	return pipelineMethod{
		name: "/etcdserverpb.KV/" + name,
		make: func() request { return P(new(R)) },
		call: func(s *Server, ctx context.Context, req any) (*Encoded, error) { return call(s, ctx, req.(P)) },
	}
}

// call begins a call: as far as it goes without waiting here, the rest by a
// worker. An error ends the stream.
func (p *pipeline) call(b *batch, call keelsonpb.Call) error {
	if call.Method == 0 || int(call.Method) >= len(pipelineMethods) {
		return status.Errorf(codes.Unimplemented, "unknown method %d", call.Method)
	}
	m := &pipelineMethods[call.Method]
	c := &pipelined{p: p, id: call.ID, serve: m.call}
	req := m.make()
	malformed := req.decode(call.Request)
	if ok, err := p.enter(c); !ok {
		return err
	}
	if malformed != nil { // nobody counts these, gRPC's words
		p.finish(c, nil, status.Errorf(codes.Internal, "grpc: error unmarshalling request: %v", malformed))
		return nil
	}
	c.rpc = p.i.begin(p.ctx, m.name, req, b.now)
	if err := p.i.admitted(&c.rpc, b.at, call.NeedsLeader); err != nil {
		p.finish(c, nil, err)
		return nil
	}
	if p.s.cfg.Tracer != nil { // its spans stand in contexts
		p.alone(c)
		return nil
	}
	if c.rpc.pass, c.passed = p.i.load.tryEnter(p.ctx, req, c.rpc.began); !c.passed {
		p.alone(c)
		return nil
	}
	p.quick(b, c, req)
	return nil
}

// quick adds the call to what its message does at once, if it can.
func (p *pipeline) quick(b *batch, c *pipelined, req request) {
	switch r := req.(type) {
	case *rangeRequest:
		if r.single() && checkRange(r) == nil {
			b.reads = append(b.reads, c)
			return
		}
	case writer:
		if t, ok := r.(*txnRequest); ok && t.readOnly() {
			break
		}
		if !p.s.proposal(p.ctx, r, &c.command, &c.who) || !c.propose() {
			break
		}
		b.commands, b.writes = append(b.commands, &c.command), append(b.writes, c)
		return
	}
	p.alone(c)
}

// propose marks that the command is about to be proposed. False: nobody waits for
// the call any more.
func (c *pipelined) propose() bool {
	p := c.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.left.Load() {
		return false
	}
	c.command.Waiter = c
	c.proposed = true
	return true
}

// Ended implements raft.Waiter.
func (c *pipelined) Ended(cmd *raft.Command, err error) {
	p := c.p
	if err == nil {
		err = cmd.Err
	}
	p.s.metrics.log.ended(err)
	if p.s.stale(err, c.who) {
		p.alone(c)
		return
	}
	resp, err := proposed(cmd.Kind, cmd.Result, err)
	p.finish(c, resp, rpcError(err))
}

// leave ends a call for which nobody waits any more.
func (c *pipelined) leave() {
	p := c.p
	p.mu.Lock()
	c.left.Store(true)
	proposed := c.proposed
	p.mu.Unlock()
	if cancel := c.cancel.Load(); cancel != nil {
		(*cancel)()
	}
	if proposed && c.command.Abandon() {
		p.s.metrics.log.ended(context.Canceled)
		p.finish(c, nil, rpcError(proposalError(context.Canceled)))
	}
}

// readAll answers reads of single keys, which share a read barrier.
func (p *pipeline) readAll(calls []*pipelined) {
	var behind error
	for _, c := range calls {
		if r := c.rpc.req.(*rangeRequest); !r.serializable {
			behind = p.s.catchUp(p.ctx, r)
			break
		}
	}
	for _, c := range calls {
		r := c.rpc.req.(*rangeRequest)
		if behind != nil && !r.serializable {
			p.finish(c, nil, rpcError(behind))
			continue
		}
		p.awaitRoom()
		resp, err := p.s.rangeNow(p.ctx, r)
		p.finish(c, resp, rpcError(err))
	}
}

// alone has a worker serve the call as one by itself.
func (p *pipeline) alone(c *pipelined) {
	p.run(func() {
		ctx, cancel := context.WithCancel(c.rpc.ctx)
		defer cancel()
		c.cancel.Store(&cancel)
		if c.left.Load() {
			cancel()
		}
		trailer := &callTrailer{method: c.rpc.method}
		resp, err := p.serveAlone(grpc.NewContextWithServerTransportStream(ctx, trailer), c)
		c.pushback = trailer.pushback
		p.finish(c, resp, err)
	})
}

func (p *pipeline) serveAlone(ctx context.Context, c *pipelined) (*Encoded, error) {
	p.awaitRoom()
	if !c.passed {
		var err error
		if c.rpc.pass, err = p.i.load.enter(ctx, c.rpc.req, c.rpc.began); err != nil {
			return nil, err
		}
	}
	if err := p.s.admitLearner(c.rpc.req.(request)); err != nil {
		return nil, err
	}
	resp, err := c.serve(p.s, ctx, c.rpc.req)
	if err != nil {
		return nil, rpcError(err)
	}
	return resp, nil
}

// callTrailer takes what a handler tells the client beside the answer: of that a
// pipeline knows one thing.
type callTrailer struct {
	method   string
	pushback uint32
}

func (t *callTrailer) Method() string               { return t.method }
func (t *callTrailer) SetHeader(metadata.MD) error  { return nil }
func (t *callTrailer) SendHeader(metadata.MD) error { return nil }
func (t *callTrailer) SetTrailer(md metadata.MD) error {
	if v := md.Get(retryHeader); len(v) > 0 {
		ms, err := strconv.ParseUint(v[0], 10, 32)
		if err != nil {
			return err
		}
		t.pushback = uint32(ms)
	}
	return nil
}

// answerBatch is a message that is being made.
type answerBatch struct {
	pool  mem.BufferPool
	whole *[]byte
	b     []byte
	large mem.BufferSlice // the response of the only call, when it is large
	bytes int             // of responses
}

// full reports whether the next answer goes into a message of its own.
func (m *answerBatch) full(c *pipelined) bool {
	if m.whole == nil {
		return false
	}
	return m.large != nil || c.size() > answerMessage || len(m.b)+c.size()+answerRoom > cap(m.b)
}

// answerRoom bounds what an answer has beside a response.
const answerRoom = 1 << 10

func (c *pipelined) size() int {
	if c.resp == nil {
		return 0
	}
	return c.resp.Buffers.Len()
}

func (m *answerBatch) add(c *pipelined) {
	size := c.size()
	if m.whole == nil {
		m.whole = m.pool.Get(answerMessage + answerRoom)
		m.b = (*m.whole)[:0]
	}
	a := keelsonpb.Answer{ID: c.id, PushbackMS: c.pushback}
	if c.err != nil {
		s, ok := status.FromError(c.err)
		if !ok {
			s = status.FromContextError(c.err)
		}
		a.Code, a.Message = uint32(s.Code()), s.Message()
		a.Message = a.Message[:min(len(a.Message), answerRoom/2)]
	}
	m.b = keelsonpb.AppendAnswer(m.b, a, size)
	m.bytes += size
	if c.resp == nil {
		return
	}
	if size > answerMessage-answerRoom {
		m.large = c.resp.Buffers
		return
	}
	for _, b := range c.resp.Buffers {
		m.b = append(m.b, b.ReadOnlyData()...)
	}
	c.resp.Buffers.Free()
}

// buffers is the message; it belongs to the caller.
func (m *answerBatch) buffers() mem.BufferSlice {
	*m.whole = m.b
	return append(mem.BufferSlice{mem.NewBuffer(m.whole, m.pool)}, m.large...)
}
