package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
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
	planFile := f.String("plan", "", "a saved list of faults, instead of the seed's own")
	shrink := f.Int("shrink", 200, "after a failure, look for a shorter list of faults with so many runs")
	save := f.String("save", "", "folder for the lists of failing seeds")
	stop := f.Bool("stop", false, "end at the first failure")
	results := f.String("results", "", "append a line of JSON for each seed to this file")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *first == 0 {
		*first = uint64(time.Now().UnixNano()) >> 10
	}
	c := campaign{shrink: *shrink, save: *save, begin: time.Now()}
	if *verbose {
		c.log = os.Stdout
	}
	if *results != "" {
		out, err := os.OpenFile(*results, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer out.Close()
		c.results = out
	}
	if *planFile != "" {
		b, err := os.ReadFile(*planFile)
		if err != nil {
			return err
		}
		if c.plan, err = fault.UnmarshalPlan(b); err != nil {
			return err
		}
	}
	for i := range *n {
		if *limit > 0 && time.Since(c.begin) > *limit {
			break
		}
		if err := c.seed(*first + uint64(i)); err != nil {
			return err
		}
		if *stop && c.failed > 0 {
			break
		}
	}
	fmt.Printf("%d seeds, %d failed; %v simulated in %v: %.0f times as fast\n", c.seeds, c.failed,
		c.simulated.Round(time.Second), time.Since(c.begin).Round(time.Second), c.simulated.Seconds()/time.Since(c.begin).Seconds())
	if c.failed > 0 {
		return errors.New("something was found")
	}
	return nil
}

// campaign is a row of seeds.
type campaign struct {
	plan      []fault.Event
	shrink    int
	save      string
	log       io.Writer
	results   io.Writer
	begin     time.Time
	seeds     int
	failed    int
	simulated time.Duration
}

func (c *campaign) seed(seed uint64) error {
	cfg := sim.Draw(seed)
	plan := c.plan
	if plan == nil {
		plan = sim.Plan(cfg)
	}
	if c.log != nil {
		fmt.Fprintf(c.log, "seed %#x: %v\n", seed, cfg)
		for _, e := range plan {
			fmt.Fprintln(c.log, "  plan:", e)
		}
	}
	begin := time.Now()
	r := sim.Run(cfg, plan, c.log)
	c.seeds++
	c.simulated += r.Time
	l := sim.Record{Seed: seed, Commit: sim.Commit(), Members: cfg.Members, Simulated: r.Time, Took: time.Since(begin), Trace: fmt.Sprintf("%016x", r.Trace), Stats: r.Stats}
	if r.Failure != nil {
		c.failed++
		l.Failure = r.Failure.Error()
		fmt.Println(r.Line())
		if err := c.keep(r); err != nil {
			return err
		}
	}
	if c.results == nil {
		return nil
	}
	return json.NewEncoder(c.results).Encode(l)
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
	b, err := json.MarshalIndent(r.Plan, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(fmt.Sprintf("%s/seed-%x.json", c.save, r.Config.Seed), b, 0o644)
}
