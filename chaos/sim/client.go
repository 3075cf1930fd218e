package sim

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/workload"
)

// client does one operation after the other, at one member until it is not
// served there.
type client struct {
	s      *Sim
	n      int
	at     *member
	asks   workload.Source
	served int // operations answered since faults ended
}

// newClient makes a client. Some fight for locks, append to lists, or do what the
// API server of Kubernetes does; the others do some of everything.
func newClient(s *Sim, n int) *client {
	r, cfg := s.chance.client, s.cfg
	c := &client{s: s, n: n, at: s.members[n%len(s.members)]}
	switch k := n - (cfg.Clients - cfg.Special); k {
	case 0, 3:
		c.asks = workload.NewLocks(n, r)
	case 1:
		c.asks = workload.NewRegistry(n, r, cfg.ValueBytes)
	case 2:
		c.asks = workload.NewLists(n, r)
	default:
		c.asks = &workload.Mixed{Client: n, R: r, Mix: cfg.Mix, Keys: cfg.Keys, ValueBytes: cfg.ValueBytes}
	}
	return c
}

func (c *client) think() time.Duration {
	return time.Duration(c.s.chance.client.ExpFloat64() * float64(c.s.cfg.Think))
}

// next begins an operation, unless the run ends.
func (c *client) next() {
	if c.s.stopped {
		return
	}
	method, req := c.asks.Next()
	if method == "" {
		c.s.after(c.think(), c.next)
		return
	}
	c.call(method, req)
}

// reach is how long a message between a client and a member takes.
func (s *Sim) reach() time.Duration {
	return 50*time.Microsecond + time.Duration(s.chance.client.Int64N(int64(300*time.Microsecond)))
}

// call sends a request to the client's member. A member that is down refuses the
// connection: the request surely had no effect, and is not written down.
func (c *client) call(method string, req proto.Message) {
	if !c.at.serves() {
		c.move()
		c.s.after(c.think()+50*time.Millisecond, c.next)
		return
	}
	c.send(c.at, method, req, func(op *history.Op) {
		c.asks.Learn(op)
		if op.Outcome == history.Unknown {
			c.move()
		}
		c.s.after(c.think(), c.next)
	})
}

// serves reports whether clients find somebody at the member. A learner refuses
// them; the interceptor that does so is not part of the simulation.
func (m *member) serves() bool {
	return m.node != nil && !m.repairing && m.cutOff == 0 && !m.s.roster.Members[uint64(m.id)].Learner
}

// send asks a member and writes down what it says, before done is told.
func (c *client) send(m *member, method string, req proto.Message, done func(*history.Op)) {
	s := c.s
	op := &history.Op{ID: len(s.hist.Ops), Client: c.n, Member: uint64(m.id), Life: m.life, Method: method, Call: s.now, Request: req}
	s.hist.Ops = append(s.hist.Ops, op)
	s.request(m, method, req, func(resp proto.Message, err error) {
		c.finish(op, resp, err)
		done(op)
	})
}

// request asks a member. done is told once, if only that nobody knows.
func (s *Sim) request(m *member, method string, req proto.Message, done func(proto.Message, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	over := false
	end := func(resp proto.Message, err error) {
		if !over {
			over = true
			cancel()
			done(resp, err)
		}
	}
	s.after(s.cfg.Timeout, func() {
		end(nil, context.DeadlineExceeded)
		if m.node != nil {
			m.turn() // its task sees the end of ctx
		}
	})
	life := m.life
	m.after(s.reach(), func() {
		m.spawn(func() {
			resp := workload.Answer(req)
			err := m.invoke(ctx, method, req, resp)
			switch {
			case m.life != life || m.dead != nil:
				s.after(s.reach(), func() { end(nil, errBroken) })
			case m.cutOff == 0:
				s.after(s.reach(), func() { end(resp, err) })
			}
		})
		m.turn()
	})
	s.after(s.reach()+50*time.Millisecond, func() {
		if m.life != life {
			end(nil, errBroken)
		}
	})
}

var errBroken = errors.New("the connection broke")

func (m *member) invoke(ctx context.Context, method string, req, resp proto.Message) error {
	k, ok := req.(*pb.LeaseKeepAliveRequest)
	if !ok {
		return m.node.Invoke(ctx, method, req, resp)
	}
	ttl, err := m.node.KeepAlive(ctx, api.LeaseID(k.ID))
	out := resp.(*pb.LeaseKeepAliveResponse)
	out.ID, out.TTL = k.ID, ttl
	return err
}

// finish writes down how the operation ended.
func (c *client) finish(op *history.Op, resp proto.Message, err error) {
	s := c.s
	op.Return = s.now
	switch {
	case err == nil:
		op.Outcome, op.Response = history.OK, resp
		s.stats.Acked++
		c.served++
	default:
		op.Outcome, op.Err = history.OutcomeOf(err), err.Error()
		if op.Outcome == history.Refused {
			s.stats.Refused++
		} else {
			s.stats.Unknown++
		}
	}
	s.mix(uint64(op.ID), uint64(op.Revision()), uint64(len(op.Err)))
}

// move makes the client go to another member.
func (c *client) move() { c.at = c.s.anybody() }
