package server

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/keelson-io/keelson/server/admission"
)

// clientLoad is what a member keeps about one connection: whose it is, and how much
// of large answers waits in it to be sent.
type clientLoad struct {
	own  admission.Flow
	flow atomic.Pointer[admission.Flow] // own, or that of the user who is known by name

	held atomic.Int64 // bytes of answers that are not sent yet; changed under mu
	mu   struct {
		sync.Mutex
		answers *answers // whose budget held is a part of
		gone    bool     // the connection is closed: nothing is held any more
	}
}

// clientKey is the key of a connection's clientLoad in the contexts of HTTP.
type clientKey struct{}

// clientOf is the client that an RPC came from; nil if it came from no connection
// of a gate's.
func clientOf(ctx context.Context) *clientLoad {
	if conn := connectionOf(ctx); conn != nil {
		return &conn.load
	}
	c, _ := ctx.Value(clientKey{}).(*clientLoad)
	return c
}

// flow is whose requests an RPC's counts among: those of its user, once one was
// seen on the connection; of the holder of its certificate; or of the connection.
func (o *overload) flow(ctx context.Context) *admission.Flow {
	c := clientOf(ctx)
	if c == nil {
		return &o.unknown
	}
	if f := c.flow.Load(); f != nil {
		return f
	}
	f := &c.own
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
			f = o.gate.Flow("certificate " + info.State.PeerCertificates[0].Subject.CommonName)
		}
	}
	c.flow.CompareAndSwap(nil, f)
	return f
}

// known tells that the RPC's caller is a user. From now on the requests of its
// connection are this user's.
func (o *overload) known(ctx context.Context, user string) {
	c := clientOf(ctx)
	if c == nil {
		return
	}
	const kind = "user "
	f := c.flow.Load()
	if f != nil && len(f.Name) == len(kind)+len(user) && f.Name[:len(kind)] == kind && f.Name[len(kind):] == user {
		return
	}
	c.flow.Store(o.gate.Flow(kind + user))
}

// lend counts bytes of an answer that will wait in the connection; giveBack is for
// those that gRPC has written, or will not write. When a connection breaks, gRPC
// forgets some: leave gives them back.
func (c *clientLoad) lend(from *answers, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.gone {
		c.mu.answers = from
		c.held.Add(n)
		from.inFlight.Add(n)
	}
}

func (c *clientLoad) giveBack(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.gone {
		c.held.Add(-n)
		c.mu.answers.inFlight.Add(-n)
	}
}

// leave is called when the connection is closed: what waited in it is gone.
func (c *clientLoad) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.answers != nil && !c.mu.gone {
		c.mu.answers.inFlight.Add(-c.held.Swap(0))
		c.mu.answers.pulse()
	}
	c.mu.gone = true
}

// paceSending waits before n bytes are written to the connection, if a large
// answer is being sent.
func (c *clientLoad) paceSending(n int) {
	if c.held.Load() <= smallAnswer {
		return
	}
	c.mu.Lock()
	gate := c.mu.answers.gate
	c.mu.Unlock()
	gate.Pace(nil, admission.Sending, n)
}
