package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

func (a *app) historyCommand() *cobra.Command {
	return verb("history KEY", "Show all revisions of a key that are not compacted, oldest first", "  kvctl history /config/a -o table",
		cobra.ExactArgs(1), func(ctx context.Context, args []string) error { return a.history(ctx, args[0]) })
}

func (a *app) history(ctx context.Context, key string) error {
	events, from, err := a.past(ctx, []byte(key), nil)
	if err != nil {
		return err
	}
	r := result{value: map[string]any{"events": events, "since": from}, head: append([]string{"EVENT"}, pairHead[1:]...)}
	for _, e := range events {
		r.rows = append(r.rows, append([]string{e.Type.String()}, a.pairRow(e.Kv)[1:]...))
	}
	r.simple = func(w io.Writer) {
		for _, e := range events {
			fmt.Fprintf(w, "%s at %d, version %d\n%s\n", e.Type, e.Kv.ModRevision, e.Kv.Version, a.bytesText(e.Kv.Value))
		}
	}
	return a.show(r)
}

// past reads what changed in a range since the last compaction, through a watch
// that ends at the newest revision.
func (a *app) past(ctx context.Context, key, end []byte) (events []*mvccpb.Event, from int64, err error) {
	err = a.call(ctx, fmt.Sprintf("read the history of %q", key), true, func(ctx context.Context, r *remote) error {
		now, err := r.kv().Range(ctx, &pb.RangeRequest{Key: key, RangeEnd: end, CountOnly: true})
		if err != nil {
			return err
		}
		events, from = nil, 1
		for {
			if events, err = pastOn(ctx, r, key, end, from, now.Header.GetRevision()); err == nil {
				return nil
			}
			var c *compactedAt
			if !errors.As(err, &c) {
				return err
			}
			from = c.revision
		}
	})
	return events, from, err
}

type compactedAt struct{ revision int64 }

func (c *compactedAt) Error() string { return fmt.Sprint("compacted at ", c.revision) }

func pastOn(ctx context.Context, r *remote, key, end []byte, from, to int64) (events []*mvccpb.Event, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.watch().Watch(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: key, RangeEnd: end, StartRevision: from}}})
	if err != nil {
		return nil, err
	}
	asked := false
	for {
		resp, err := stream.Recv()
		switch {
		case err != nil:
			return nil, err
		case resp.CompactRevision > 0:
			return nil, &compactedAt{resp.CompactRevision}
		case resp.Canceled:
			return nil, errors.New(resp.CancelReason)
		}
		for _, e := range resp.Events {
			if e.Kv.ModRevision <= to {
				events = append(events, e)
			}
		}
		// A progress answer for the newest revision comes when all before it was
		// delivered; it is asked for again after each answer.
		if !resp.Created && len(resp.Events) == 0 && resp.Header.GetRevision() >= to {
			return events, nil
		}
		if !asked || len(resp.Events) > 0 {
			asked = true
			if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}); err != nil {
				return nil, err
			}
		}
	}
}

func (a *app) diffCommand() *cobra.Command {
	var s span
	c := verb("diff REV1 REV2 KEY [END]", "Show what is different in a range between two revisions",
		"  kvctl diff 100 200 /config/ --prefix", cobra.RangeArgs(3, 4), func(ctx context.Context, args []string) error {
			one, err1 := strconv.ParseInt(args[0], 10, 64)
			two, err2 := strconv.ParseInt(args[1], 10, 64)
			if err1 != nil || err2 != nil {
				return usage("diff: %q and %q must be revisions (0: the newest)", args[0], args[1])
			}
			key, end, err := s.of(args[2:])
			if err != nil {
				return err
			}
			return a.diff(ctx, one, two, key, end)
		})
	s.define(c)
	return c
}

// change is one difference; a side that has no such key is nil.
type change struct {
	Key    string           `json:"key"`
	Before *mvccpb.KeyValue `json:"before,omitempty"`
	After  *mvccpb.KeyValue `json:"after,omitempty"`
}

