package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sort"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/client"
)

func (a *app) historyCommand() *cobra.Command {
	var o objects
	c := verb("history KEY", "Show all revisions of a key that are not compacted, oldest first; of a Kubernetes object, what changed in it",
		"  kvctl history /config/a -o table", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error { return a.history(ctx, args[0], &o) })
	o.flags(c.Flags())
	return c
}

func (a *app) history(ctx context.Context, key string, o *objects) error {
	events, from, err := a.past(ctx, client.Key(key))
	if err != nil {
		return err
	}
	if o.are(a, []byte(key)) {
		return o.historyOf(a, events, from)
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

// past reads what changed in a range since the last compaction.
func (a *app) past(ctx context.Context, keys client.Range) (events []*mvccpb.Event, from client.Revision, err error) {
	now, err := a.now(ctx, "read the history", keys)
	if err != nil {
		return nil, 0, err
	}
	from = 1
	err = a.call(ctx, "read the history", func(ctx context.Context, r *remote) error {
		for {
			events = nil
			var ended error
			for ev, err := range r.Watch(ctx, keys, client.After(from-1), client.Until(now)) {
				if ended = err; err == nil {
					events = append(events, eventOnWire(ev))
				}
			}
			var compacted *client.CompactedError
			if !errors.As(ended, &compacted) {
				return ended
			}
			from = compacted.Revision // what the keys are at this revision is kept
		}
	})
	return events, from, err
}

func (a *app) diffCommand() *cobra.Command {
	var s span
	var o objects
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
			if o.are(a, key) {
				return o.diff(ctx, a, one, two, key, end)
			}
			changes, err := a.diff(ctx, one, two, asRange(key, end))
			if err != nil {
				return err
			}
			return a.showDiff(changes)
		})
	s.define(c)
	o.flags(c.Flags())
	return c
}

// change is one difference; a side that has no such key is nil.
type change struct {
	Key    string           `json:"key"`
	Before *mvccpb.KeyValue `json:"before,omitempty"`
	After  *mvccpb.KeyValue `json:"after,omitempty"`
}

func (a *app) diff(ctx context.Context, one, two int64, keys client.Range) (changes []change, err error) {
	err = a.call(ctx, "compare two revisions", func(ctx context.Context, r *remote) (err error) {
		before, stop := iter.Pull2(r.Scan(ctx, keys, client.AtRevision(client.Revision(one))))
		defer stop()
		after, stop := iter.Pull2(r.Scan(ctx, keys, client.AtRevision(client.Revision(two))))
		defer stop()
		changes, err = differences(before, after)
		return err
	})
	return changes, err
}

func (a *app) showDiff(changes []change) error {
	r := result{value: changes, head: []string{"", "KEY", "BEFORE", "AFTER"}}
	for _, c := range changes {
		r.rows = append(r.rows, []string{c.mark(), a.bytesText([]byte(c.Key)), a.bytesText(c.Before.GetValue()), a.bytesText(c.After.GetValue())})
	}
	r.simple = func(w io.Writer) {
		for _, c := range changes {
			fmt.Fprintf(w, "%s %s\n", c.mark(), a.bytesText([]byte(c.Key)))
			if c.Before != nil {
				fmt.Fprintln(w, a.paint(red, "- "+a.bytesText(c.Before.Value)))
			}
			if c.After != nil {
				fmt.Fprintln(w, a.paint(green, "+ "+a.bytesText(c.After.Value)))
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

// differences merges two lists, of which only a page is in memory at a time.
func differences(before, after func() (client.KV, error, bool)) (out []change, err error) {
	next := func(from func() (client.KV, error, bool)) (kv *mvccpb.KeyValue) {
		got, failed, ok := from()
		if failed != nil {
			err = failed
		}
		if !ok || failed != nil {
			return nil
		}
		return onWire(got)
	}
	b, a := next(before), next(after)
	for err == nil && (b != nil || a != nil) {
		switch {
		case a == nil || b != nil && string(b.Key) < string(a.Key):
			out, b = append(out, change{string(b.Key), b, nil}), next(before)
		case b == nil || string(a.Key) < string(b.Key):
			out, a = append(out, change{string(a.Key), nil, a}), next(after)
		default:
			if b.ModRevision != a.ModRevision {
				out = append(out, change{string(b.Key), b, a})
			}
			b, a = next(before), next(after)
		}
	}
	return out, err
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

// print shows the branches; kind says what a path is the collection of.
func (b *branch) print(w io.Writer, indent, path string, kind func(path string) string) {
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
			fmt.Fprintf(w, " (%d)%s", sub.keys, kind(path+"/"+name))
		}
		fmt.Fprintln(w)
		sub.print(w, indent+next, path+"/"+name, kind)
	}
}

// tree shows the keys of a range by their parts.
func (a *app) tree(ctx context.Context, r *pb.RangeRequest, o *objects) error {
	root := &branch{}
	err := a.call(ctx, fmt.Sprintf("get %q", r.Key), func(ctx context.Context, to *remote) error {
		for kv, err := range to.Scan(ctx, asRange(r.Key, r.RangeEnd), client.KeysOnly(), client.Limit(r.Limit), client.AtRevision(client.Revision(r.Revision))) {
			if err != nil {
				return err
			}
			root.add(strings.Split(strings.TrimPrefix(a.bytesText([]byte(kv.Key)), "/"), "/"))
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "/ (%d)\n", root.keys)
	root.print(a.out, "", "", o.label)
	return nil
}
