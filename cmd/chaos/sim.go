package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/chaos/sim"
)

// simulate runs seeds one after the other.
func simulate(args []string) error {
	f := flags("sim")
	first := f.Uint64("seed", 0, "the first seed; 0: one from the clock")
	n := f.Int("seeds", 1, "how many seeds, one after the other")
	limit := f.Duration("for", 0, "end after so long, whatever -seeds says")
	verbose := f.Bool("v", false, "tell what happens")
	saved := f.String("saved", "", "repeat the run saved in this file, instead of a seed's")
	shrink := f.Int("shrink", 200, "after a failure, look for a shorter list of faults with so many runs")
	save := f.String("save", "", "folder in which failing runs are saved, with the shortest list of faults")
	stop := f.Bool("stop", false, "end at the first failure")
	results := f.String("results", "", "append a line of JSON for all seeds together to this file")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *first == 0 {
		*first = freshSeed()
	}
	c := newCampaign()
	c.shrink, c.save, c.results = *shrink, *save, *results
	if *verbose {
		c.log = os.Stdout
	}
	if *saved != "" {
		run, err := loadSchedule(*saved)
		if err != nil {
			return err
		}
		if err := c.run(run.Config, run.Plan); err != nil {
			return err
		}
		return c.sum()
	}
	for i := range *n {
		if *limit > 0 && time.Since(c.begin) > *limit || *stop && c.failed > 0 {
			break
		}
		if err := c.seed(*first + uint64(i)); err != nil {
			return err
		}
	}
	return c.sum()
}

// sum ends a campaign with its line.
func (c *campaign) sum() error {
	all := c.record.Sum()
	fmt.Printf("%d seeds, %d failed; %v simulated in %v of CPU: %.0f simulated seconds a second\n", all.Seeds, c.failed,
		all.Simulated.Round(time.Second), cpu().Round(time.Second), all.Simulated.Seconds()/cpu().Seconds())
	if err := c.append(); err != nil {
		return err
	}
	if c.failed > 0 {
		return errors.New("something was found")
	}
	return nil
}

// append adds the campaign to its result file.
func (c *campaign) append() error {
	if c.results == "" {
		return nil
	}
	c.record.Commit, c.record.Date = c.commit, time.Now().Format(time.DateOnly)
	out, err := os.OpenFile(c.results, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(out).Encode(c.record), out.Close())
}

// cpu is how much processor time this process has taken: other than the time on
// the wall, it says the same on a machine that is busy with other things.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // the arguments are right
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// campaign is a row of seeds.
type campaign struct {
	shrink  int
	save    string
	log     io.Writer
	results string // file to append to
	begin   time.Time
	commit  string
	failed  int
	record  sim.Record
}

// freshSeed is one that nobody has run.
func freshSeed() uint64 { return uint64(time.Now().UnixNano()) >> 10 }

func newCampaign() *campaign {
	debug.SetGCPercent(400) // the heap is small, and a fifth of the time would go into looking through it
	return &campaign{begin: time.Now(), commit: commit()}
}

func (c *campaign) seed(seed uint64) error {
	cfg := sim.Draw(seed)
	return c.run(cfg, sim.Plan(cfg))
}

func (c *campaign) run(cfg sim.Config, plan []fault.Event) error {
	if c.log != nil {
		fmt.Fprintf(c.log, "seed %#x: %v\n", cfg.Seed, cfg)
		for _, e := range plan {
			fmt.Fprintln(c.log, "  plan:", e)
		}
	}
	begin := cpu()
	r := sim.Run(cfg, plan, c.log)
	c.record.Add(&r, cpu()-begin)
	if r.Failure != nil {
		c.failed++
		fmt.Println(r.Line(c.commit))
		return c.keep(r)
	}
	return nil
}

// keep shrinks a failing plan and saves it.
func (c *campaign) keep(r sim.Result) error {
	if c.shrink > 0 && len(r.Plan) > 0 {
		r = sim.Shrink(r, c.shrink)
		fmt.Printf("  with %d faults: %v\n", len(r.Plan), r.Failure)
		for _, e := range r.Plan {
			fmt.Println("   ", e)
		}
	}
	if c.save == "" {
		return nil
	}
	return save(sim.Schedule{About: r.Failure.Error(), Config: r.Config, Plan: r.Plan}, fmt.Sprintf("%s/seed-%x.json", c.save, r.Config.Seed))
}