func (a *app) diff(ctx context.Context, one, two int64, key, end []byte) error {
	read := func(rev int64) (kvs []*mvccpb.KeyValue, err error) {
		err = a.call(ctx, fmt.Sprintf("read %q at revision %d", key, rev), true, func(ctx context.Context, r *remote) error {
			resp, err := r.kv().Range(ctx, &pb.RangeRequest{Key: key, RangeEnd: end, Revision: rev})
			kvs = resp.GetKvs()
			return err
		})
		return kvs, err
	}
	before, err := read(one)
	if err != nil {
		return err
	}
	after, err := read(two)
	if err != nil {
		return err
	}
	changes := differences(before, after)
	r := result{value: changes, head: []string{"", "KEY", "BEFORE", "AFTER"}}
	for _, c := range changes {
		r.rows = append(r.rows, []string{c.mark(), a.bytesText([]byte(c.Key)), a.bytesText(c.Before.GetValue()), a.bytesText(c.After.GetValue())})
	}
	r.simple = func(w io.Writer) {
		for _, c := range changes {
			fmt.Fprintf(w, "%s %s\n", c.mark(), a.bytesText([]byte(c.Key)))
			if c.Before != nil {
				fmt.Fprintf(w, "- %s\n", a.bytesText(c.Before.Value))
			}
			if c.After != nil {
				fmt.Fprintf(w, "+ %s\n", a.bytesText(c.After.Value))
			}
		}
	}
	return a.show(r)
}

func (c *change) mark() string {
	switch {
	case c.Before == nil:
		return "A"
	case c.After == nil:
		return "D"
	}
	return "M"
}

// differences merges two sorted lists.
func differences(before, after []*mvccpb.KeyValue) (out []change) {
	for len(before) > 0 || len(after) > 0 {
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(after) == 0:
			order = -1
		default:
			order = bytes.Compare(before[0].Key, after[0].Key)
		}
		switch {
		case order < 0:
			out, before = append(out, change{string(before[0].Key), before[0], nil}), before[1:]
		case order > 0:
			out, after = append(out, change{string(after[0].Key), nil, after[0]}), after[1:]
		default:
			if before[0].ModRevision != after[0].ModRevision {
				out = append(out, change{string(before[0].Key), before[0], after[0]})
			}
			before, after = before[1:], after[1:]
		}
	}
	return out
}

// branch is a part of a key between two slashes.
type branch struct {
	keys int // at or below
	sub  map[string]*branch
}

func (b *branch) add(parts []string) {
	b.keys++
	if len(parts) == 0 {
		return
	}
	if b.sub == nil {
		b.sub = map[string]*branch{}
	}
	next := b.sub[parts[0]]
	if next == nil {
		next = &branch{}
		b.sub[parts[0]] = next
	}
	next.add(parts[1:])
}

func (b *branch) print(w io.Writer, indent string) {
	names := make([]string, 0, len(b.sub))
	for name := range b.sub {
		names = append(names, name)
	}
	sort.Strings(names)
	for i, name := range names {
		elbow, next := "├── ", "│   "
		if i == len(names)-1 {
			elbow, next = "└── ", "    "
		}
		sub := b.sub[name]
		fmt.Fprintf(w, "%s%s%s", indent, elbow, name)
		if sub.sub != nil {
			fmt.Fprintf(w, " (%d)", sub.keys)
		}
		fmt.Fprintln(w)
		sub.print(w, indent+next)
	}
}

// tree shows the keys of a range by their parts.
func (a *app) tree(ctx context.Context, r *pb.RangeRequest) error {
	r.KeysOnly = true
	var resp *pb.RangeResponse
	err := a.call(ctx, fmt.Sprintf("get %q", r.Key), true, func(ctx context.Context, to *remote) (err error) {
		resp, err = to.kv().Range(ctx, r)
		return err
	})
	if err != nil {
		return err
	}
	root := &branch{}
	for _, kv := range resp.Kvs {
		root.add(strings.Split(strings.TrimPrefix(a.bytesText(kv.Key), "/"), "/"))
	}
	fmt.Fprintf(a.out, "/ (%d)\n", root.keys)
	root.print(a.out, "")
	return nil
}
