package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

func (a *app) getCommand() *cobra.Command {
	var (
		s                       span
		consistency, order, by  string
		valueOnly, stream, tree bool
		r                       pb.RangeRequest
		o                       objects
	)
	c := verb("get KEY [END]", "Show a key, or the keys of a range",
		"  kvctl get /config/a\n  kvctl get /config/ --prefix --keys-only\n  kvctl get a z --limit 10 -o table\n  kvctl get /registry/pods -o wide",
		cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) (err error) {
			if r.Key, r.RangeEnd, err = s.of(args); err != nil {
				return err
			}
			if r.Serializable, err = serializable(consistency); err != nil {
				return err
			}
			if err = sortOrder(order, by, &r); err != nil {
				return err
			}
			if tree {
				return a.tree(ctx, &r, &o)
			}
			if o.are(a, r.Key) && !r.KeysOnly && !r.CountOnly && !valueOnly {
				return o.get(ctx, a, &r, stream)
			}
			r.KeysOnly = r.KeysOnly || a.output == outName
			return a.get(ctx, &r, stream, valueOnly)
		})
	f := c.Flags()
	s.define(c)
	o.flags(f)
	f.BoolVar(&o.managed, "show-managed-fields", false, "show metadata.managedFields of Kubernetes objects")
	f.StringVar(&consistency, "consistency", "l", "l (linearizable) or s (serializable: what this member has, perhaps old)")
	f.StringVar(&order, "order", "", "ASCEND or DESCEND")
	f.StringVar(&by, "sort-by", "", "CREATE, KEY, MODIFY, VALUE or VERSION")
	f.Int64Var(&r.Limit, "limit", 0, "show this many keys at most")
	f.Int64Var(&r.Revision, "rev", 0, "as of this revision")
	f.BoolVar(&r.KeysOnly, "keys-only", false, "keys without values")
	f.BoolVar(&r.CountOnly, "count-only", false, "the number of keys")
	f.BoolVar(&valueOnly, "print-value-only", false, "values without keys")
	f.Int64Var(&r.MinCreateRevision, "min-create-rev", 0, "created at this revision or later")
	f.Int64Var(&r.MaxCreateRevision, "max-create-rev", 0, "created at this revision or earlier")
	f.Int64Var(&r.MinModRevision, "min-mod-rev", 0, "modified at this revision or later")
	f.Int64Var(&r.MaxModRevision, "max-mod-rev", 0, "modified at this revision or earlier")
	f.BoolVar(&stream, "stream", false, "receive the answer in pieces")
	f.BoolVar(&tree, "tree", false, "as a tree of what the slashes separate, with the number of keys below")
	c.MarkFlagsMutuallyExclusive("keys-only", "count-only", "tree")
	return c
}

func (a *app) get(ctx context.Context, r *pb.RangeRequest, stream, valueOnly bool) error {
	if a.capture != nil {
		a.capture(r)
		return nil
	}
	resp, err := a.read(ctx, r, stream)
	if err != nil {
		return err
	}
	return a.show(result{value: resp, head: pairHead, rows: a.pairRows(resp.Kvs), simple: func(w io.Writer) {
		if r.CountOnly {
			fmt.Fprintln(w, resp.Count)
		}
		for _, kv := range resp.Kvs {
			a.pair(w, kv, valueOnly)
		}
	}})
}

// read sends a request for a range.
func (a *app) read(ctx context.Context, r *pb.RangeRequest, stream bool) (resp *pb.RangeResponse, err error) {
	err = a.call(ctx, fmt.Sprintf("get %q", r.Key), func(ctx context.Context, to *remote) (err error) {
		if stream {
			resp, err = rangeStream(ctx, to, r)
			return err
		}
		resp, err = to.kv().Range(ctx, r)
		return err
	})
	return resp, err
}

// rangeStream gathers the pieces of an answer.
func rangeStream(ctx context.Context, to *remote, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	pieces, err := to.kv().RangeStream(ctx, r)
	if err != nil {
		return nil, err
	}
	all := &pb.RangeResponse{}
	for {
		m, err := pieces.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		proto.Merge(all, m.RangeResponse) // as the protocol wants it
	}
}
