package client

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api/keelsonpb"
)

// A pipe is a stream to one endpoint that carries many calls. Callers add their
// requests to a message that is being filled; a sender passes on what is there as
// often as it can, so messages grow with the load and nobody waits for company.
// A receiver hands the answers out as they come.
//
// It is opened once so many calls are under way at an endpoint that it pays, and
// used from the member's first message on; until then, where members do not know
// it (etcd, an older kvd), and for what is too large for it, calls are unary RPCs.
// It is closed when it has been idle for a while.
//
// # Invariants
//
//	a call is in calls until it is answered, given up by its caller, expired, or the pipe ends;
//	who takes it out, and nobody else, ends it
//	len(calls) <= the member's maximum, waiting <= maxWaiting + one call: beyond, calls are unary
//	id <= departed: gRPC was given the call; only then a member can have acted on it
type pipe struct {
	stream grpc.ClientStream
	token  string // that the stream was opened with
	wake   chan struct{}
	timer  *time.Timer // looks for calls whose time is up

	mu struct {
		sync.Mutex
		calls    map[uint64]*pipeCall
		last     uint64 // the newest call
		departed uint64 // the newest call that gRPC was given
		out      []byte // the message that is being filled
		full     [][]byte
		waiting  int // bytes of out and full
		max      int
		closed   bool // takes no calls any more
		quiet    int  // looks in a row that found no call
	}
}

// pipeCall is one call. It is reused: done has no more than one token.
type pipeCall struct {
	id      uint64
	expires int64 // in ns since 1970; 0: never
	out     proto.Message
	done    chan struct{}
	passed
}

// passed is what became of an attempt.
type passed struct {
	err      error
	sent     bool // a member may have acted on it
	expired  bool
	pushback uint32
}

const (
	// defaultPipeAt is how many calls at once are worth a pipe.
	defaultPipeAt = 8
	// maxPiped is the largest request that goes through a pipe: others would wait
	// behind a larger one.
	maxPiped = 64 << 10
	// pipeMessage is about what a message has.
	pipeMessage = 32 << 10
	// maxWaiting bounds what waits to be sent.
	maxWaiting = 1 << 20

	// pipeLook is how exactly the times of calls are kept whose context has no
	// deadline, and of single attempts at a read.
	pipeLook = 20 * time.Millisecond
	// A pipe without calls is looked at each quietLook, and closed after quietLooks.
	quietLook  = time.Second
	quietLooks = 10

	// pipeRetry lies between attempts to open a pipe, unknownRetry after a member
	// did not know what that is: it may be replaced by a newer one.
	pipeRetry    = time.Second
	unknownRetry = time.Minute
)

var pipeCalls = sync.Pool{New: func() any { return &pipeCall{done: make(chan struct{}, 1)} }}

// piping is an endpoint's part in it.
type piping struct {
	now       atomic.Pointer[pipe]
	calls     atomic.Int32 // unary ones that could go through a pipe
	busy      atomic.Bool  // a pipe is there or is being opened
	notBefore atomic.Int64 // when to try again, in ns since 1970
}

// enterUnary notes that a unary call begins which a pipe could take, and opens one if
// there are many.
func (c *core) enterUnary(e *endpoint, token string) (leave func()) {
	g := &e.piping
	if g.calls.Add(1) >= c.cfg.pipeAt && time.Now().UnixNano() >= g.notBefore.Load() && g.busy.CompareAndSwap(false, true) {
		if !c.spawn(func() { c.runPipe(e, token) }) {
			g.busy.Store(false)
		}
	}
	return func() { g.calls.Add(-1) }
}

// pipeable reports whether a call may go through a pipe. What a context or an
// interceptor adds to an RPC's metadata would be lost there.
func (c *core) pipeable(ctx context.Context, r request) bool {
	if r.piped == 0 || c.cfg.NoPipeline || len(c.cfg.DialOptions) > 0 {
		return false
	}
	_, has := metadata.FromOutgoingContext(ctx)
	return !has
}

