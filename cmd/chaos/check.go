package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keelson-io/keelson/chaos/sim"
)

// check is what every change has to pass: the schedules that once failed, seeds
// that no other commit has run under all oracles, some of them twice, and the
// planted bugs that are caught fast. A commit has one verdict, wherever it is asked.
func check(args []string) error {
	f := flags("check")
	first := f.Uint64("seed", 0, "the first seed; 0: one from the commit")
	n := f.Int("seeds", 200, "how many seeds")
	twice := f.Int("twice", 50, "one seed in so many runs twice and must go the same way")
	regress := f.String("regress", "chaos/testdata/regress", "folder of saved schedules")
	bugs := f.Bool("planted", true, "look for the planted bugs that are caught fast")
	if err := f.Parse(args); err != nil {
		return err
	}
	c := newCampaign()
	if *first == 0 {
		*first = firstSeed(c.commit)
	}
	fmt.Printf("%d seeds from %#x on\n", *n, *first)
	if err := c.saved(*regress); err != nil {
		return err
	}
	for i := range *n {
		seed := *first + uint64(i)
		if err := c.seed(seed); err != nil {
			return err
		}
		if *twice > 0 && i%*twice == 0 {
			c.repeats(seed)
		}
	}
	if missing := c.record.Stats.Missing(*n); len(missing) > 0 {
		c.failed++
		fmt.Printf("FAIL ring=A %d seeds from %#x on never reached: %s\n", *n, *first, strings.Join(missing, ", "))
	}
	failed := c.sum()
	if !*bugs {
		return failed
	}
	return errors.Join(failed, hunts(hunting{fast: true, first: 1, seeds: 200, limit: 5 * time.Minute}))
}

// firstSeed is a commit's own first seed: seeds of other commits are not among those
// that follow it. A build without a commit gets one from the clock.
func firstSeed(commit string) uint64 {
	if commit == unknownCommit {
		return freshSeed()
	}
	h := fnv.New64a()
	h.Write([]byte(commit))
	return h.Sum64() >> 10
}

// saved runs all saved schedules.
func (c *campaign) saved(folder string) error {
	names, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return err
	}
	for _, name := range names {
		run, err := loadSchedule(name)
		if err != nil {
			return err
		}
		before := c.failed
		if err := c.run(run.Config, run.Plan); err != nil {
			return err
		}
		if c.failed > before {
			fmt.Printf("  %s fails; it once found: %s | replay: go run ./cmd/chaos sim -saved %s -v\n", name, run.About, name)
		}
	}
	fmt.Printf("%d saved schedules\n", len(names))
	return nil
}

// repeats holds a seed to going the same way twice.
func (c *campaign) repeats(seed uint64) {
	cfg := sim.Draw(seed)
	a, b := sim.Run(cfg, sim.Plan(cfg), nil), sim.Run(cfg, sim.Plan(cfg), nil)
	if a.Trace != b.Trace || a.Time != b.Time {
		c.failed++
		fmt.Fprintf(os.Stdout, "FAIL ring=A seed=%#x commit=%s goes two ways: %x until %v, %x until %v | replay: go run ./cmd/chaos check -planted=false -seeds 1 -seed %#x\n",
			seed, c.commit, a.Trace, a.Time, b.Trace, b.Time, seed)
	}
}
