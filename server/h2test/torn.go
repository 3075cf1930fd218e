// Package h2test has what tests of HTTP/2 connections need: a client that holds a server to its
// windows, and a connection that tears what passes.
package h2test

import (
	"math/rand/v2"
	"net"
	"sync"
)

// Torn hands over what is written, and what is read, in pieces of random sizes.
type Torn struct {
	net.Conn
	most int
	mu   sync.Mutex
	rng  *rand.Rand
}

// Tear tears a connection into pieces of at most so many bytes.
func Tear(conn net.Conn, most int, seed uint64) *Torn {
	return &Torn{Conn: conn, most: most, rng: rand.New(rand.NewPCG(seed, 1))}
}

func (c *Torn) size(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(n, 1+c.rng.IntN(c.most))
}

// Read implements net.Conn.
func (c *Torn) Read(p []byte) (int, error) { return c.Conn.Read(p[:c.size(len(p))]) }

// Write implements net.Conn.
func (c *Torn) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = c.Conn.Write(p[n : n+c.size(len(p)-n)])
		n += m
	}
	return n, err
}
