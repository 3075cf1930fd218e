// Command differential sends generated requests to two stores and compares their
// answers; package differential says how. It exits with 1 when it found a
// difference, after printing it and the line that replays it.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/compat/differential"
)

type options struct {
	left, right string
	n, members  int
	seed        uint64
	differences int
	replay, dir string
	shrink      time.Duration
	quiet       bool
	auth, tls   bool
}

func main() {
	var o options
	flag.StringVar(&o.left, "left", "etcd", "the store that is right: etcd, kvd, or a binary")
	flag.StringVar(&o.right, "right", "kvd", "the store that is compared with it")
	flag.IntVar(&o.n, "n", 100_000, "how many operations")
	flag.IntVar(&o.members, "members", 1, "members of each cluster: 1 or 3")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the generator")
	flag.IntVar(&o.differences, "differences", 1, "stop after so many differences")
	flag.StringVar(&o.replay, "replay", "", "send the operations of this file instead of generated ones")
	flag.StringVar(&o.dir, "dir", "", "where data directories and replay files go (default: the system's)")
	flag.DurationVar(&o.shrink, "shrink", time.Minute, "how long to shorten a failing sequence; 0: not at all")
	flag.BoolVar(&o.auth, "auth", false, "switch authentication on, and send requests as many users")
	flag.BoolVar(&o.tls, "tls", false, "speak TLS, between members, too")
	flag.BoolVar(&o.quiet, "quiet", false, "print no progress")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ok, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "differential:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (bool, error) {
	left, err := cluster.Lookup(o.left)
	if err != nil {
		return false, err
	}
	right, err := cluster.Lookup(o.right)
	if err != nil {
		return false, err
	}
	s := differential.Session{Left: left, Right: right, Members: o.members, Auth: o.auth, TLS: o.tls, Dir: o.dir, Differences: o.differences}
	began := time.Now()
	if !o.quiet {
		s.Progress = func(done int) {
			if done%10_000 == 0 {
				fmt.Fprintf(os.Stderr, "%d operations, %v\n", done, time.Since(began).Round(time.Second))
			}
		}
	}
	var res differential.Result
	if o.replay != "" {
		ops, err := readFile(o.replay)
		if err != nil {
			return false, err
		}
		res, err = s.Replay(ctx, ops)
		if err != nil {
			return false, err
		}
	} else if res, err = s.Seed(ctx, o.seed, o.n); err != nil {
		report(o, res, time.Since(began)) // as far as it came
		return false, fmt.Errorf("seed %d: %w", o.seed, err)
	}
	report(o, res, time.Since(began))
	if len(res.Differences) == 0 {
		return true, nil
	}
	return false, explain(ctx, o, s, res)
}

// args are what repeats the mode.
func (o options) args() string {
	if o.mode() == "" {
		return ""
	}
	return fmt.Sprintf(` ARGS="-auth=%v -tls=%v"`, o.auth, o.tls)
}

// mode tells what the run switches on.
func (o options) mode() string {
	text := ""
	if o.auth {
		text += " with users"
	}
	if o.tls {
		text += " over TLS"
	}
	return text
}

func report(o options, res differential.Result, took time.Duration) {
	fmt.Printf("%s against %s%s, %d member(s), seed %d: %d operations, %d watch events compared, revision %d, %v\n",
		o.left, o.right, o.mode(), o.members, o.seed, len(res.Ops), res.Events, res.Revision, took.Round(time.Millisecond))
	for _, k := range slices.Sorted(maps.Keys(res.Kinds)) {
		fmt.Printf("  %-12s %d\n", k, res.Kinds[k])
	}
	for _, e := range slices.Sorted(maps.Keys(res.Errors)) {
		fmt.Printf("  refused %6d: %s\n", res.Errors[e], e)
	}
	fmt.Printf("%d difference(s)\n", len(res.Differences))
}

// explain prints the differences, shortens the sequence and says how to repeat it.
func explain(ctx context.Context, o options, s differential.Session, res differential.Result) error {
	for _, d := range res.Differences {
		fmt.Printf("\nDIFFERENCE: %s\n", d)
	}
	ops := res.Ops
	if o.shrink > 0 && o.differences == 1 {
		s.Progress = nil
		ops = differential.Shrink(ops, o.shrink, func(ops []differential.Op) bool {
			r, err := s.Replay(ctx, ops)
			return err == nil && len(r.Differences) > 0
		})
	}
	f, err := os.CreateTemp(o.dir, fmt.Sprintf("differential-seed%d-*.jsonl", o.seed))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := differential.WriteOps(f, ops); err != nil {
		return err
	}
	fmt.Printf("\nreplay all:      make -C compat differential SEED=%d N=%d MEMBERS=%d LEFT=%s RIGHT=%s%s\n",
		o.seed, len(res.Ops), o.members, o.left, o.right, o.args())
	fmt.Printf("replay %d ops:  make -C compat differential REPLAY=%s MEMBERS=%d LEFT=%s RIGHT=%s%s\n",
		len(ops), f.Name(), o.members, o.left, o.right, o.args())
	return nil
}

func readFile(path string) ([]differential.Op, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return differential.ReadOps(f)
}
