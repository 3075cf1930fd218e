package server

import (
	"cmp"
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api/keelsonpb"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/planted"
	"github.com/keelson-io/keelson/raft"
	"github.com/keelson-io/keelson/server/direct"
)

// intake serves calls that come together: those of a pipeline's message
// (pipeline.go), or those that one read of a connection has brought (direct.go). Each passes
// what a call by itself passes, in the same order: the interceptors' counters,
// refusals and queues, the handler's checks and rights, the audit log. What differs is who does it:
//
//	receiver   checks calls; writes that need not wait are proposed together, short reads that need
//	           no proof are answered, the others share one read barrier
//	workers    do what may have to wait, a call each, exactly as by itself
//	raft       tells of the end of each write (call.Ended), and of the barrier, after which
//	           a worker answers its reads
//	sender     sends the answers of all calls that have ended, together
//
// So a call that meets no obstacle has no goroutine. One that meets any is given
// to a worker from the beginning of its handler: no refusal is decided twice.
// Each call that begins ends exactly once, by finish.
type intake struct {
	s         *Server
	i         *interceptors
	workers   *workers
	ended     func(c *call) // has the answer sent
	awaitRoom func()        // waits while too many bytes of answers wait to be sent
}

// call is one call of an intake.
type call struct {
	n       *intake
	id      uint64       // of a pipeline's
	wire    *direct.Call // of a connection's
	method  *busyMethod
	req     request
	rpc     rpcRun
	passed  bool // rpc.pass was taken
	who     auth.Principal
	command raft.Command
	timer   clock.Timer // of its deadline; nil: there is none

	mu       sync.Mutex
	proposed bool        // command was, from here
	waits    bool        // for a read barrier: who takes this back finishes the call
	left     error       // why the client waits no more; nil: it waits
	cancel   func(error) // of a worker's; nil: there is none

	// Set by finish.
	resp     *Encoded
	err      error
	pushback uint32
}

// busyMethod is an RPC that an intake serves.
type busyMethod struct {
	name string
	make func() request
	call func(s *Server, ctx context.Context, req any) (*Encoded, error)
}

var busyMethods = [...]busyMethod{
	keelsonpb.Range:       busy("Range", (*Server).Range),
	keelsonpb.Put:         busy("Put", (*Server).Put),
	keelsonpb.DeleteRange: busy("DeleteRange", (*Server).DeleteRange),
	keelsonpb.Txn:         busy("Txn", (*Server).Txn),
}

func busy[R any, P interface {
	*R
	request
}](name string, serve func(*Server, context.Context, P) (*Encoded, error)) busyMethod {
	return busyMethod{
		name: "/etcdserverpb.KV/" + name,
		make: func() request { return P(new(R)) },
		call: func(s *Server, ctx context.Context, req any) (*Encoded, error) { return serve(s, ctx, req.(P)) },
	}
}

func (n *intake) newCall(m *busyMethod) *call {
	return &call{n: n, method: m, req: m.make()}
}

func (c *call) size() int {
	if c.resp == nil {
		return 0
	}
	return c.resp.Buffers.Len()
}

// batch is what calls that came together have in common.
type batch struct {
	now      time.Time
	at       raft.Status
	commands []*raft.Command
	writes   []*call // of the commands
	reads    []*call
}

func (n *intake) batch() batch {
	return batch{now: n.i.metrics.clock.Now(), at: n.i.node.Status()}
}

// begin begins a call: as far as it goes without waiting here, the rest by a
// worker.
func (n *intake) begin(b *batch, c *call, ctx context.Context, malformed error, needsLeader bool) {
	if malformed != nil { // nobody counts these, gRPC's words
		n.finish(c, nil, status.Errorf(codes.Internal, "grpc: error unmarshalling request: %v", malformed))
		return
	}
	c.rpc = n.i.begin(ctx, c.method.name, c.req, b.now)
	if err := n.i.admitted(&c.rpc, b.at, needsLeader); err != nil {
		n.finish(c, nil, err)
		return
	}
	if n.s.cfg.Tracer != nil { // its spans stand in contexts
		n.alone(c)
		return
	}
	if c.rpc.pass, c.passed = n.i.load.tryEnter(ctx, c.req, c.rpc.began); !c.passed {
		n.alone(c)
		return
	}
	n.quick(b, c)
}

