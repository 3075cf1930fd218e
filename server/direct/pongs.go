package direct

import (
	"cmp"
	"sync"
	"time"
)

// pongPause is how long an answer to a ping waits for one to a call that takes it along.
const pongPause = 20 * time.Millisecond

// pongs sends the answers to pings that nothing has taken along. Clients of gRPC's ping after
// nearly each answer, to learn of the connection, so a write for each would be most of what some
// calls cost; and a timer for each connection would cost as much.
type pongs struct {
	mu    sync.Mutex
	pause time.Duration // 0: pongPause
	timer *time.Timer   // nil: there has been none yet
	conns []*Conn       // the timer runs if there are any
}

func (p *pongs) wait(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, c)
	pause := cmp.Or(p.pause, pongPause)
	switch {
	case len(p.conns) > 1:
	case p.timer == nil:
		p.timer = time.AfterFunc(pause, p.send)
	default:
		p.timer.Reset(pause)
	}
}

func (p *pongs) send() {
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for _, c := range conns {
		c.mu.Lock()
		c.mu.pongs = false
		if len(c.mu.control) > 0 {
			c.kickLocked()
		}
		c.mu.Unlock()
	}
}
