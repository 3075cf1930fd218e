package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

func (a *app) watchCommand() *cobra.Command {
	var s span
	var r pb.WatchCreateRequest
	var command string
	var limit int
	c := verb("watch KEY [END] [-- COMMAND ARG…]", "Show changes as they come, or run a command for each",
		"  kvctl watch /config/ --prefix\n  kvctl watch a --rev 1\n  kvctl watch a --exec 'systemctl reload app'\n  kvctl watch a -- sh -c 'echo $KVCTL_WATCH_VALUE'",
		cobra.MinimumNArgs(1), nil)
	c.Long = c.Short + `.

The watch goes on after a member or the leader was lost, without gap or repetition. A command finds the event in
KVCTL_WATCH_EVENT_TYPE, _KEY, _VALUE and _REVISION (and, as with etcdctl, the first three as ETCD_WATCH_…). An interrupt ends it.`
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		run := []string(nil)
		if at := c.ArgsLenAtDash(); at >= 0 {
			args, run = args[:at], args[at:]
		}
		if command != "" {
			run = []string{"sh", "-c", command}
		}
		if len(args) < 1 || len(args) > 2 {
			return usage("watch: want KEY [END], have %d arguments", len(args))
		}
		if r.Key, r.RangeEnd, err = s.of(args); err != nil {
			return err
		}
		return a.watch(c.Context(), &r, &watching{limit: limit, run: run})
	}
	s.define(c)
	f := c.Flags()
	f.Int64Var(&r.StartRevision, "rev", 0, "from this revision on, the past first")
	f.BoolVar(&r.PrevKv, "prev-kv", false, "show what was there before, too")
	f.BoolVar(&r.ProgressNotify, "progress-notify", false, "say from time to time how far the watch is")
	f.StringVar(&command, "exec", "", "run this shell `command` for each event")
	f.IntVar(&limit, "limit", 0, "end after this many events")
	return c
}

// watching is what is done with events.
type watching struct {
	run   []string // a command for each; empty: they are printed
	limit int      // 0: no end
	seen  int
}

// What a broken watch waits before it is made again.
const (
	rewatchPause = 200 * time.Millisecond
	rewatchTries = 100 // in a row, without an answer
)

var errEnough = errors.New("enough")

// watch shows events until ctx ends, making the watch again where it broke.
func (a *app) watch(ctx context.Context, r *pb.WatchCreateRequest, w *watching) error {
	var last error
	began := false
	for tries := 0; tries < rewatchTries; tries++ {
		for _, endpoint := range a.endpoints {
			answered, err := a.watchOn(ctx, endpoint, r, w)
			switch {
			case errors.Is(err, errEnough):
				return nil
			case ctx.Err() != nil:
				return ctx.Err()
			case !unavailable(err):
				return classify("watch", endpoint, err)
			}
			if last = err; answered {
				tries, began = 0, true
			}
		}
		if !began {
			break // say so at once
		}
		select {
		case <-ctx.Done():
		case <-time.After(rewatchPause):
		}
	}
	return a.unreachable("watch", last)
}

// watchOn watches through one endpoint until that breaks.
func (a *app) watchOn(ctx context.Context, endpoint string, r *pb.WatchCreateRequest, w *watching) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	to, err := a.connect(ctx, endpoint)
	if err != nil {
		return false, err
	}
	stream, err := to.watch().Watch(ctx)
	if err != nil {
		return false, err
	}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}); err != nil {
		_, err = stream.Recv() // what the send failed for
		return false, err
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return answered, err
		}
		answered = true
		if resp.CompactRevision > 0 {
			return answered, &failure{code: exitRefused, did: "watch", endpoint: endpoint,
				err:  fmt.Errorf("history before revision %d was compacted; the watch wanted revision %d", resp.CompactRevision, r.StartRevision),
				next: fmt.Sprintf("read what there is now (kvctl get), then watch with --rev %d or later", resp.CompactRevision)}
		}
		if resp.Canceled {
			return answered, errors.New(resp.CancelReason)
		}
		if resp.Created {
			if r.StartRevision == 0 {
				r.StartRevision = resp.Header.GetRevision() + 1
			}
			continue
		}
		if err := a.events(ctx, resp, w); err != nil {
			return answered, err
		}
		r.StartRevision = max(r.StartRevision, resp.Header.GetRevision()+1)
		if n := len(resp.Events); n > 0 {
			r.StartRevision = resp.Events[n-1].Kv.ModRevision + 1
		}
	}
}

func (a *app) events(ctx context.Context, resp *pb.WatchResponse, w *watching) error {
	if len(resp.Events) == 0 && len(w.run) == 0 {
		fmt.Fprintf(a.out, "progress notify: %d\n", resp.Header.GetRevision())
		return nil
	}
	if left := w.limit - w.seen; w.limit > 0 && len(resp.Events) > left {
		resp.Events = resp.Events[:left]
	}
	w.seen += len(resp.Events)
	if a.output == outJSON && len(w.run) == 0 {
		if err := a.show(result{value: resp}); err != nil {
			return err
		}
	} else {
		for _, e := range resp.Events {
			if err := a.event(ctx, e, w); err != nil {
				return err
			}
		}
	}
	if w.limit > 0 && w.seen >= w.limit {
		return errEnough
	}
	return nil
}

func (a *app) event(ctx context.Context, e *mvccpb.Event, w *watching) error {
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
