//go:build wasip1

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/load"
	"github.com/keelson-io/keelson/chaos/wasm/wire"
	"github.com/keelson-io/keelson/client"
)

// How long members may take to answer at first, and everything to be at rest at the
// end. Liveness is judged by these: they are generous, for simulated time is cheap.
const (
	startLimit = 30 * time.Second
	endLimit   = time.Minute
)

// drive runs a load, which it records.
func drive(args []string) error {
	var set wire.Load
	if err := json.Unmarshal([]byte(args[0]), &set); err != nil {
		return err
	}
	d := &driver{set: set, card: newCard()}
	d.opts = []grpc.DialOption{grpc.WithContextDialer(d.card.dial)}
	ctx := context.Background()
	members, err := d.members(ctx)
	if err != nil {
		return fmt.Errorf("before the first fault: %w", err)
	}
	meta := set.Meta
	meta.Members = members
	if _, err := ask(wire.Begin, wire.Request{}); err != nil {
		return err
	}
	rec := history.NewRecorder(history.NewWriter(os.NewFile(wire.Record, "history"), meta))
	l, err := load.Start(ctx, rec, set.Load, members, d.dial, d.opts...)
	if err != nil {
		return err
	}
	time.Sleep(set.For)
	finish, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	return errors.Join(l.Finish(finish), rec.Close())
}

type driver struct {
	set     wire.Load
	card    *card
	opts    []grpc.DialOption
	library *load.Conn
}

// members waits until each member serves, and asks it who it is.
func (d *driver) members(ctx context.Context) ([]history.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	out := d.set.Meta.Members
	for i := range out {
		c, err := load.Direct(out[i], d.opts...)
		if err != nil {
			return nil, err
		}
		r, err := pb.NewKVClient(c).Range(ctx, &pb.RangeRequest{Key: []byte("x")}, grpc.WaitForReady(true))
		if err := errors.Join(err, c.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", out[i].Name, err)
		}
		out[i].ID = r.Header.MemberId
	}
	return out, nil
}

// dial gives every third client a way of its own to one member, and the others
// one client library, which they share, and with it its stream of calls.
func (d *driver) dial(n int) (load.Conn, error) {
	members := d.set.Meta.Members
	if n%3 == 0 {
		return load.Direct(members[n/3%len(members)], d.opts...)
	}
	if d.library == nil {
		var endpoints []string
		for _, m := range members {
			endpoints = append(endpoints, m.Endpoint)
		}
		c, err := load.Client(client.Config{Endpoints: endpoints, DialTimeout: time.Second, Dial: d.card.dial})
		if err != nil {
			return load.Conn{}, err
		}
		d.library = &c
	}
	return *d.library, nil // closing it again does nothing
}
