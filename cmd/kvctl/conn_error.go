package main

import (
	"context"
	"net"
	"strings"
	"sync"

	"google.golang.org/grpc/credentials"
)

// dialError remembers why a connection was not made, which grpc says only to
// those who make calls.
type dialError struct {
	mu struct {
		sync.Mutex
		err error
	}
}

func (d *dialError) set(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.err = err
}

func (d *dialError) last() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.err
}

func (d *dialError) dial(ctx context.Context, addr string) (net.Conn, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		d.set(err)
	}
	return conn, err
}

// watched are credentials that remember why a handshake failed.
type watched struct {
	credentials.TransportCredentials
	refusal *dialError
}

func (w *watched) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		w.refusal.set(err)
	}
	return conn, info, err
}

func (w *watched) Clone() credentials.TransportCredentials {
	return &watched{w.TransportCredentials.Clone(), w.refusal}
}
