package server

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-io/keelson/clock"
)

// TestConnectionThatTakesNothing: a client of the resource layer that stops reading loses its
// connection. HTTP/2 cannot end one of its streams then: the frame that says so waits behind
// what is not taken.
func TestConnectionThatTakesNothing(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Clock = clock.System()
	cfg.ListenPeerURLs, cfg.ListenClientURLs = nil, nil
	cfg.ListenResourceURLs, _ = ParseURLs("http://127.0.0.1:0")
	sockets, err := bind(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer sockets.Close()
	g := sockets.objects[0]
	if g.stall == 0 {
		t.Fatal("nothing ends it")
	}
	g.stall = 200 * time.Millisecond
	client, err := net.Dial("tcp", addrOf(g))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	io.WriteString(client, "GET / HTTP/1.1\r\n") // shows what it speaks
	conn, err := g.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ended := make(chan error, 1)
	go func() {
		for buf := make([]byte, 1<<16); ; {
			if _, err := conn.Write(buf); err != nil {
				ended <- err
				return
			}
		}
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("the connection ended otherwise: %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("a client that reads nothing keeps its connection")
	}
}
