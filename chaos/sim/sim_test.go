package sim

import (
	"flag"
	"io"
	"os"
	"testing"
	"time"
)

var (
	seeds   = flag.Int("seeds", 3, "seeds to simulate")
	first   = flag.Uint64("seed", 1, "first seed")
	verbose = flag.Bool("sim.v", false, "tell what happens")
)

func TestSeeds(t *testing.T) {
	var log io.Writer
	if *verbose {
		log = os.Stderr
	}
	begin := time.Now()
	var simulated time.Duration
	for seed := *first; seed < *first+uint64(*seeds); seed++ {
		cfg := Draw(seed)
		r := Run(cfg, Plan(cfg), log)
		simulated += r.Time
		t.Logf("seed %#x: %v, %d members, %+v", seed, r.Time.Round(time.Millisecond), cfg.Members, r.Stats)
		if r.Failure != nil {
			t.Fatal(r.Line("now"))
		}
	}
	t.Logf("%.0f simulated seconds a second", simulated.Seconds()/time.Since(begin).Seconds())
}

// TestRepeats holds the simulation to its promise: a seed has one course.
func TestRepeats(t *testing.T) {
	cfg := Draw(*first)
	cfg.Safety = 5 * time.Second
	a, b := Run(cfg, Plan(cfg), nil), Run(cfg, Plan(cfg), nil)
	if a.Trace != b.Trace || a.Time != b.Time {
		t.Fatalf("the same seed went two ways: %x at %v, %x at %v", a.Trace, a.Time, b.Trace, b.Time)
	}
}
