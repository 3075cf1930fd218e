package client

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// pool chooses endpoints. Each client has a home, picked by chance so that many
// clients spread over the members, to which its reads and watches go; writes go
// to the leader, when it is known, which spares them a hop.
type pool struct {
	kick chan struct{} // tells the scout to look who leads
	term atomic.Uint64 // the newest of Raft's terms seen in an answer

	mu struct {
		sync.Mutex
		all    []*endpoint
		home   *endpoint
		leader *endpoint // nil: not known
	}
}

func newPool(cfg Config) (*pool, error) {
	p := &pool{kick: make(chan struct{}, 1)}
	return p, p.replace(cfg.Endpoints, cfg)
}

// replace makes names the endpoints. Those that stay keep their connections; the
// calls on those that go end as if the connection broke.
func (p *pool) replace(names []string, cfg Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var next, fresh []*endpoint
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		if i := slices.IndexFunc(p.mu.all, func(e *endpoint) bool { return e.name == name }); i >= 0 {
			next = append(next, p.mu.all[i])
			continue
		}
		e, err := dial(name, cfg)
		if err != nil {
			closeAll(fresh)
			return err
		}
		next, fresh = append(next, e), append(fresh, e)
	}
	gone := slices.DeleteFunc(slices.Clone(p.mu.all), func(e *endpoint) bool { return slices.Contains(next, e) })
	rand.Shuffle(len(next), func(i, j int) { next[i], next[j] = next[j], next[i] })
	p.mu.all = next
	if !slices.Contains(next, p.mu.home) {
		p.mu.home = next[0]
	}
	if !slices.Contains(next, p.mu.leader) {
		p.mu.leader = nil
	}
	closeAll(gone)
	p.look()
	return nil
}

func closeAll(list []*endpoint) {
	for _, e := range list {
		e.conn.Close()
	}
}

func (p *pool) list() []*endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.mu.all)
}

// find returns the endpoint with this name, or nil.
func (p *pool) find(name string) *endpoint {
	for _, e := range p.list() {
		if e.name == name {
			return e
		}
	}
	return nil
}

// pick returns the best endpoint that is not in tried, or nil when there is
// none left.
func (p *pool) pick(toLeader bool, tried []*endpoint) *endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	var best *endpoint
	bestCost := 0
	for _, e := range p.mu.all {
		if slices.Contains(tried, e) {
			continue
		}
		cost := 2
		switch {
		case toLeader && e == p.mu.leader:
			cost = 0
		case e == p.mu.home:
			cost = 1
		}
		if best != nil && cost >= bestCost {
			continue
		}
		if !e.up(now) {
			cost += 4
		}
		if best == nil || cost < bestCost {
			best, bestCost = e, cost
		}
	}
	return best
}

// only reports whether there is no other endpoint to turn to.
func (p *pool) only() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.mu.all) == 1
}

// answered notes that e answers, after those in tried did not. It reports
// whether e is the new home.
func (p *pool) answered(e *endpoint, tried []*endpoint) (moved bool) {
	e.trust()
	p.mu.Lock()
	defer p.mu.Unlock()
	home := p.mu.home
	if e == home || !slices.Contains(tried, home) && home.up(time.Now()) || !slices.Contains(p.mu.all, e) {
		return false
	}
	p.mu.home = e
	return true
}

// learn takes what an answer's header tells: who is at the endpoint, and, by a
// new term, that somebody else may lead.
func (p *pool) learn(e *endpoint, h *pb.ResponseHeader) {
	if h == nil {
		return
	}
	if id := h.MemberId; id != 0 && e.member.Load() != id {
		e.member.Store(id)
	}
	if seen := p.term.Load(); h.RaftTerm > seen && p.term.CompareAndSwap(seen, h.RaftTerm) {
		p.look()
	}
}

// look makes the scout look soon.
func (p *pool) look() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// Times of the scout.
const (
	scoutPause   = 100 * time.Millisecond // between two looks, at least
	scoutTimeout = time.Second            // for one member's answer
	scoutRetry   = 500 * time.Millisecond // when there is no leader
)

// scout finds the leader's endpoint whenever it is told to look, until ctx ends.
func (c *core) scout(ctx context.Context) {
	p := c.pool
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.kick:
		}
		pause := scoutPause
		if !p.only() && !c.findLeader(ctx) {
			pause = scoutRetry
			p.look()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// findLeader asks all members who leads and reports whether anybody does. Of
// different answers that of the highest term counts.
func (c *core) findLeader(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, scoutTimeout)
	defer cancel()
	all := c.pool.list()
	answers := make([]*pb.StatusResponse, len(all))
	var wait sync.WaitGroup
	for i, e := range all {
		wait.Go(func() {
			s := &pb.StatusResponse{}
			token, err := c.token(ctx)
			if err == nil && e.conn.Invoke(outgoing(ctx, token, false), pb.Maintenance_Status_FullMethodName, &pb.StatusRequest{}, s) == nil {
				answers[i] = s
				c.pool.learn(e, s.Header)
			}
		})
	}
	wait.Wait()
	var newest *pb.StatusResponse
	for _, s := range answers {
		if s != nil && s.Leader != 0 && (newest == nil || s.RaftTerm > newest.RaftTerm) {
			newest = s
		}
	}
	if newest == nil {
		return false
	}
	for _, e := range all {
		if e.member.Load() == newest.Leader && c.pool.setLeader(e) {
			c.notice(NoticeLeader, e.name, nil)
		}
	}
	return true
}

// setLeader reports whether e is news.
func (p *pool) setLeader(e *endpoint) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.leader == e || !slices.Contains(p.mu.all, e) {
		return false
	}
	p.mu.leader = e
	return true
}
