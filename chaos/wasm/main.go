package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/sim"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// campaign is a row of seeds.
type campaign struct {
	first   uint64
	seeds   int
	planted string
	limit   time.Duration
	twice   int
	results string
	keep    string
	verbose bool

	image  *image
	commit string
	record sim.Record
	failed int
}

func run(args []string) error {
	var c campaign
	f := flag.NewFlagSet("wasm", flag.ExitOnError)
	f.Uint64Var(&c.first, "seed", 0, "the first seed; 0: one from the clock")
	f.IntVar(&c.seeds, "seeds", 1, "how many seeds, one after the other")
	f.DurationVar(&c.limit, "for", 0, "begin no seed after so long; 0: no limit")
	f.IntVar(&c.twice, "twice", 10, "run one seed of so many twice, which must be equal; 0: none")
	f.StringVar(&c.planted, "planted", "", "a bug of package planted, which the guest is built with")
	f.StringVar(&c.results, "results", "", "append a line of JSON for all seeds together to this file")
	f.StringVar(&c.keep, "keep", "", "folder for the histories of runs that fail, for `chaos show` and `chaos html`")
	f.BoolVar(&c.verbose, "v", false, "tell what happens")
	guest := f.String("guest", "", "the guest's file; empty: it is built")
	if err := f.Parse(args); err != nil {
		return err
	}
	if c.first == 0 {
		c.first = uint64(time.Now().UnixNano()) >> 10
	}
	if err := c.open(*guest); err != nil {
		return err
	}
	begin := time.Now()
	for i := range c.seeds {
		if c.limit > 0 && time.Since(begin) > c.limit {
			break
		}
		if err := c.seed(c.first+uint64(i), c.twice > 0 && i%c.twice == 0); err != nil {
			return err
		}
	}
	return c.sum()
}

// open builds and compiles the guest.
func (c *campaign) open(guest string) error {
	c.commit = "unknown"
	if out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output(); err == nil {
		c.commit = strings.TrimSpace(string(out))
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	if guest == "" {
		dir, err := os.MkdirTemp("", "chaos-wasm")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if guest, err = buildGuest(dir, c.planted != ""); err != nil {
			return err
		}
	}
	c.image, err = compile(context.Background(), guest, filepath.Join(cache, "keelson-wasm"))
	return err
}

// seed makes one run, or two that must be equal.
func (c *campaign) seed(seed uint64, twice bool) error {
	cfg := Draw(seed)
	cfg.Planted = c.planted
	var log io.Writer
	if c.verbose {
		log, cfg.Log = os.Stdout, slog.LevelInfo
		fmt.Println(cfg)
	}
	began := cpu()
	r, err := Run(cfg, c.image, log)
	if err != nil {
		return err
	}
	took := cpu() - began
	if twice {
		again, err := Run(cfg, c.image, nil)
		if err != nil {
			return err
		}
		if again.Trace != r.Trace {
			r.Failure = errors.Join(r.Failure, fmt.Errorf("determinism: two runs have the traces %016x and %016x", r.Trace, again.Trace))
		}
	}
	fmt.Println(r.Line(c.commit))
	counted := sim.Result{Config: sim.Config{Seed: seed, Members: cfg.Members}, Time: r.Time, Stats: r.Stats}
	if r.Failure != nil {
		c.failed++
		oracle, text, _ := strings.Cut(r.Failure.Error(), " ")
		counted.Failure = &sim.Failure{Oracle: strings.TrimSuffix(oracle, ":"), At: r.Time, Text: text}
		if c.verbose {
			fmt.Println(r.Failure)
		}
		if err := c.keepHistory(r); err != nil {
			return err
		}
	}
	c.record.Add(&counted, took)
	return nil
}

func (c *campaign) keepHistory(r *Result) error {
	if c.keep == "" || r.History == nil {
		return nil
	}
	name := filepath.Join(c.keep, fmt.Sprintf("wasm-%x.gz", r.Config.Seed))
	w, err := history.Create(name, r.History.Meta)
	if err != nil {
		return err
	}
	w.History(r.History)
	fmt.Println("  its history is in", name)
	return w.Close()
}

// sum ends a campaign with its line.
func (c *campaign) sum() error {
	all := c.record.Sum()
	fmt.Printf("%d seeds, %d failed; %v simulated in %v of CPU: %.2f simulated seconds a second\n", all.Seeds, c.failed,
		all.Simulated.Round(time.Second), all.CPU.Round(time.Second), all.Simulated.Seconds()/all.CPU.Seconds())
	if c.results != "" {
		c.record.Commit, c.record.Date = c.commit, time.Now().Format(time.DateOnly)
		out, err := os.OpenFile(c.results, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if err := errors.Join(json.NewEncoder(out).Encode(c.record), out.Close()); err != nil {
			return err
		}
	}
	if c.failed > 0 {
		return errors.New("something was found")
	}
	return nil
}

// cpu is how much processor time this process has taken.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // the arguments are right
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
