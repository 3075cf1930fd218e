package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/chaos/real"
)

// realTotal is the sum of a result file of `chaos real`.
type realTotal struct {
	real.Campaign
	real.Tally                          // the sum of all
	times, pairs map[string]int         // by fault: in all; in turns with another
	last         map[string]*real.Tally // by fault: its newest day
	machines     map[string]bool
}

func readReal(name string) (*realTotal, error) {
	c, err := real.ReadCampaign(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	t := &realTotal{Campaign: c, times: map[string]int{}, pairs: map[string]int{}, last: map[string]*real.Tally{}, machines: map[string]bool{}}
	for _, x := range c.Tallies {
		t.machines[x.Machine] = true
		for f, n := range x.Happened {
			t.times[f] += n
			if x.Fault == real.Pairs {
				t.pairs[f] += n
			}
			if was := t.last[f]; n > 0 && (was == nil || was.Day <= x.Day) {
				t.last[f] = x
			}
		}
		for _, commit := range x.Commits {
			if !slices.Contains(t.Commits, commit) {
				t.Commits = append(t.Commits, commit)
			}
		}
		t.Runs += x.Runs
		t.Meaningless += x.Meaningless
		t.Skipped += x.Skipped
		t.Acked += x.Acked
		t.Unknown += x.Unknown
		t.Writes += x.Writes
		t.Events += x.Events
		t.PowerCuts += x.PowerCuts
		t.AllCuts += x.AllCuts
		t.Failures = append(t.Failures, x.Failures...)
	}
	return t, nil
}

// row is how often the faults of a row happened, and which these are.
func (t *realTotal) row(n int) (times int, names []string) {
	for _, f := range slices.Sorted(maps.Keys(t.Rows)) {
		if t.Rows[f] == n {
			names = append(names, f)
			times += t.times[f]
		}
	}
	return times, names
}

// lost counts the runs that failed for durability.
func (t *realTotal) lost(track string) int { return countLost(t.Failures, track) }

// spread tells a distribution.
func spread(h real.Histogram) string {
	if h.Count() == 0 {
		return "none"
	}
	p := func(x float64) string { return fmt.Sprint(h.Percentile(x).Milliseconds()) }
	return fmt.Sprintf("p50 %s, p90 %s, p99 %s, max %s ms of %d", p(50), p(90), p(99), p(100), h.Count())
}

func (t *realTotal) write(w io.Writer, track string) {
	fmt.Fprintf(w, `## Real processes

Made by `+"`go run ./cmd/chaos real -fault NAME -results docs/results/real.json`"+` on %s; commits %s. Each run ends with a power cut of all members.

| figure | value |
|---|---|
| runs; failed, meaningless, not possible here | %d; %d, %d, %d |
| calls acknowledged and judged; of unknown outcome | %d; %d |
| acknowledged writes that the oracles found in the log | %d |
| acknowledged writes lost | %d |
| events delivered to watches and judged | %d |
| power cuts of single members, counted by member; of all members at once, counted by cluster | %d; %d |
`, strings.Join(slices.Sorted(maps.Keys(t.machines)), ", "), strings.Join(t.Commits, ", "), t.Runs, len(t.Failures), t.Meaningless, t.Skipped,
		t.Acked, t.Unknown, t.Writes, t.lost(track), t.Events, t.PowerCuts, t.AllCuts)
	sums := map[string]real.Histogram{}
	for _, x := range t.Tallies {
		for what, h := range x.Times {
			if sums[what] == nil {
				sums[what] = real.Histogram{}
			}
			sums[what].Merge(h)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(sums)) {
		if sums[what].Count() >= 50 {
			fmt.Fprintf(w, "| %s | %s |\n", what, spread(sums[what]))
		}
	}
	fmt.Fprintln(w)
	writeFailures(w, t.Failures, track)
	t.holds(w, track)
	t.rotation(w)
}

// holds tells of loads that went on while leaders were killed.
func (t *realTotal) holds(w io.Writer, track string) {
	if len(t.Holds) == 0 {
		return
	}
	fmt.Fprint(w, `### A load while leaders are killed

Made by `+"`go run ./cmd/chaos real -hold TIME -rate N -results docs/results/real.json`"+`: 128 writers put values of 128 bytes through the client library, the leader
is killed every few seconds and started again, and history is compacted. A watch on each member must tell of one sequence of revisions without a
hole, in which each acknowledged write has the revision that its writer was told; at the end the power of all members is cut, and each must have
what the watches told of. Members, clients and judge share the machine.

`)
	var failed []string
	for _, h := range t.Holds {
		if h.Failure != "" {
			failed = append(failed, h.Line())
			continue
		}
		fmt.Fprintf(w, "- %s, %s, %s: %s\n", h.Began.Format(time.DateOnly), h.Commit, h.Machine, h.Line())
	}
	fmt.Fprintln(w)
	writeFailures(w, failed, track)
}

// rotation says which fault was last made when.
func (t *realTotal) rotation(w io.Writer) {
	fmt.Fprint(w, "### Rotation\n\nWhen each fault of real processes last happened, and how often in all; in brackets, how often in turns with one of another class.\n"+
		"`make test` makes a seventh of them each day, so that within a week each comes up that takes no more than a minute; what it finds is not counted here.\n\n"+
		"| row | fault | last | commit | times |\n|---|---|---|---|---|\n")
	for _, r := range fault.Catalogue {
		_, names := t.row(r.N)
		for _, f := range names {
			day, commit := "never", ""
			if x := t.last[f]; x != nil {
				day, commit = x.Day, x.Commits[len(x.Commits)-1]
			}
			fmt.Fprintf(w, "| %d | %s | %s | %s | %d (%d) |\n", r.N, f, day, commit, t.times[f], t.pairs[f])
		}
	}
	fmt.Fprintln(w)
	t.classes(w)
}

// classes is a table of how often faults of two classes took turns.
func (t *realTotal) classes(w io.Writer) {
	if len(t.Pairs) == 0 {
		return
	}
	fmt.Fprintf(w, "### Pairs of classes\n\nRuns in which faults of two classes took turns (`go run ./cmd/chaos real -class process+network`), and nothing was found.\n\n| class | %s |\n|---|%s\n",
		strings.Join(real.Classes, " | "), strings.Repeat("---|", len(real.Classes)))
	for i, a := range real.Classes {
		fmt.Fprintf(w, "| %s |", a)
		for j, b := range real.Classes {
			if i < j {
				fmt.Fprintf(w, " %d |", t.Pairs[a+"+"+b])
			} else {
				fmt.Fprint(w, " |")
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}
