// Command leaderkill kills the leader of three members again and again under load,
// records everything, and judges it; package campaign says how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"time"

	"github.com/keelson-io/keelson/chaos/load"
	"github.com/keelson-io/keelson/compat/campaign"
	"github.com/keelson-io/keelson/compat/cluster"
)

func main() {
	store := flag.String("store", "kvd", "etcd, kvd, or a binary")
	var cfg campaign.Config
	seed := flag.Uint64("seed", 1, "what the load is drawn from")
	clients := flag.Int("clients", 24, "concurrent clients: half of them mixed, the others on lists, locks and objects of Kubernetes")
	gets := flag.Int("gets", 0, "how often mixed clients read a key, in parts of about 100; 0: as usual")
	flag.IntVar(&cfg.Kills, "kills", 50, "how often the leader is killed")
	flag.Int64Var(&cfg.Calls, "calls", 0, "go on until so many calls were answered")
	flag.DurationVar(&cfg.Limit, "limit", 10*time.Minute, "but no longer than this")
	flag.StringVar(&cfg.Via, "via", "etcd", "how clients reach the cluster: etcd (its clientv3), client (our library), direct, or all in turns")
	flag.DurationVar(&cfg.Settle, "settle", 500*time.Millisecond, "load between the return of a victim and the next kill")
	flag.Float64Var(&cfg.MinRate, "rate", 200, "calls a second that must be answered for the campaign to count")
	flag.StringVar(&cfg.Dir, "dir", "", "where data directories go; kept when something is wrong")
	flag.StringVar(&cfg.File, "history", "", "keep the history in this file")
	flag.Parse()
	cfg.Load = load.Default(*seed)
	cfg.Load.Mixed, cfg.Load.Lists, cfg.Load.Locks = *clients-*clients/2, *clients/6, *clients/6
	cfg.Load.Registry = *clients - cfg.Load.Mixed - cfg.Load.Lists - cfg.Load.Locks
	if *gets > 0 {
		cfg.Load.Mix.Get = *gets
	}
	cfg.Meta.Commit, cfg.Meta.Machine = commit(), machine()
	cfg.Meta.Command = "leaderkill " + strings.Join(os.Args[1:], " ")
	cfg.Meta.Replay = fmt.Sprintf("cd compat && go run ./cmd/leaderkill -store %s -seed %d -clients %d -gets %d -kills %d -calls %d -via %s", *store, *seed, *clients, *gets, cfg.Kills, cfg.Calls, cfg.Via)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *store, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "leaderkill:", err)
		os.Exit(1)
	}
}

// commit is what the members were built from, if this runs in the repository.
func commit() string {
	out, _ := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	return strings.TrimSpace(string(out))
}

func machine() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, rest, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return fmt.Sprintf("%d × %s", runtime.NumCPU(), strings.TrimSpace(rest))
		}
	}
	return fmt.Sprintf("%d CPUs", runtime.NumCPU())
}

func run(ctx context.Context, store string, cfg campaign.Config) error {
	var err error
	if cfg.System, err = cluster.Lookup(store); err != nil {
		return err
	}
	if cfg.Dir, err = os.MkdirTemp(cfg.Dir, "leaderkill"); err != nil {
		return err
	}
	if cfg.System.Name != "etcd" {
		// A store of ours comes with its checker.
		if path, err := cluster.BinaryPath("kvcheck"); err == nil {
			cfg.Checker = path
		} else {
			fmt.Fprintln(os.Stderr, "kvcheck is not run:", err)
		}
	}
	cfg.Progress = func(s string) { fmt.Fprintln(os.Stderr, s) }
	res, err := campaign.Run(ctx, cfg)
	if res.History != nil {
		fmt.Printf("%s: %d kills, %.0f calls answered a second before the first, judged in %v\n",
			cfg.System.Name, len(res.FirstAck), res.Rate, res.Judging.Round(time.Millisecond))
		err = errors.Join(err, res.History.Show(os.Stdout, 0, 0, true))
		fmt.Println("time from SIGKILL to the first acknowledged write elsewhere:", campaign.Distribution(res.FirstAck))
		if n := len(res.Violations()); n > 0 {
			err = errors.Join(err, fmt.Errorf("%d violations", n))
		}
	}
	if err != nil {
		return fmt.Errorf("%w; data, logs and the history are in %s %s", err, cfg.Dir, cfg.File)
	}
	return os.RemoveAll(cfg.Dir)
}
