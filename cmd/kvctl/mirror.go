package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// mirroring copies keys of one cluster into another and follows their changes.
// Values are the same; revisions and leases are not (see migrate).
type mirroring struct {
	from, to       *app
	prefix, target string
	rev            int64
	copied         int64
}

func (a *app) mirrorCommand() *cobra.Command {
	m := &mirroring{from: a}
	var dest global
	var once bool
	c := verb("mirror DESTINATION", "Copy keys into another cluster and follow their changes, until interrupted",
		"  kvctl mirror 10.0.9.1:2379 --prefix /config/ --dest-prefix /copy/", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
			g := a.global
			g.endpoints = strings.Split(args[0], ",")
			g.cert, g.key, g.cacert, g.user, g.password, g.token = dest.cert, dest.key, dest.cacert, dest.user, dest.password, ""
			m.to = &app{world: a.world, lines: a.lines, global: g}
			defer m.to.close()
			return m.run(ctx, once)
		})
	c.Aliases = []string{"make-mirror"}
	f := c.Flags()
	f.StringVar(&m.prefix, "prefix", "", "only keys that begin with this")
	f.StringVar(&m.target, "dest-prefix", "", "what takes the prefix's place in the destination (default: the same)")
	f.Int64Var(&m.rev, "rev", 0, "copy as of this revision, and follow from there")
	f.BoolVar(&once, "once", false, "copy, and do not follow")
	f.StringVar(&dest.cert, "dest-cert", "", "certificate `file` for the destination")
	f.StringVar(&dest.key, "dest-key", "", "its key `file`")
	f.StringVar(&dest.cacert, "dest-cacert", "", "CA `file` for the destination")
	f.StringVar(&dest.user, "dest-user", "", "user of the destination")
	f.StringVar(&dest.password, "dest-password", "", "password of that user")
	return c
}

func (m *mirroring) run(ctx context.Context, once bool) error {
	if m.target == "" {
		m.target = m.prefix
	}
	if err := m.copy(ctx); err != nil {
		return err
	}
	fmt.Fprintf(m.from.out, "copied %d keys at revision %d\n", m.copied, m.rev)
	if once {
		return nil
	}
	for {
		err := m.follow(ctx)
		if ctx.Err() != nil {
			fmt.Fprintf(m.from.out, "made %d changes, up to revision %d\n", m.copied, m.rev)
			return nil
		}
		if !unavailable(err) {
			return classify("mirror", "", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(rewatchPause):
		}
	}
}

// span is the mirrored range.
func (m *mirroring) span() (key, end []byte) {
	if m.prefix == "" {
		return []byte{0}, []byte{0}
	}
	return []byte(m.prefix), prefixEnd([]byte(m.prefix))
}

// mirrorPage is how many keys are read at once.
const mirrorPage = 500

// copy reads a page at a time, all at one revision.
func (m *mirroring) copy(ctx context.Context) error {
	key, end := m.span()
	for {
		var resp *pb.RangeResponse
		err := m.from.call(ctx, "mirror: read", true, func(ctx context.Context, r *remote) (err error) {
			resp, err = r.kv().Range(ctx, &pb.RangeRequest{Key: key, RangeEnd: end, Revision: m.rev, Limit: mirrorPage})
			return err
		})
		if err != nil {
			return err
		}
		if m.rev == 0 {
			m.rev = resp.Header.GetRevision()
		}
		for _, kv := range resp.Kvs {
			if err := m.apply(ctx, []*mvccpb.Event{{Kv: kv}}); err != nil {
				return err
			}
		}
		if !resp.More {
			return nil
		}
		key = append(bytes.Clone(resp.Kvs[len(resp.Kvs)-1].Key), 0)
	}
}

func (m *mirroring) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var r *remote
	var err error
	for _, endpoint := range m.from.endpoints {
		if r, err = m.from.connect(ctx, endpoint); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	stream, err := r.watch().Watch(ctx)
	if err != nil {
		return err
	}
	key, end := m.span()
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: key, RangeEnd: end, StartRevision: m.rev + 1}}})
	if err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		switch {
		case err != nil:
			return err
		case resp.CompactRevision > 0:
			return checkFailed("mirror", errFellBehind, "begin again")
		case resp.Canceled:
			return errors.New(resp.CancelReason)
		}
		for _, group := range byRevision(resp.Events) {
			if err := m.apply(ctx, group); err != nil {
				return err
			}
			m.rev = group[0].Kv.ModRevision
		}
	}
}

// apply makes the changes of one revision of the source in one transaction.
func (m *mirroring) apply(ctx context.Context, events []*mvccpb.Event) error {
	r := &pb.TxnRequest{}
	for _, e := range events {
		key := append([]byte(m.target), bytes.TrimPrefix(e.Kv.Key, []byte(m.prefix))...)
		op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: e.Kv.Value}}}
		if e.Type == mvccpb.Event_DELETE {
			op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}
		}
		r.Success = append(r.Success, op)
	}
	m.copied += int64(len(events))
	// A repetition changes nothing, so this is tried on each endpoint.
	return m.to.call(ctx, "mirror: write", true, func(ctx context.Context, to *remote) error {
		_, err := to.kv().Txn(ctx, r)
		return err
	})
}
