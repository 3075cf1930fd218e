package sim

import (
	"fmt"
	"time"

	"github.com/keelson-io/keelson/chaos/fault"
)

// Record is what a result file says of a campaign, one line of JSON each: seeds
// in a row, at one commit. Lines add up.
type Record struct {
	Date     string // of its end, 2006-01-02
	Commit   string
	First    uint64       // seed
	Sizes    map[int]Size // by the number of members
	Stats    Stats
	Failures []string `json:",omitempty"` // the line of each seed that failed
}

// Size is the seeds with one number of members.
type Size struct {
	Seeds     int
	Simulated time.Duration
	CPU       time.Duration // 0 in lines from before it was measured
}

// Add counts one more run in.
func (r *Record) Add(run *Result, cpu time.Duration) {
	if r.Sizes == nil {
		r.Sizes = map[int]Size{}
		r.First, r.Stats.Faults = run.Config.Seed, map[fault.Kind]int{}
	}
	z := r.Sizes[run.Config.Members]
	r.Sizes[run.Config.Members] = Size{z.Seeds + 1, z.Simulated + run.Time, z.CPU + cpu}
	r.Stats.Add(run.Stats)
	if run.Failure != nil {
		r.Failures = append(r.Failures, fmt.Sprintf("seed %#x: %v", run.Config.Seed, run.Failure))
	}
}

// Sum is all sizes together.
func (r *Record) Sum() (sum Size) {
	for _, z := range r.Sizes {
		sum = Size{sum.Seeds + z.Seeds, sum.Simulated + z.Simulated, sum.CPU + z.CPU}
	}
	return sum
}

// Add counts another run's in.
func (s *Stats) Add(o Stats) {
	for _, x := range []struct {
		sum *int
		n   int
	}{
		{&s.Ops, o.Ops}, {&s.Acked, o.Acked}, {&s.Refused, o.Refused}, {&s.Unknown, o.Unknown}, {&s.Writes, o.Writes},
		{&s.Crashes, o.Crashes}, {&s.PowerCuts, o.PowerCuts}, {&s.Snapshots, o.Snapshots}, {&s.Repairs, o.Repairs},
		{&s.Watches, o.Watches}, {&s.WatchEvents, o.WatchEvents}, {&s.Elections, o.Elections}, {&s.Rotten, o.Rotten}, {&s.Rebuilt, o.Rebuilt},
	} {
		*x.sum += x.n
	}
	for k, n := range o.Faults {
		s.Faults[k] += n
	}
}
