package client_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands between client and member and breaks what passes.
type proxy struct {
	listener net.Listener
	target   string
	wait     sync.WaitGroup

	// answers, when set, sees each piece that comes from the member before the
	// client does. What it returns false for is lost, and the connection with it.
	answers atomic.Pointer[func(piece []byte) bool]

	mu struct {
		sync.Mutex
		conns  map[net.Conn]bool
		closed bool          // connections are refused
		frozen chan struct{} // open while nothing passes; nil: all passes
	}
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target}
	p.mu.conns = map[net.Conn]bool{}
	p.wait.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.thaw()
		p.cut()
		p.wait.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil || !p.add(in, out) {
			in.Close()
			if err == nil {
				out.Close()
			}
			continue
		}
		p.wait.Go(func() { p.copy(out, in, false) })
		p.wait.Go(func() { p.copy(in, out, true) })
	}
}

func (p *proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return false
	}
	for _, c := range conns {
		p.mu.conns[c] = true
	}
	return true
}

func (p *proxy) copy(to, from net.Conn, answers bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		frozen := p.mu.frozen
		p.mu.Unlock()
		if frozen != nil {
			<-frozen
		}
		if n > 0 && answers {
			if see := p.answers.Load(); see != nil && !(*see)(buf[:n]) {
				return
			}
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// cut breaks every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.mu.conns {
		c.Close()
	}
	clear(p.mu.conns)
}

// down cuts and accepts no connection until up.
func (p *proxy) down() {
	p.mu.Lock()
	p.mu.closed = true
	p.mu.Unlock()
	p.cut()
}

func (p *proxy) up() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.closed = false
}

// freeze lets nothing pass, and breaks nothing, until thaw.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.frozen = make(chan struct{})
}

func (p *proxy) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.frozen != nil {
		close(p.mu.frozen)
		p.mu.frozen = nil
	}
}
