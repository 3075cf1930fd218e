package main

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// connection is a client of all members: each new connection goes to a member that
// takes it. A broken one is replaced by client-go, and a watch goes on from the
// revision that it had reached: all members have the same revisions.
type connection struct {
	kubernetes.Interface
}

func connect(members []string) (*connection, error) {
	var next atomic.Uint64
	dial := func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
		d := net.Dialer{Timeout: time.Second}
		for range members {
			at := next.Load() // stay with the one that works
			if conn, err = d.DialContext(ctx, network, members[at%uint64(len(members))]); err == nil {
				return conn, nil
			}
			next.CompareAndSwap(at, at+1)
		}
		return nil, err
	}
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: "http://kvd", Dial: dial, Timeout: 0, QPS: -1, // the address does not matter, dial knows better
	})
	return &connection{client}, err
}
