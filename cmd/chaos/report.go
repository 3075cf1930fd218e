package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/chaos/sim"
)

// report writes a page from result files, so that no figure is typed by hand.
func report(args []string) error {
	f := flags("report")
	seeds := f.String("sim", "docs/results/sim.jsonl", "results of `chaos sim`, files by comma")
	hunts := f.String("planted", "docs/results/planted.json", "results of `chaos planted`")
	out := f.String("o", "docs/RELIABILITY.md", "the page")
	if err := f.Parse(args); err != nil {
		return err
	}
	t := total{faults: map[fault.Kind]int{}, commits: map[string]int{}, members: map[int]int{}}
	for _, name := range strings.Split(*seeds, ",") {
		if err := t.read(name); err != nil {
			return err
		}
	}
	var found []hunt
	b, err := os.ReadFile(*hunts)
	if err == nil {
		err = json.Unmarshal(b, &found)
	}
	if err != nil {
		return err
	}
	page, err := os.Create(*out)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(page)
	t.write(w)
	writeRows(w, t.faults)
	writeHunts(w, found)
	fmt.Fprint(w, notTested)
	return errors.Join(w.Flush(), page.Close())
}

// total is the sum of many seeds.
type total struct {
	seeds           int
	simulated, took time.Duration
	stats           sim.Stats
	faults          map[fault.Kind]int
	commits         map[string]int
	members         map[int]int
	failures        []string
}

func (t *total) read(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var r sim.Record
		switch err := d.Decode(&r); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		}
		t.add(r)
	}
}

func (t *total) add(r sim.Record) {
	t.seeds++
	t.simulated += r.Simulated
	t.took += r.Took
	t.commits[cmp.Or(r.Commit, "unknown")]++
	t.members[r.Members]++
	for k, n := range r.Stats.Faults {
		t.faults[k] += n
	}
	s, o := &t.stats, r.Stats
	s.Ops += o.Ops
	s.Acked += o.Acked
	s.Unknown += o.Unknown
	s.Writes += o.Writes
	s.Crashes += o.Crashes
	s.PowerCuts += o.PowerCuts
	s.Snapshots += o.Snapshots
	s.Repairs += o.Repairs
	s.WatchEvents += o.WatchEvents
	s.Elections += o.Elections
	if r.Failure != "" {
		t.failures = append(t.failures, fmt.Sprintf("seed %#x: %s", r.Seed, r.Failure))
	}
}

func (t *total) write(w io.Writer) {
	s := t.stats
	fmt.Fprintf(w, `# Reliability

This page is written by `+"`go run ./cmd/chaos report`"+` from the files in docs/results. What the words mean: the package docs of chaos/sim and chaos/oracle.

## The simulator

Made by `+"`go run ./cmd/chaos sim -seeds N -results FILE`"+` with %s on %s/%s; commits %s.

| figure | value |
|---|---|
| seeds | %d (%s) |
| simulated time | %.1f hours |
| simulated seconds a second of one core, shared with other work | %.0f |
| operations asked and judged | %d, of which %d with an unknown outcome |
| acknowledged writes that changed a key | %d |
| acknowledged writes lost | %d |
| elections | %d |
| crashes, of which power cuts | %d, %d |
| snapshots installed; damaged logs repaired from the other members | %d; %d |
| events delivered to watches and judged | %d |
| seeds that failed | %d |

`, runtime.Version(), runtime.GOOS, runtime.GOARCH, strings.Join(slices.Sorted(maps.Keys(t.commits)), ", "),
		t.seeds, t.sizes(), t.simulated.Hours(), t.simulated.Seconds()/t.took.Seconds(), s.Ops, s.Unknown, s.Writes, t.lost(), s.Elections,
		s.Crashes, s.PowerCuts, s.Snapshots, s.Repairs, s.WatchEvents, len(t.failures))
	for _, line := range t.failures {
		fmt.Fprintf(w, "- %s\n", line)
	}
	if len(t.failures) > 0 {
		fmt.Fprintln(w)
	}
}

func (t *total) sizes() string {
	var parts []string
	for _, n := range slices.Sorted(maps.Keys(t.members)) {
		parts = append(parts, fmt.Sprintf("%d with %d", t.members[n], n))
	}
	return strings.Join(parts, ", ") + " members"
}

// lost counts the seeds that failed for durability.
func (t *total) lost() (n int) {
	for _, line := range t.failures {
		if strings.Contains(line, " O4 ") {
			n++
		}
	}
	return n
}

func writeRows(w io.Writer, faults map[fault.Kind]int) {
	fmt.Fprint(w, "## The catalogue\n\nHow often the simulator made each row's faults happen; kinds serve several rows.\n\n| row | fault | kinds | times |\n|---|---|---|---|\n")
	reached := 0
	for _, r := range fault.Catalogue {
		n := 0
		var kinds []string
		for _, k := range r.Kinds {
			n += faults[k]
			kinds = append(kinds, string(k))
		}
		if n >= 20 {
			reached++
		}
		fmt.Fprintf(w, "| %d | %s | %s | %d |\n", r.N, r.Name, strings.Join(kinds, ", "), n)
	}
	fmt.Fprintf(w, "\n%d of %d rows were reached at least 20 times.\n\n", reached, len(fault.Catalogue))
}

func writeHunts(w io.Writer, found []hunt) {
	fmt.Fprint(w, "## Planted bugs\n\nMade by `go run ./cmd/chaos planted -results FILE`: the program is built with each bug of package planted, and seeds are run until an oracle sees it.\n\n")
	fmt.Fprint(w, "| bug | what it does | caught by | seeds | time |\n|---|---|---|---|---|\n")
	for _, h := range found {
		by := "**missed**"
		if h.Caught {
			by = h.By
		}
		fmt.Fprintf(w, "| %s | %s | %s | %d | %v |\n", h.Name, h.About, by, h.Seeds, h.Took.Round(10*time.Millisecond))
	}
	fmt.Fprintf(w, "\n%s.\n\n", summary(found))
}

const notTested = `## Track record

Bugs that the rings found in the product: none so far. Alarms that were the simulator's own mistakes:

- seed 0x18d2e: what a member had acknowledged before its log was damaged did not count as held, though its repair gives it back; the observer counts it now.
- seed 0x18ba6: a disk that fails during a repair was taken for an unexpected exit.

## Not tested here

The simulator runs one goroutine: races between goroutines, gRPC, sockets, TLS and bbolt are outside it, as are the rows above without a kind. Its
disks and networks are models. Wall clocks do not jump in it, membership does not change, and nobody uses users and roles.
`