// quick adds the call to what is done at once with those that came with it, if it can.
func (n *intake) quick(b *batch, c *call) {
	switch r := c.req.(type) {
	case *rangeRequest:
		if !r.single() && !r.countOnly || checkRange(r) != nil {
			break
		}
		if r.serializable {
			n.readNow(c)
			return
		}
		if c.wait() {
			b.reads = append(b.reads, c)
			return
		}
	case writer:
		if t, ok := r.(*txnRequest); ok && t.readOnly() {
			break
		}
		if !n.s.proposal(c.rpc.ctx, r, &c.command, &c.who) || !c.propose() {
			break
		}
		b.commands, b.writes = append(b.commands, &c.command), append(b.writes, c)
		return
	}
	n.alone(c)
}

// start has the calls of a batch done, and empties it.
func (n *intake) start(b *batch) {
	if reads := b.reads; len(reads) > 0 {
		n.readAfterBarrier(reads)
	}
	if len(b.commands) > 0 {
		if err := n.s.node.ProposeAll(b.commands); err != nil {
			for _, c := range b.writes {
				if c.command.Abandon() { // it was not taken
					n.s.metrics.log.pending.Dec()
					n.alone(c)
				}
			}
		}
	}
	b.commands, b.writes, b.reads = nil, nil, nil
}

// finish ends a call; its answer is sent with others'.
func (n *intake) finish(c *call, resp *Encoded, err error) {
	c.resp, c.err = resp, err
	if c.timer != nil {
		c.timer.Stop()
	}
	n.ended(c)
}

// propose marks that the command is about to be proposed. False: nobody waits for
// the call any more.
func (c *call) propose() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left != nil {
		return false
	}
	c.command.Waiter = c
	c.proposed = true
	return true
}

// Ended implements raft.Waiter.
func (c *call) Ended(cmd *raft.Command, err error) {
	n := c.n
	if err == nil {
		err = cmd.Err
	}
	n.s.metrics.log.ended(err)
	if n.s.stale(err, c.who) {
		n.alone(c)
		return
	}
	resp, err := proposed(cmd.Kind, cmd.Result, err)
	n.finish(c, resp, rpcError(err))
}

// Leave ends a call for which nobody waits any more.
func (c *call) Leave() { c.leave(context.Canceled) }

func (c *call) leave(why error) {
	n := c.n
	c.mu.Lock()
	c.left = why
	proposed, waits, cancel := c.proposed, c.waits, c.cancel
	c.waits = false
	c.mu.Unlock()
	if cancel != nil {
		cancel(why)
	}
	if proposed && c.command.Abandon() {
		n.s.metrics.log.ended(why)
		n.finish(c, nil, rpcError(proposalError(why)))
	}
	if waits {
		n.s.metrics.log.proved(why)
		n.finish(c, nil, rpcError(why))
	}
}

// wait marks that the call is about to wait for a read barrier. False: nobody waits for
// the call any more.
func (c *call) wait() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waits = c.left == nil
	return c.waits
}

// waited reports whether the call still waits for a read barrier, and ends that.
func (c *call) waited() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	waits := c.waits
	c.waits = false
	return waits
}

// readAfterBarrier has a worker answer short reads once what the member has published is new
// enough for them. One that is left meanwhile ends at once.
func (n *intake) readAfterBarrier(calls []*call) {
	after := n.s.node.AfterBarrier
	if planted.ReadWithoutIndex {
		after = func(fn func(error)) { fn(nil) }
	}
	after(func(behind error) {
		if behind == nil && n.workers.run(func() { n.readAll(calls) }) {
			return
		}
		for _, c := range calls {
			if c.waited() {
				n.finish(c, nil, rpcError(cmp.Or(behind, context.Canceled)))
			}
		}
	})
}

