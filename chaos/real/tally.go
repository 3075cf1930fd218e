package real

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// Campaign is a result file: runs of many commands and commits, summed up, so that
// it stays small however long campaigns go on.
type Campaign struct {
	Rows    map[string]int // of the catalogue, by fault
	Tallies []*Tally
	Pairs   map[string]int `json:",omitempty"` // of classes: runs in which faults of both took turns and happened
	Holds   []Held         `json:",omitempty"` // loads that went on while leaders were killed
}

// Tally is the runs of one fault on one day.
type Tally struct {
	Fault   string // Pairs: runs of several
	Day     string
	Machine string
	Commits []string

	Runs, Meaningless, Skipped int
	Happened                   map[string]int
	Acked, Unknown             int                  // calls
	Writes, Events             int                  // acknowledged ones that the oracles found in the log; told to watches
	PowerCuts, AllCuts         int                  // of single members; of all at once
	Times                      map[string]Histogram `json:",omitempty"` // of a fault alone: what faults timed, and the gap until a write is acknowledged
	Failures                   []string             `json:",omitempty"`
}

// Pairs is the name of all runs in which several faults take turns.
const Pairs = "pairs"

// Histogram counts times by milliseconds, rounded up to two digits.
type Histogram map[int]int

// Add counts one time.
func (h Histogram) Add(d time.Duration) {
	ms := math.Ceil(d.Seconds() * 1000)
	unit := math.Pow(10, max(0, math.Floor(math.Log10(max(ms, 1)))-1))
	h[int(math.Ceil(ms/unit)*unit)]++
}

// Merge adds another histogram.
func (h Histogram) Merge(o Histogram) {
	for ms, n := range o {
		h[ms] += n
	}
}

// Count is how many times there are.
func (h Histogram) Count() (sum int) {
	for _, n := range h {
		sum += n
	}
	return sum
}

// Percentile is the least time that so many of a hundred do not exceed.
func (h Histogram) Percentile(p float64) time.Duration {
	var all []int
	for ms := range h {
		all = append(all, ms)
	}
	slices.Sort(all)
	need := int(math.Ceil(float64(h.Count()) * p / 100))
	for _, ms := range all {
		if need -= h[ms]; need <= 0 {
			return time.Duration(ms) * time.Millisecond
		}
	}
	return 0
}

// Add counts a run in.
func (c *Campaign) Add(r Result, machine string) {
	name, alone := r.Fault, !strings.Contains(r.Fault, "+")
	if !alone {
		name = Pairs
	}
	t := c.tally(name, r.Began.Format(time.DateOnly), machine)
	if !slices.Contains(t.Commits, r.Commit) {
		t.Commits = append(t.Commits, r.Commit)
	}
	t.Runs++
	switch {
	case r.Skipped != "":
		t.Skipped++
	case r.Meaningless != "":
		t.Meaningless++
	case r.Failure != "":
		t.Failures = append(t.Failures, r.Line())
	}
	for f, n := range r.Happened {
		t.Happened[f] += n
	}
	t.Acked += r.Acked
	t.Unknown += r.Unknown
	t.Writes += r.Writes
	t.Events += r.Events
	t.PowerCuts += r.PowerCuts
	t.AllCuts += r.AllCuts
	if !alone {
		if c.Pairs == nil {
			c.Pairs = map[string]int{}
		}
		if r.Failure == "" && r.Meaningless == "" && r.Skipped == "" {
			c.Pairs[r.Classes]++
		}
		return
	}
	for _, g := range r.Gaps {
		t.time(gapAfter(g.What, r.Election), g.Time)
	}
	for _, m := range r.Measures {
		t.time(fmt.Sprintf("%s, election timeout %v", m.What, r.Election), m.Time)
	}
}

// gapAfter names the times from a fault to the first acknowledged write after it.
func gapAfter(fault string, election time.Duration) string {
	return fmt.Sprintf("%s to acknowledged write, election timeout %v", fault, election)
}

func (t *Tally) time(what string, d time.Duration) {
	if t.Times == nil {
		t.Times = map[string]Histogram{}
	}
	if t.Times[what] == nil {
		t.Times[what] = Histogram{}
	}
	t.Times[what].Add(d)
}

func (c *Campaign) tally(fault, day, machine string) *Tally {
	for _, t := range c.Tallies {
		if t.Fault == fault && t.Day == day && t.Machine == machine {
			return t
		}
	}
	t := &Tally{Fault: fault, Day: day, Machine: machine, Happened: map[string]int{}}
	c.Tallies = append(c.Tallies, t)
	return t
}

// Gaps are the times from a fault to the first acknowledged write, in all runs
// with an election timeout.
func (c *Campaign) Gaps(fault string, election time.Duration) Histogram {
	sum := Histogram{}
	for _, t := range c.Tallies {
		sum.Merge(t.Times[gapAfter(fault, election)])
	}
	return sum
}

// ReadCampaign reads a result file; one that does not exist is empty.
func ReadCampaign(name string) (c Campaign, err error) {
	b, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	return c, err
}

// Write replaces the file: a line for each tally.
func (c *Campaign) Write(name string) error {
	slices.SortFunc(c.Tallies, func(a, b *Tally) int {
		return cmp.Or(cmp.Compare(c.Rows[a.Fault], c.Rows[b.Fault]), cmp.Compare(a.Fault, b.Fault), cmp.Compare(a.Day, b.Day))
	})
	rows, err := json.Marshal(c.Rows)
	if err != nil {
		return err
	}
	pairs, err := json.Marshal(c.Pairs)
	if err != nil {
		return err
	}
	tallies, err := byLine(c.Tallies)
	if err != nil {
		return err
	}
	holds, err := byLine(c.Holds)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("{\"Rows\":%s,\n\"Tallies\":[\n%s\n],\n\"Pairs\":%s,\n\"Holds\":[\n%s\n]}\n", rows, tallies, pairs, holds)
	if err := os.WriteFile(name+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// byLine is a list with a line for each.
func byLine[T any](all []T) (string, error) {
	var lines []string
	for _, x := range all {
		b, err := json.Marshal(x)
		if err != nil {
			return "", err
		}
		lines = append(lines, string(b))
	}
	return strings.Join(lines, ",\n"), nil
}
