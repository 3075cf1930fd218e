package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/client"
)

func (a *app) watchCommand() *cobra.Command {
	var s span
	var w watching
	var o objects
	var command string
	c := verb("watch KEY [END] [-- COMMAND ARG…]", "Show changes as they come, or run a command for each",
		"  kvctl watch /config/ --prefix\n  kvctl watch a --rev 1\n  kvctl watch /registry/pods\n  kvctl watch a --exec 'systemctl reload app'\n  kvctl watch a -- sh -c 'echo $KVCTL_WATCH_VALUE'",
		cobra.MinimumNArgs(1), nil)
	c.Long = c.Short + `.

The watch goes on after a member or the leader was lost, without gap or repetition. A command finds the event in
KVCTL_WATCH_EVENT_TYPE, _KEY, _VALUE and _REVISION (and, as with etcdctl, the first three as ETCD_WATCH_…). An interrupt ends it.`
	c.RunE = func(c *cobra.Command, args []string) error {
		if at := c.ArgsLenAtDash(); at >= 0 {
			args, w.run = args[:at], args[at:]
		}
		if command != "" {
			w.run = []string{"sh", "-c", command}
		}
		if len(args) < 1 || len(args) > 2 {
			return usage("watch: want KEY [END], have %d arguments", len(args))
		}
		key, end, err := s.of(args)
		if err != nil {
			return err
		}
		if o.are(a, key) && len(w.run) == 0 {
			w.objects, w.previous = &objectWatch{objects: o}, true
			key, end = o.span(key, end)
		}
		w.keys = asRange(key, end)
		return a.watch(c.Context(), &w)
	}
	s.define(c)
	f := c.Flags()
	o.flags(f)
	f.Int64Var(&w.rev, "rev", 0, "from this revision on, the past first")
	f.BoolVar(&w.previous, "prev-kv", false, "show what was there before, too")
	f.BoolVar(&w.progress, "progress-notify", false, "say from time to time how far the watch is")
	f.StringVar(&command, "exec", "", "run this shell `command` for each event")
	f.IntVar(&w.limit, "limit", 0, "end after this many events")
	return c
}

// watching is a watch and what is done with its events.
type watching struct {
	keys               client.Range
	rev                int64 // the first; 0: what comes
	previous, progress bool
	objects            *objectWatch // not nil: the events are of Kubernetes objects
	run                []string     // a command for each; empty: they are printed
	limit              int          // 0: no end
	seen               int
}

// watch shows events until ctx ends. The client goes on after whatever breaks.
func (a *app) watch(ctx context.Context, w *watching) error {
	now, err := a.now(ctx, "watch", w.keys)
	if err != nil {
		return err
	}
	if w.rev == 0 {
		w.rev = int64(now) + 1
	}
	opts := []client.WatchOption{client.After(client.Revision(w.rev - 1))}
	if w.previous {
		opts = append(opts, client.WithPrevious())
	}
	if w.progress {
		opts = append(opts, client.Bookmarks())
	}
	r, err := a.patient()
	if err != nil {
		return err
	}
	var changes []*mvccpb.Event // of one revision
	began := false              // the first bookmark says that
	for ev, err := range r.Watch(ctx, w.keys, opts...) {
		switch {
		case err != nil:
			return a.watchEnded(w, err)
		case ev.Type == client.EventBookmark:
			if len(w.run) == 0 && began {
				fmt.Fprintf(a.out, "progress notify: %d\n", ev.Revision)
			}
			began = true
			continue
		}
		changes = append(changes, eventOnWire(ev))
		w.seen++
		enough := w.limit > 0 && w.seen == w.limit
		if ev.More && !enough {
			continue
		}
		if err := a.events(ctx, changes, w); err != nil || enough {
			return err
		}
		changes = nil
	}
	return nil
}

// now asks for the store's revision, and whether the range may be read.
func (a *app) now(ctx context.Context, did string, keys client.Range) (rev client.Revision, err error) {
	err = a.call(ctx, did, func(ctx context.Context, r *remote) error {
		_, err := r.Count(ctx, keys, client.ReadRevision(&rev))
		return err
	})
	return rev, err
}

func (a *app) watchEnded(w *watching, err error) error {
	var compacted *client.CompactedError
	if errors.As(err, &compacted) {
		return &failure{code: exitRefused, did: "watch", endpoint: strings.Join(a.endpoints, ","),
			err:  fmt.Errorf("%w; the watch wanted revision %d", err, w.rev),
			next: fmt.Sprintf("read what there is now (kvctl get), then watch with --rev %d or later", compacted.Revision+1)}
	}
	return classify("watch", err, a.endpoints...)
}

// watchAnswer is a group of events in etcdctl's JSON.
type watchAnswer struct {
	Header struct {
		Revision int64 `json:"revision"`
	}
	Events          []*mvccpb.Event
	CompactRevision int64
	Canceled        bool
	Created         bool
	CancelReason    string
}

func (a *app) events(ctx context.Context, events []*mvccpb.Event, w *watching) error {
	if w.objects == nil && (a.output == outJSON || a.output == outYAML) && len(w.run) == 0 {
		answer := watchAnswer{Events: events}
		answer.Header.Revision = events[0].Kv.ModRevision
		return a.show(result{value: answer})
	}
	for _, e := range events {
		if err := a.event(ctx, e, w); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) event(ctx context.Context, e *mvccpb.Event, w *watching) error {
	if w.objects != nil {
		return w.objects.event(a, e)
	}
	if len(w.run) > 0 {
		cmd := exec.CommandContext(ctx, w.run[0], w.run[1:]...)
		cmd.Stdout, cmd.Stderr = a.out, a.errs
		cmd.Env = append(os.Environ(), watchEnv(e)...)
		if err := cmd.Run(); err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				fmt.Fprintf(a.errs, "kvctl: %s: %v\n", strings.Join(w.run, " "), err)
				return nil // the next event is still wanted
			}
			return fileFailed("run "+w.run[0], err)
		}
		return nil
	}
	fmt.Fprintln(a.out, e.Type)
	if e.PrevKv != nil {
		a.pair(a.out, e.PrevKv, false)
	}
	a.pair(a.out, e.Kv, false)
	return nil
}

func watchEnv(e *mvccpb.Event) (env []string) {
	for _, prefix := range []string{"KVCTL", "ETCD"} {
		env = append(env,
			fmt.Sprintf("%s_WATCH_REVISION=%d", prefix, e.Kv.ModRevision),
			fmt.Sprintf("%s_WATCH_EVENT_TYPE=%s", prefix, e.Type),
			fmt.Sprintf("%s_WATCH_KEY=%s", prefix, watchValue(prefix, e.Kv.Key)),
			fmt.Sprintf("%s_WATCH_VALUE=%s", prefix, watchValue(prefix, e.Kv.Value)))
	}
	return env
}

// watchValue is quoted for ETCD_…, as etcdctl does.
func watchValue(prefix string, b []byte) string {
	if prefix == "ETCD" {
		return fmt.Sprintf("%q", b)
	}
	return strings.ReplaceAll(string(b), "\x00", "") // an environment holds no zero byte
}
