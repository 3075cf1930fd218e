package client

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/api/keelsonpb"
)

// effect says what it means to send a request twice.
type effect int

const (
	reads   effect = iota // nothing
	writes                // applied twice, unless no server can have acted on the first
	changes               // as writes, of members and settings: a refusal is final
)

// request is an RPC, but for its messages.
type request struct {
	method  string
	effect  effect
	local   bool             // a member may answer by itself, without a leader
	bare    bool             // goes without a token: it is how one gets one
	stream  bool             // takes as long as it takes
	endless bool             // tried for ever, whatever Config.Rounds says
	at      string           // the endpoint to ask; empty: any
	piped   keelsonpb.Method // how a pipe calls the method; 0: not at all
}

// invoke sends a unary request until it is answered, may not be repeated, or ctx
// ends. The error is an *Error.
func (c *core) invoke(ctx context.Context, r request, in, out proto.Message) error {
	t := trial{core: c, request: r, in: in, out: out}
	return t.watched(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return conn.Invoke(ctx, r.method, in, out)
	}, out)
}

// try makes attempts at a request. answer, if it has a header, is what the last
// of them filled in.
func (c *core) try(ctx context.Context, r request, attempt func(context.Context, *grpc.ClientConn) error, answer any) error {
	t := trial{core: c, request: r}
	return t.watched(ctx, attempt, answer)
}

// watched runs the trial and tells the observer.
func (t *trial) watched(ctx context.Context, attempt func(context.Context, *grpc.ClientConn) error, answer any) error {
	if _, has := ctx.Deadline(); !has && !t.stream && t.cfg.Timeout > 0 {
		t.until = time.Now().Add(t.cfg.Timeout)
	}
	ctx, done := t.observe(ctx, t.method)
	err := t.run(ctx, attempt, answer)
	if t.cancel != nil {
		t.cancel()
	}
	outcome := Outcome{Attempts: t.attempts, Err: err}
	if t.last != nil {
		outcome.Endpoint = t.last.name
	}
	done(outcome)
	return err
}

// trial is one request on its way through the endpoints.
type trial struct {
	*core
	request
	in, out   proto.Message // nil: it cannot go through a pipe
	tried     []*endpoint   // in this round
	last      *endpoint
	attempts  int
	rounds    int
	refreshed int // how often the token was renewed
	pushback  time.Duration

	until  time.Time       // by when it is to be answered, whatever its context says; zero: that says it
	ended  context.Context // once there is one that ends then
	cancel context.CancelFunc
}

// bound returns a context that ends in time. A pipe looks after the time of its
// calls itself: most calls do without the timer.
func (t *trial) bound(ctx context.Context) context.Context {
	if t.until.IsZero() {
		return ctx
	}
	if t.ended == nil {
		t.ended, t.cancel = context.WithDeadline(ctx, t.until)
	}
	return t.ended
}

// maxRefreshes bounds how often one request renews its token: users and rights
// may change again while it is on its way.
const maxRefreshes = 3

func (t *trial) run(ctx context.Context, attempt func(context.Context, *grpc.ClientConn) error, answer any) error {
	var failure error    // of this round's, what says the most
	var teller *endpoint // where it was
	for {
		if t.ctx.Err() != nil {
			return t.failed(t.last, ErrClosed, false)
		}
		if t.exhausted() {
			return t.failed(teller, failure, false)
		}
		e, err := t.next(ctx)
		if err != nil {
			return t.failed(teller, ended(err, failure), false)
		}
		if e == nil {
			return t.failed(nil, errNoEndpoint(t.at), false)
		}
		t.last = e
		token, sent, err := t.attempt(ctx, e, attempt)
		if err == nil {
			if t.pool.answered(e, t.tried) {
				t.notice(NoticeFailover, e.name, failure)
			}
			if h, ok := answer.(interface{ GetHeader() *pb.ResponseHeader }); ok {
				t.pool.learn(e, h.GetHeader())
			}
			return nil
		}
		if len(t.tried) == 0 || isRefusal(err) || !isRefusal(failure) {
			failure, teller = err, e
		}
		ctx = t.bound(ctx)
		unknown := t.effect != reads && sent && mayHaveActed(err)
		switch {
		case ctx.Err() != nil:
			return t.failed(e, ended(ctx.Err(), err), unknown)
		case t.refreshes(err, token):
		case !t.effect.canRetry(err, sent):
			return t.failed(e, err, unknown)
		default:
			t.tried = append(t.tried, e)
			t.pool.look()
		}
	}
}

