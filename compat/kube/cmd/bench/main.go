// Command bench measures kvd's resource layer beside a kube-apiserver over etcd and
// prints a table; package bench of compat/kube says how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	layer "github.com/keelson-io/keelson/compat/kube/bench"
)

func main() {
	runtime.LockOSThread() // the processes die with the thread that started them
	var cfg layer.Config
	rows := flag.String("rows", "", "rows to measure, separated by commas (-rows help lists them; default: all)")
	markdown := flag.String("markdown", "", "where the table goes as markdown")
	flag.IntVar(&cfg.Rounds, "rounds", 3, "rounds of each side")
	flag.DurationVar(&cfg.Duration, "duration", 4*time.Second, "of a round")
	flag.StringVar(&cfg.Dir, "dir", "", "where data directories go; removed at the end")
	flag.StringVar(&cfg.Side, "side", "", "measure this side alone: "+layer.Left+" or "+layer.Right)
	flag.StringVar(&cfg.Profiles, "profiles", "", "leave a CPU and a heap profile of the store in each row in this directory")
	flag.Parse()
	if *rows == "help" {
		for _, r := range layer.Names() {
			fmt.Printf("%-16s %s\n", r[0], r[1])
		}
		return
	}
	if *rows != "" {
		cfg.Rows = strings.Split(*rows, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg, *markdown); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg layer.Config, markdown string) (err error) {
	if cfg.Dir, err = os.MkdirTemp(cfg.Dir, "resource-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(cfg.Dir)
	cfg.Progress = func(s string) { fmt.Fprintln(os.Stderr, time.Now().Format("15:04:05"), s) }
	rep, err := layer.Run(ctx, cfg)
	rep.Table(os.Stdout)
	if markdown != "" {
		f, createErr := os.Create(markdown)
		if createErr != nil {
			return errors.Join(err, createErr)
		}
		rep.Markdown(f)
		err = errors.Join(err, f.Close())
	}
	return err
}