// runPipe opens a pipe and receives its answers until it ends.
func (c *core) runPipe(e *endpoint, token string) {
	g := &e.piping
	defer g.busy.Store(false)
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	p, err := openPipe(ctx, e, token)
	if err != nil {
		retry := pipeRetry
		if status.Code(err) == codes.Unimplemented {
			retry = unknownRetry
		}
		g.notBefore.Store(time.Now().Add(retry).UnixNano())
		return
	}
	p.mu.Lock()
	p.timer = time.AfterFunc(pipeLook, p.look)
	p.mu.Unlock()
	var sender sync.WaitGroup
	sender.Go(func() { p.send(ctx) })
	g.now.Store(p)
	done, err := p.receive()
	g.now.CompareAndSwap(p, nil)
	if c.ctx.Err() != nil {
		err = ErrClosed
	}
	p.end(err, done)
	cancel()
	p.timer.Stop()
	sender.Wait()
}

// openPipe returns a pipe whose member has shown that it knows what to do.
func openPipe(ctx context.Context, e *endpoint, token string) (*pipe, error) {
	desc := &grpc.StreamDesc{StreamName: keelsonpb.Stream, ServerStreams: true, ClientStreams: true}
	stream, err := e.conn.NewStream(outgoing(ctx, token, false), desc, keelsonpb.PipelineCalls, grpc.ForceCodecV2(pipeCodec{}))
	if err != nil {
		return nil, err
	}
	p := &pipe{stream: stream, token: token, wake: make(chan struct{}, 1)}
	p.mu.calls = map[uint64]*pipeCall{}
	var hello received
	if err := stream.RecvMsg(&hello); err != nil {
		return nil, err
	}
	defer hello.free()
	_, p.mu.max, err = keelsonpb.ReadAnswers(hello.bytes(), func(keelsonpb.Answer) error { return nil })
	return p, err
}

// call is one attempt at a call. taken is false when the pipe cannot have it.
func (p *pipe) call(ctx context.Context, r request, token string, expires time.Time, in, out proto.Message) (_ passed, taken bool) {
	c := pipeCalls.Get().(*pipeCall)
	c.out, c.passed, c.expires = out, passed{}, 0
	if !expires.IsZero() {
		c.expires = expires.UnixNano()
	}
	if !p.add(c, r, token, in) {
		pipeCalls.Put(c)
		return passed{}, false
	}
	if done := ctx.Done(); done == nil {
		<-c.done
	} else {
		select {
		case <-c.done:
		case <-done:
			p.abandon(c, ctx.Err())
			<-c.done
		}
	}
	result := c.passed
	c.out, c.passed = nil, passed{}
	pipeCalls.Put(c)
	return result, true
}

// add puts a call into the message that is being filled.
func (p *pipe) add(c *pipeCall, r request, token string, in proto.Message) bool {
	size := proto.Size(in)
	if size > maxPiped {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.closed && p.token != token {
		p.closeLocked() // who opens the next one has the new token
	}
	if p.mu.closed || len(p.mu.calls) >= p.mu.max || p.mu.waiting > maxWaiting {
		return false
	}
	p.mu.last++
	c.id = p.mu.last
	before := len(p.mu.out)
	if before > 0 && before+size > pipeMessage {
		p.mu.full = append(p.mu.full, p.mu.out)
		p.mu.out, before = nil, 0
	}
	if p.mu.out == nil {
		p.mu.out = newMessage()
	}
	b := keelsonpb.AppendCall(p.mu.out, keelsonpb.Call{ID: c.id, Method: r.piped, NeedsLeader: !r.local}, size)
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, in)
	if err != nil {
		p.mu.out = p.mu.out[:before]
		return false // it fails as a unary call does
	}
	p.mu.out = b
	p.mu.waiting += len(b) - before
	p.mu.calls[c.id] = c
	if p.mu.quiet > 0 {
		p.mu.quiet = 0
		p.timer.Reset(pipeLook)
	}
	p.signal()
	return true
}

