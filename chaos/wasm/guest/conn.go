//go:build wasip1

package main

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/keelson-io/keelson/chaos/wasm/wire"
)

// conn is one connection of the host's network.
type conn struct {
	card          *card
	id            uint32
	local, remote net.Addr

	mu      sync.Mutex
	changed chan struct{} // closed and replaced whenever something below changes
	state   state
	failed  error
	in      []byte
	ended   bool // the other side sends no more
	waiting int  // bytes that the host has not got rid of
	closed  bool
	read    deadline
	write   deadline
}

type state int

const (
	dialing state = iota
	standing
)

// deadline is when a direction gives up.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// take is what the host tells.
func (c *conn) take(e wire.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e.Kind {
	case wire.Dialed:
		c.state = standing
	case wire.Refused:
		c.failed = os.NewSyscallError("connect", syscall.ECONNREFUSED)
	case wire.Data:
		c.in = append(c.in, e.Data...)
	case wire.End:
		c.ended = true
	case wire.Reset:
		c.failed = errReset
	case wire.Credit:
		c.waiting -= credit(e)
	}
	c.wakeLocked()
}

func (c *conn) wakeLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// wait calls ready, under the lock, until it is true or fails.
func (c *conn) wait(stop <-chan struct{}, ready func() (bool, error)) error {
	for {
		c.mu.Lock()
		ok, err := ready()
		changed := c.changed
		c.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stop:
			return os.ErrDeadlineExceeded
		}
	}
}

func (c *conn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	err = c.wait(nil, func() (bool, error) {
		switch {
		case c.closed:
			return false, net.ErrClosed
		case c.read.passed():
			return false, os.ErrDeadlineExceeded
		case len(c.in) > 0:
			n = copy(p, c.in)
			c.in = c.in[n:]
			return true, nil
		case c.ended:
			return false, io.EOF
		}
		return false, c.failed
	})
	return n, err
}

func (c *conn) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		room := 0
		err = c.wait(nil, func() (bool, error) {
			switch {
			case c.closed:
				return false, net.ErrClosed
			case c.write.passed():
				return false, os.ErrDeadlineExceeded
			}
			room = min(len(p)-n, wire.Window-c.waiting)
			if room > 0 {
				c.waiting += room
			}
			return room > 0, c.failed
		})
		if err == nil {
			_, err = ask(wire.Send, wire.Request{Handle: c.id, Data: p[n : n+room]})
			n += room
		}
	}
	return n, err
}

func (c *conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	c.wakeLocked()
	c.mu.Unlock()
	c.card.forget(c.id)
	_, err := ask(wire.Disconnect, wire.Request{Handle: c.id})
	return err
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetReadDeadline(t time.Time) error  { return c.set(&c.read, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.set(&c.write, t) }

func (c *conn) SetDeadline(t time.Time) error {
	if err := c.set(&c.read, t); err != nil {
		return err
	}
	return c.set(&c.write, t)
}

// set moves a deadline; who waits looks at it again, now and when it passes.
func (c *conn) set(d *deadline, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.at = t; !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.wakeLocked()
		})
	}
	c.wakeLocked()
	return nil
}