// readAll answers short reads.
func (n *intake) readAll(calls []*call) {
	defer calls[0].together()()
	for _, c := range calls {
		if n.awaitRoom(); c.waited() {
			n.readNow(c)
		}
	}
}

// together has the answers of calls that end before the returned function is called sent by
// that: a goroutine that may wait for the socket saves another one.
func (c *call) together() func() {
	if c.wire == nil {
		return func() {}
	}
	c.wire.Conn().Gather()
	return c.wire.Conn().Send
}

// readNow answers a read of what the member has published.
func (n *intake) readNow(c *call) {
	resp, err := n.s.rangeNow(c.rpc.ctx, c.req.(*rangeRequest))
	n.finish(c, resp, rpcError(err))
}

// alone has a worker serve the call as one by itself.
func (n *intake) alone(c *call) {
	taken := n.workers.run(func() {
		ctx, cancel := context.WithCancelCause(c.rpc.ctx)
		defer cancel(nil)
		c.mu.Lock()
		c.cancel = cancel
		if c.left != nil {
			cancel(c.left)
		}
		c.mu.Unlock()
		trailer := &callTrailer{method: c.rpc.method}
		resp, err := n.serveAlone(grpc.NewContextWithServerTransportStream(timed{ctx}, trailer), c)
		c.pushback = trailer.pushback
		defer c.together()()
		n.finish(c, resp, err)
	})
	if !taken {
		n.finish(c, nil, rpcError(context.Canceled))
	}
}

// timed is a context that ends as if it had a deadline, which the member's clock knows.
type timed struct{ context.Context }

// Err implements context.Context.
func (c timed) Err() error {
	if err := c.Context.Err(); err == nil || context.Cause(c.Context) != context.DeadlineExceeded {
		return err
	}
	return context.DeadlineExceeded
}

func (n *intake) serveAlone(ctx context.Context, c *call) (*Encoded, error) {
	n.awaitRoom()
	if !c.passed {
		var err error
		if c.rpc.pass, err = n.i.load.enter(ctx, c.req, c.rpc.began); err != nil {
			return nil, err
		}
	}
	if err := n.s.admitLearner(c.req); err != nil {
		return nil, err
	}
	resp, err := c.method.call(n.s, ctx, c.req)
	if err != nil {
		return nil, rpcError(err)
	}
	return resp, nil
}

// callTrailer takes what a handler tells the client beside the answer: of that an
// intake knows one thing.
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

// maxIdleWorkers wait for the next job.
const maxIdleWorkers = 64

// workers do what may have to wait.
type workers struct {
	work chan func() // to idle ones
	done chan struct{}
	idle atomic.Int32
	wait sync.WaitGroup

	mu struct {
		sync.RWMutex
		stopped bool // no job begins any more
	}
}

func newWorkers() *workers {
	return &workers{work: make(chan func()), done: make(chan struct{})}
}

// run has a worker do the job. It does not wait; false: they have stopped.
func (w *workers) run(job func()) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.mu.stopped {
		return false
	}
	select {
	case w.work <- job:
	default:
		w.wait.Go(func() { w.worker(job) })
	}
	return true
}

// stop waits for the jobs that have begun. It is called once.
func (w *workers) stop() {
	w.mu.Lock()
	w.mu.stopped = true
	w.mu.Unlock()
	close(w.done)
	w.wait.Wait()
}

// worker does jobs until there are more idle workers than are worth keeping: a
// goroutine that stays has its stack already.
func (w *workers) worker(job func()) {
	for {
		job()
		if w.idle.Add(1) > maxIdleWorkers {
			w.idle.Add(-1)
			return
		}
		select {
		case job = <-w.work:
			w.idle.Add(-1)
		case <-w.done:
			return
		}
	}
}