// attempt sends the request once. sent: it may have left this process.
func (t *trial) attempt(ctx context.Context, e *endpoint, send func(context.Context, *grpc.ClientConn) error) (token string, sent bool, err error) {
	t.attempts++
	if !t.bare && t.tokens != nil {
		have := false
		if token, have = t.tokens.have(); !have {
			if token, err = t.tokens.get(t.bound(ctx)); err != nil {
				return "", false, err
			}
		}
	}
	if t.in != nil && t.pipeable(ctx, t.request) {
		if p := e.piping.now.Load(); p != nil {
			if result, taken := p.call(ctx, t.request, token, t.expiry(ctx), t.in, t.out); taken {
				if result.expired {
					e.doubt()
				}
				t.pushback = max(t.pushback, time.Duration(result.pushback)*time.Millisecond)
				return token, result.sent, fromWire(result.err)
			}
		}
		defer t.enterUnary(e, token)()
	}
	ctx = t.bound(ctx)
	if t.effect == reads {
		var cancel context.CancelFunc
		ctx, cancel = t.share(ctx)
		defer cancel()
	}
	p := &passage{}
	err = send(outgoing(context.WithValue(ctx, passageKey{}, p), token, !t.local), e.conn)
	t.pushback = max(t.pushback, time.Duration(p.pushback.Load())*time.Millisecond)
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		e.doubt()
	}
	return token, p.departed.Load(), fromWire(err)
}

// expiry is when a pipe gives an attempt up that the end of ctx does not end
// sooner; zero: never.
func (t *trial) expiry(ctx context.Context) time.Time {
	if t.effect != reads || t.pool.only() {
		return t.until
	}
	end, has := ctx.Deadline()
	if !has {
		end = t.until
	}
	if end.IsZero() {
		return end
	}
	return time.Now().Add(time.Until(end) / 2)
}

// share gives one attempt of a read half of the time that is left, if there is
// another endpoint to turn to: one that hangs must not use up all of it.
func (t *trial) share(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, has := ctx.Deadline()
	if !has || t.stream || t.at != "" || t.pool.only() {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(deadline)/2)
}

// outgoing adds what a member wants to know about a request.
func outgoing(ctx context.Context, token string, needsLeader bool) context.Context {
	var pairs []string
	if needsLeader {
		// A member without a leader then refuses before it does anything: calls at once, streams
		// when it has had none for a while.
		pairs = append(pairs, "hasleader", "true")
	}
	if token != "" {
		pairs = append(pairs, "token", token)
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// Pauses between rounds over all endpoints: doubled from the first to the last,
// less up to half by chance.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

func pause(round int) time.Duration {
	d := min(firstPause<<min(round, 10), lastPause)
	return d - rand.N(d/2)
}

// exhausted reports that all endpoints have been tried as often as they may be.
func (t *trial) exhausted() bool {
	if t.cfg.Rounds == 0 || t.endless || t.rounds+1 < t.cfg.Rounds || len(t.tried) == 0 {
		return false
	}
	return t.at != "" || t.pool.pick(false, t.tried) == nil
}

// next returns where to try now, waiting a moment when all have been tried. It
// returns nil when an endpoint was asked for that is not there.
func (t *trial) next(ctx context.Context) (*endpoint, error) {
	if t.at != "" && len(t.tried) == 0 {
		return t.pool.find(t.at), ctx.Err()
	}
	if t.at == "" {
		if e := t.pool.pick(t.effect != reads, t.tried); e != nil {
			return e, ctx.Err()
		}
	}
	if err := t.sleep(ctx, max(pause(t.rounds), t.pushback)); err != nil {
		return nil, err
	}
	t.rounds++
	t.pushback = 0
	t.tried = t.tried[:0]
	return t.next(ctx)
}

// refreshes reports whether err says that the token is no good and a new one may
// help. Such a refusal comes before anything is done.
func (t *trial) refreshes(err error, token string) bool {
	refused := err == error(api.ErrInvalidAuthToken) || err == error(api.ErrAuthOldRevision) || token == "" && err == error(api.ErrUserEmpty)
	if !refused || t.bare || t.tokens == nil || t.refreshed == maxRefreshes {
		return false
	}
	t.refreshed++
	t.tokens.drop(token)
	t.notice(NoticeToken, t.last.name, err)
	return true
}

func (t *trial) failed(at *endpoint, err error, unknown bool) error {
	e := &Error{Op: t.method, Err: err, Unknown: unknown}
	if at != nil {
		e.Endpoint = at.name
	}
	return e
}
