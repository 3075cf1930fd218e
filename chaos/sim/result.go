package sim

import (
	"fmt"
	"slices"
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

// How many seeds reach what they must, unless something is broken. A removed member
// returns five times in manySeeds on average, all else more than twenty times.
const (
	manySeeds = 200
	moreSeeds = 2000
)

// Missing names what never happened, of all that a campaign of so many seeds must
// reach: a fault that nobody meets proves nothing.
func (s *Stats) Missing(seeds int) (names []string) {
	if seeds < manySeeds {
		return nil
	}
	for _, c := range choices {
		if s.Faults[c.kind] == 0 {
			names = append(names, string(c.kind))
		}
	}
	for name, n := range map[string]int{
		"snapshots installed": s.Snapshots, "repairs": s.Repairs, "databases damaged": s.Rotten,
		"changes of the membership": s.Memberships, "unsafe changes refused": s.Unsafe, "databases deleted": s.Deleted, "quotas reached": s.Full, "alarms of the quota cleared": s.Emptied, "disks lost": s.DisksLost,
	} {
		if n == 0 {
			names = append(names, name)
		}
	}
	if s.Returned == 0 && seeds >= moreSeeds {
		names = append(names, "removed members returned")
	}
	slices.Sort(names)
	return names
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
		{&s.Memberships, o.Memberships}, {&s.Unsafe, o.Unsafe}, {&s.Full, o.Full}, {&s.Deleted, o.Deleted}, {&s.Emptied, o.Emptied}, {&s.Returned, o.Returned}, {&s.DisksLost, o.DisksLost},
	} {
		*x.sum += x.n
	}
	for k, n := range o.Faults {
		s.Faults[k] += n
	}
	for point, phases := range o.Points {
		if s.Points == nil {
			s.Points = map[string]map[string]int{}
		}
		if s.Points[point] == nil {
			s.Points[point] = map[string]int{}
		}
		for phase, n := range phases {
			s.Points[point][phase] += n
		}
	}
	if s.FirstAck == nil {
		s.FirstAck = map[fault.Kind]Wait{}
	}
	for k, w := range o.FirstAck {
		sum := s.FirstAck[k]
		sum.Longest = max(sum.Longest, w.Longest)
		for i, n := range w.Spread {
			sum.Spread[i] += n
		}
		s.FirstAck[k] = sum
	}
}
