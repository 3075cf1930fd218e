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
	"time"

	"github.com/keelson-io/keelson/clock"
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
	o := &opened{Conn: conn, cork: below, gate: &gate{traffic: &traffic{}, clock: clock.System(), places: make(chan struct{}, 1)}, client: newClientAddr(near.RemoteAddr())}
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

// TestWritesThatFollowEachOther: on a connection that many watches share, what comes
// at once travels together, and arrives although nothing follows it. What comes alone
// is not kept back.
func TestWritesThatFollowEachOther(t *testing.T) {
	o, socket, client := corked(t)
	fake := clock.NewFake(time.Unix(1000, 0))
	o.gate.clock, o.cork.lingers = fake, true
	write := func(n int) {
		if _, err := o.Write(make([]byte, n)); err != nil {
			t.Error(err)
		}
	}
	read := func(n int) {
		if _, err := io.ReadFull(client, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	const size, more, whole = 4000, 10, 2 * recordBytes
	var wait sync.WaitGroup
	for range 3 {
		fake.Advance(2 * corkGap)
		before := socket.writes.Load()
		wait.Go(func() { write(size) })
		read(size)
		wait.Wait()
		if n := socket.writes.Load() - before; n != 1 {
			t.Errorf("a write alone took %d", n)
		}
	}
	before := socket.writes.Load()
	o.cork.mu.Lock()
	o.cork.mu.settles = true // the scheduler does not come round
	o.cork.mu.Unlock()
	for range more {
		write(size)
	}
	write(whole - 1)
	if n := socket.writes.Load() - before; n > 1 {
		t.Errorf("%d writes before what follows each other has settled", n)
	}
	wait.Go(o.cork.settle)
	read(more*size + whole - 1)
	wait.Wait()
	if n := socket.writes.Load() - before; n > 2 {
		t.Errorf("%d writes for what follows each other", n)
	}
	for range 100 {
		wait.Go(func() { write(size); write(whole) })
		read(size + whole) // nothing else comes
		wait.Wait()
	}
}

// TestWhatIsKeptBackIsNotLost when its server closes the connection.
func TestWhatIsKeptBackIsNotLost(t *testing.T) {
	o, _, client := corked(t)
	o.cork.lingers = true
	o.gate.places <- struct{}{}
	o.cork.mu.Lock()
	o.cork.mu.settles = true
	o.cork.mu.Unlock()
	const size = 2 * recordBytes
	if _, err := o.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() { o.Close() })
	if got, err := io.ReadAll(client); len(got) != size || err != nil {
		t.Errorf("%d bytes of %d arrived: %v", len(got), size, err)
	}
	wait.Wait()
}

// TestTornWhileSettling: who wrote was told that all is well, so the connection ends.
func TestTornWhileSettling(t *testing.T) {
	o, socket, client := corked(t)
	o.cork.lingers = true
	socket.torn.Store(true)
	if _, err := o.Write(make([]byte, 2*recordBytes)); err != nil {
		t.Fatal(err)
	}
	if n, _ := io.Copy(io.Discard, client); n > 0 { // it ends
		t.Errorf("%d bytes arrived", n)
	}
	if _, err := o.Write([]byte("and on")); err == nil {
		t.Error("a write behind a torn one")
	}
}
