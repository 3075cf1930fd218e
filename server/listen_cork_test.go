package server

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keelson-io/keelson/server/certtest"
)

// countedConn counts what is written to a socket, and can be torn.
type countedConn struct {
	net.Conn
	writes atomic.Int64
	torn   atomic.Bool
}

var errTorn = errors.New("torn")

func (c *countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	if c.torn.Load() {
		return 0, errTorn
	}
	return c.Conn.Write(p)
}

// warmUp is what a connection sends before TLS makes records as long as they may be.
const warmUp = 256 << 10

// corked is a connection of a secure gate, and the client's end of it.
func corked(t *testing.T) (*opened, *countedConn, *tls.Conn) {
	t.Helper()
	pair := certtest.New(t, "ca").Issue("server", "127.0.0.1")
	key, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	socket := &countedConn{Conn: near}
	below := &cork{Conn: socket}
	conn := tls.Server(below, &tls.Config{Certificates: []tls.Certificate{key}})
	client := tls.Client(far, &tls.Config{InsecureSkipVerify: true})
	t.Cleanup(func() { near.Close(); far.Close() })
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := client.Handshake(); err != nil {
			t.Error(err)
		}
		if _, err := io.CopyN(io.Discard, client, warmUp); err != nil {
			t.Error(err)
		}
	})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	o := &opened{Conn: conn, cork: below, gate: &gate{traffic: &traffic{}}, client: newClientAddr(near.RemoteAddr())}
	if _, err := o.Write(make([]byte, warmUp)); err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	return o, socket, client
}

// TestRecordsOfAWriteTravelTogether writes as much as several records hold, among
// small writes of others.
func TestRecordsOfAWriteTravelTogether(t *testing.T) {
	o, socket, client := corked(t)
	for _, size := range []int{1, recordBytes, recordBytes + 9, 3 * recordBytes, 20 * recordBytes} {
		body := bytes.Repeat([]byte{'x'}, size)
		got := make([]byte, size)
		before := socket.writes.Load()
		var wait sync.WaitGroup
		wait.Go(func() {
			if n, err := o.Write(body); n != size || err != nil {
				t.Errorf("%d bytes of %d: %v", n, size, err)
			}
		})
		if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%d bytes: %v", size, err)
		}
		wait.Wait()
		if calls := socket.writes.Load() - before; calls > int64(size/corkBytes+1) {
			t.Errorf("%d bytes took %d writes", size, calls)
		}
	}
	const writers, rounds = 4, 50
	var wait sync.WaitGroup
	for i := range writers {
		wait.Go(func() {
			for range rounds {
				if _, err := o.Write(make([]byte, []int{10, recordBytes + 9}[i%2])); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if _, err := io.CopyN(io.Discard, client, writers/2*rounds*(10+recordBytes+9)); err != nil {
		t.Fatal(err)
	}
	wait.Wait()
}

// TestTornRecords: TLS took a write for done that failed below it; nothing may follow.
func TestTornRecords(t *testing.T) {
	o, socket, _ := corked(t)
	socket.torn.Store(true)
	if _, err := o.Write(make([]byte, 2*recordBytes)); !errors.Is(err, errTorn) {
		t.Errorf("a torn write: %v", err)
	}
	socket.torn.Store(false)
	_ = socket.Close() // what does reach it fails in another way
	if _, err := o.Write([]byte("and on")); !errors.Is(err, errTorn) {
		t.Errorf("behind a torn write: %v", err)
	}
}
