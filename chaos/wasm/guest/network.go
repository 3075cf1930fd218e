//go:build wasip1

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/keelson-io/keelson/chaos/wasm/wire"
)

// card is the guest's way to the network that the host simulates.
type card struct {
	mu        sync.Mutex
	conns     map[uint32]*conn
	listeners map[string]*listener
	dials     uint32
}

// newCard starts the one goroutine that reads what the host tells; it lives as
// long as the guest.
func newCard() *card {
	c := &card{conns: map[uint32]*conn{}, listeners: map[string]*listener{}}
	go c.run(os.NewFile(wire.Card, "network"))
	return c
}

func (c *card) run(f io.Reader) {
	in := bufio.NewReader(f)
	for {
		var head [wire.EventHead]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			panic(fmt.Sprint("the network card is gone: ", err))
		}
		e, n := wire.DecodeEventHead(head)
		e.Data = make([]byte, n)
		if _, err := io.ReadFull(in, e.Data); err != nil {
			panic(fmt.Sprint("the network card is gone: ", err))
		}
		c.take(e)
	}
}

// take hands an event to the connection that it is about.
func (c *card) take(e wire.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Kind == wire.Incoming {
		at, from, _ := strings.Cut(string(e.Data), " ")
		l := c.listeners[at]
		if l == nil {
			return // closed meanwhile; the host knows
		}
		one := c.addLocked(e.Conn, at, from)
		one.state = standing
		l.queue = append(l.queue, one)
		l.wake()
		return
	}
	if one := c.conns[e.Conn]; one != nil {
		one.take(e)
	}
}

func (c *card) addLocked(id uint32, local, remote string) *conn {
	one := &conn{card: c, id: id, local: address(local), remote: address(remote)}
	one.changed = make(chan struct{})
	c.conns[id] = one
	return one
}

// address is an address in the host's network, which are all IPs and ports.
func address(s string) net.Addr {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return &net.TCPAddr{}
	}
	return net.TCPAddrFromAddrPort(a)
}

func (c *card) forget(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, id)
}

// DialContext implements server.Network.
func (c *card) DialContext(ctx context.Context, _, at string) (net.Conn, error) {
	c.mu.Lock()
	c.dials += 2
	one := c.addLocked(c.dials, "", at)
	c.mu.Unlock()
	if _, err := ask(wire.Dial, wire.Request{Handle: one.id, Name: at}); err != nil {
		return nil, err
	}
	err := one.wait(ctx.Done(), func() (bool, error) { return one.state == standing, one.failed })
	if err != nil {
		one.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: one.remote, Err: err}
	}
	return one, nil
}

// dial is DialContext as gRPC's clients want it.
func (c *card) dial(ctx context.Context, at string) (net.Conn, error) {
	return c.DialContext(ctx, "tcp", at)
}

// Listen implements server.Network.
func (c *card) Listen(_, at string) (net.Listener, error) {
	if _, err := ask(wire.Listen, wire.Request{Name: at}); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &listener{card: c, at: at, waker: make(chan struct{}, 1), closed: make(chan struct{})}
	c.listeners[at] = l
	return l, nil
}

type listener struct {
	card   *card
	at     string
	queue  []*conn       // under card.mu
	waker  chan struct{} // there may be something in the queue
	closed chan struct{}
	once   sync.Once
}

func (l *listener) wake() {
	select {
	case l.waker <- struct{}{}:
	default:
	}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		if one := l.next(); one != nil {
			return one, nil
		}
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-l.waker:
		}
	}
}

func (l *listener) next() *conn {
	l.card.mu.Lock()
	defer l.card.mu.Unlock()
	if len(l.queue) == 0 {
		return nil
	}
	one := l.queue[0]
	if l.queue = l.queue[1:]; len(l.queue) > 0 {
		l.wake()
	}
	return one
}

func (l *listener) Close() (err error) {
	l.once.Do(func() {
		close(l.closed)
		l.card.mu.Lock()
		delete(l.card.listeners, l.at)
		rest := l.queue
		l.queue = nil
		l.card.mu.Unlock()
		_, err = ask(wire.Unlisten, wire.Request{Name: l.at})
		for _, one := range rest {
			one.Close()
		}
	})
	return err
}

func (l *listener) Addr() net.Addr { return address(l.at) }

// credit reads the number in a Credit.
func credit(e wire.Event) int {
	n, err := strconv.Atoi(string(e.Data))
	if err != nil {
		panic("the host gives " + string(e.Data) + " bytes of credit")
	}
	return n
}

var errReset = os.NewSyscallError("read", syscall.ECONNRESET)
