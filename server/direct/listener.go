package direct

import (
	"net"
	"sync"
)

// Listener puts a Conn on each connection that is accepted.
type Listener struct {
	net.Listener
	Options *Options

	pongs   pongs
	streams sync.WaitGroup
	mu      sync.Mutex
	open    map[*Conn]struct{}
	quiet   bool // Drain was called
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := newConn(conn, l.Options, l)
	c.closed = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, c)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[*Conn]struct{}{}
	}
	l.open[c] = struct{}{}
	c.mu.idle = l.quiet
	return c, nil
}

// Wait waits for the handlers of streams, whose connections have ended.
func (l *Listener) Wait() { l.streams.Wait() }

// Drain lets grpc-go have the calls to come, and waits until those that were taken have been
// answered, or their connections have ended.
func (l *Listener) Drain() {
	l.mu.Lock()
	l.quiet = true
	var waits []<-chan struct{}
	for c := range l.open {
		waits = append(waits, c.drain())
	}
	l.mu.Unlock()
	for _, w := range waits {
		<-w
	}
}
