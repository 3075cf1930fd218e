package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func (a *app) putCommand() *cobra.Command {
	var (
		r     pb.PutRequest
		lease string
	)
	c := verb("put KEY [VALUE]", "Write a key; without VALUE, standard input is the value",
		"  kvctl put /config/a on\n  kvctl put /config/b < file\n  kvctl put /lock x --lease 694d81417acd4a07",
		cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) (err error) {
			r.Key = []byte(args[0])
			if r.Lease, err = parseLease(lease); err != nil {
				return err
			}
			switch {
			case len(args) == 2 && r.IgnoreValue:
				return usage("--ignore-value keeps the value: give none")
			case len(args) == 2:
				r.Value = []byte(args[1])
			case !r.IgnoreValue:
				if r.Value, err = io.ReadAll(a.lines); err != nil {
					return fileFailed("read the value from standard input", err)
				}
				if len(r.Value) == 0 {
					return usage("put: no VALUE, and nothing on standard input; '' is the empty value")
				}
			}
			return a.put(ctx, &r)
		})
	f := c.Flags()
	f.StringVar(&lease, "lease", "0", "attach the key to the lease of this `id` (hexadecimal)")
	f.BoolVar(&r.PrevKv, "prev-kv", false, "show what was there before")
	f.BoolVar(&r.IgnoreValue, "ignore-value", false, "keep the value")
	f.BoolVar(&r.IgnoreLease, "ignore-lease", false, "keep the lease")
	return c
}

func (a *app) put(ctx context.Context, r *pb.PutRequest) error {
	if a.capture != nil {
		a.capture(r)
		return nil
	}
	var resp *pb.PutResponse
	err := a.call(ctx, fmt.Sprintf("put %q", r.Key), func(ctx context.Context, to *remote) (err error) {
		resp, err = to.kv().Put(ctx, r)
		return err
	})
	if err != nil {
		return err
	}
	return a.show(result{value: resp, simple: func(w io.Writer) { a.putText(w, resp) }})
}

func (a *app) putText(w io.Writer, resp *pb.PutResponse) {
	fmt.Fprintln(w, "OK")
	if resp.PrevKv != nil {
		a.pair(w, resp.PrevKv, false)
	}
}

func (a *app) delCommand() *cobra.Command {
	var (
		s      span
		r      pb.DeleteRangeRequest
		ranged bool
	)
	c := verb("del KEY [END]", "Delete a key, or the keys of a range; prints how many",
		"  kvctl del /config/a\n  kvctl del /config/ --prefix --prev-kv",
		cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) (err error) {
			if r.Key, r.RangeEnd, err = s.of(args); err != nil {
				return err
			}
			return a.del(ctx, &r)
		})
	s.define(c)
	c.Flags().BoolVar(&r.PrevKv, "prev-kv", false, "show what was deleted")
	c.Flags().BoolVar(&ranged, "range", false, "delete the keys from KEY to END, END not included (what two arguments mean anyway)")
	return c
}

func (a *app) del(ctx context.Context, r *pb.DeleteRangeRequest) error {
	if a.capture != nil {
		a.capture(r)
		return nil
	}
	var resp *pb.DeleteRangeResponse
	err := a.call(ctx, fmt.Sprintf("delete %q", r.Key), func(ctx context.Context, to *remote) (err error) {
		resp, err = to.kv().DeleteRange(ctx, r)
		return err
	})
	if err != nil {
		return err
	}
	return a.show(result{value: resp, simple: func(w io.Writer) { a.delText(w, resp) }})
}

func (a *app) delText(w io.Writer, resp *pb.DeleteRangeResponse) {
	fmt.Fprintln(w, resp.Deleted)
	for _, kv := range resp.PrevKvs {
		a.pair(w, kv, false)
	}
}
