// Command leaderkill kills the leader of three members again and again under load
// and checks that nothing was lost; package campaign says how.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/keelson-io/keelson/compat/campaign"
	"github.com/keelson-io/keelson/compat/cluster"
)

func main() {
	store := flag.String("store", "kvd", "etcd, kvd, or a binary")
	var cfg campaign.Config
	flag.IntVar(&cfg.Kills, "kills", 50, "how often the leader is killed")
	flag.IntVar(&cfg.Writers, "writers", 24, "concurrent writers")
	flag.DurationVar(&cfg.Settle, "settle", 500*time.Millisecond, "load between the return of a victim and the next kill")
	flag.StringVar(&cfg.Dir, "dir", "", "where data directories go; kept when something is wrong")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *store, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "leaderkill:", err)
		os.Exit(1)
	}
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
	fmt.Printf("%s: %d kills, %d writes acknowledged, %d of unknown outcome, %d reads, %d events in the history of each member\n",
		cfg.System.Name, len(res.Kills), res.Acked, res.Unknown, res.Reads, res.Events)
	fmt.Println("time from SIGKILL to the first acknowledged write elsewhere:", campaign.Distribution(res.Kills))
	for _, v := range res.Violations {
		fmt.Println("VIOLATION:", v)
	}
	if err == nil && len(res.Violations) > 0 {
		err = fmt.Errorf("%d violations", len(res.Violations))
	}
	if err != nil {
		return fmt.Errorf("%w; data and logs are in %s", err, cfg.Dir)
	}
	return os.RemoveAll(cfg.Dir)
}