func (p *pipe) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// abandon ends a call whose caller does not wait any more.
func (p *pipe) abandon(c *pipeCall, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.calls[c.id] == c {
		p.giveUpLocked(c, passed{err: status.FromContextError(err).Err()})
	}
}

// giveUpLocked ends a call without an answer, and tells the member. A call that is
// still here leaves with the next message: it counts as sent.
func (p *pipe) giveUpLocked(c *pipeCall, why passed) {
	delete(p.mu.calls, c.id)
	if p.mu.out == nil {
		p.mu.out = newMessage()
	}
	before := len(p.mu.out)
	p.mu.out = keelsonpb.AppendEnded(p.mu.out, c.id)
	p.mu.waiting += len(p.mu.out) - before
	p.signal()
	why.sent = true
	c.finish(why)
}

func (c *pipeCall) finish(result passed) {
	c.passed = result
	c.done <- struct{}{}
}

// look ends the calls whose time is up, and an idle pipe.
func (p *pipe) look() {
	now := time.Now().UnixNano()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.mu.calls {
		if c.expires != 0 && c.expires <= now {
			p.giveUpLocked(c, passed{err: status.FromContextError(context.DeadlineExceeded).Err(), expired: true})
		}
	}
	switch {
	case p.mu.closed && len(p.mu.calls) == 0:
	case len(p.mu.calls) > 0:
		p.mu.quiet = 0
		p.timer.Reset(pipeLook)
	default:
		if p.mu.quiet++; p.mu.quiet > quietLooks {
			p.closeLocked()
			return
		}
		p.timer.Reset(quietLook)
	}
}

// closeLocked lets the pipe take no call any more; it ends when all are answered.
func (p *pipe) closeLocked() {
	p.mu.closed = true
	p.signal()
}

// send passes messages on until ctx ends, or the pipe is closed and all is sent.
func (p *pipe) send(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		// Callers who are about to run add to the message first.
		runtime.Gosched()
		p.mu.Lock()
		messages := p.mu.full
		if len(p.mu.out) > 0 {
			messages = append(messages, p.mu.out)
		}
		p.mu.full, p.mu.out, p.mu.waiting = nil, nil, 0
		p.mu.departed = p.mu.last
		closed := p.mu.closed
		p.mu.Unlock()
		for _, m := range messages {
			if p.stream.SendMsg(sending(m)) != nil {
				return // the receiver hears why
			}
		}
		if closed {
			_ = p.stream.CloseSend() // never fails
			return
		}
	}
}

// receive hands out answers until the stream ends. done: the member has said that
// it began no call that it has not answered.
func (p *pipe) receive() (done bool, err error) {
	for {
		var m received
		if err := p.stream.RecvMsg(&m); err != nil {
			return done, err
		}
		done, _, err = keelsonpb.ReadAnswers(m.bytes(), p.answer)
		m.free()
		if err != nil || done {
			return done, err
		}
	}
}

// answer ends the call that the answer is for, if somebody still waits.
func (p *pipe) answer(a keelsonpb.Answer) error {
	p.mu.Lock()
	c := p.mu.calls[a.ID]
	delete(p.mu.calls, a.ID)
	p.mu.Unlock()
	if c == nil {
		return nil
	}
	result := passed{sent: true, pushback: min(a.PushbackMS, maxPushback)}
	if a.Code != 0 {
		result.err = status.Error(codes.Code(a.Code), a.Message)
	} else if err := proto.Unmarshal(a.Response, c.out); err != nil {
		result.err = status.Errorf(codes.Internal, "cannot decode the answer: %v", err)
	}
	c.finish(result)
	return nil
}

// end ends the calls that are left. done: none of them was begun.
func (p *pipe) end(err error, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.closed = true
	if done || err == nil {
		err = status.Error(codes.Unavailable, "the member ended the stream")
	}
	for id, c := range p.mu.calls {
		delete(p.mu.calls, id)
		c.finish(passed{err: err, sent: id <= p.mu.departed && !done})
	}
}
