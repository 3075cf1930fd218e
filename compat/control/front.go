package control

import (
	"io"
	"net"
	"sync"
	"time"
)

// Front is an address that forwards connections to one of several servers, as
// the load balancer before a control plane does: to the preferred one, and while
// that cannot be reached to the next. A connection ends when either side's does.
type Front struct {
	listener net.Listener
	backends []string
	wait     sync.WaitGroup

	mu struct {
		sync.Mutex
		prefer  int
		serving int // where the last connection went
		cut     bool
		conns   map[net.Conn]bool
	}
}

// NewFront listens on loopback.
func NewFront(backends []string, prefer int) (*Front, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &Front{listener: l, backends: backends}
	f.mu.prefer, f.mu.serving, f.mu.conns = prefer, prefer, map[net.Conn]bool{}
	f.wait.Go(f.accept)
	return f, nil
}

// Addr is where clients connect to.
func (f *Front) Addr() string { return f.listener.Addr().String() }

// Serving is the number of the server that the last connection went to.
func (f *Front) Serving() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.serving
}

// Cut ends all connections and refuses new ones, until Mend.
func (f *Front) Cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.cut = true
	for c := range f.mu.conns {
		c.Close()
	}
}

// Mend forwards again, to another server first.
func (f *Front) Mend(prefer int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.cut, f.mu.prefer, f.mu.serving = false, prefer, prefer
}

// Close ends everything.
func (f *Front) Close() {
	f.listener.Close()
	f.Cut()
	f.wait.Wait()
}

func (f *Front) accept() {
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.wait.Go(func() { f.forward(c) })
	}
}

func (f *Front) forward(client net.Conn) {
	defer client.Close()
	server := f.dial()
	if server == nil {
		return
	}
	defer server.Close()
	if !f.keep(client, server) {
		return
	}
	defer f.drop(client, server)
	var pipes sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		pipes.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // either way it is over
			client.Close()
			server.Close()
		})
	}
	pipes.Wait()
}

func (f *Front) keep(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		f.mu.conns[c] = true
	}
	return !f.mu.cut
}

func (f *Front) drop(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		delete(f.mu.conns, c)
	}
}

// dial connects to the first server that can be reached; nil: there is none.
func (f *Front) dial() net.Conn {
	f.mu.Lock()
	prefer, cut := f.mu.prefer, f.mu.cut
	f.mu.Unlock()
	for i := range f.backends {
		n := (prefer + i) % len(f.backends)
		if cut {
			return nil
		}
		c, err := net.DialTimeout("tcp", f.backends[n], time.Second)
		if err != nil {
			continue
		}
		f.mu.Lock()
		f.mu.serving = n
		f.mu.Unlock()
		return c
	}
	return nil
}
