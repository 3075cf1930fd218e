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
	"regexp"
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
	instances := f.String("wasm", "docs/results/wasm.jsonl", "results of ring B, chaos/wasm")
	bugs := f.String("planted", "docs/results/planted.json", "results of `chaos planted`")
	processes := f.String("real", "docs/results/real.json", "results of `chaos real`")
	others := f.String("others", "docs/results/others.json", "figures of other reports, written by hand")
	record := f.String("track", "docs/results/track.md", "the track record, written by hand")
	folder := f.String("measures", "docs/results", "folder of results of failcalls, cover, clients and scripts/fuzz.sh")
	out := f.String("o", "docs/RELIABILITY.md", "the page")
	if err := f.Parse(args); err != nil {
		return err
	}
	t, wasm := newTotal(), newTotal()
	for _, name := range strings.Split(*seeds, ",") {
		if err := t.read(name); err != nil {
			return err
		}
	}
	if err := wasm.read(*instances); err != nil {
		return err
	}
	found, err := readHunts(*bugs)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(*record)
	if err != nil {
		return err
	}
	track := string(b)
	ring, err := readReal(*processes)
	if err != nil {
		return err
	}
	figures := figures{sim: t, real: ring, bugs: found, track: track}
	if err := figures.readOthers(*others); err != nil {
		return err
	}
	if figures.measures, err = readMeasures(*folder); err != nil {
		return err
	}
	page, err := os.Create(*out)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(page)
	fmt.Fprint(w, begin)
	figures.writeGoals(w)
	t.write(w, track)
	wasm.writeWasm(w, track)
	ring.write(w, track)
	figures.writeRows(w)
	writeWaits(w, t.stats.FirstAck)
	figures.writePoints(w)
	figures.calls.write(w)
	writeHunts(w, found)
	writeEtcdBugs(w)
	figures.cover.write(w)
	fmt.Fprintf(w, "## Track record\n\n%s\n%s", track, notTested)
	return errors.Join(w.Flush(), page.Close())
}

// total is the sum of many campaigns.
type total struct {
	all      sim.Size
	sizes    map[int]sim.Size
	timed    map[int]sim.Size // those whose processor time is known
	stats    sim.Stats
	commits  map[string]int
	failures []string
}

func newTotal() *total {
	return &total{stats: sim.Stats{Faults: map[fault.Kind]int{}}, commits: map[string]int{}, sizes: map[int]sim.Size{}, timed: map[int]sim.Size{}}
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
	t.commits[cmp.Or(r.Commit, "unknown")]++
	plus := func(sum map[int]sim.Size, n int, z sim.Size) {
		o := sum[n]
		sum[n] = sim.Size{Seeds: o.Seeds + z.Seeds, Simulated: o.Simulated + z.Simulated, CPU: o.CPU + z.CPU}
	}
	for n, z := range r.Sizes {
		plus(t.sizes, n, z)
		if z.CPU > 0 {
			plus(t.timed, n, z)
		}
		t.all.Seeds += z.Seeds
		t.all.Simulated += z.Simulated
	}
	t.stats.Add(r.Stats)
	t.failures = append(t.failures, r.Failures...)
}

const begin = `# Reliability

This page is written by ` + "`go run ./cmd/chaos report`" + ` from the files in docs/results. What the words mean: the package docs of chaos/sim,
chaos/real and chaos/oracle. A ring is a way to run a cluster: the simulator is ring A, whole members as
WebAssembly are ring B, real processes are ring C.

`

func (t *total) write(w io.Writer, track string) {
	s := t.stats
	fmt.Fprintf(w, `## The simulator

Made by `+"`go run ./cmd/chaos sim -seeds N -results FILE`"+` with %s on %s/%s; commits %s.

| figure | value |
|---|---|
| seeds | %d (%s) |
| simulated time | %.1f hours |
| simulated seconds a second of one core | %s |
| operations asked and judged | %d, of which %d with an unknown outcome |
| acknowledged writes that changed a key | %d |
| acknowledged writes lost | %d |
| elections | %d |
| crashes, of which power cuts | %d, %d |
| snapshots installed; damaged logs repaired from the other members | %d; %d |
| events delivered to watches and judged | %d |
| seeds that failed | %d |

`, runtime.Version(), runtime.GOOS, runtime.GOARCH, strings.Join(slices.Sorted(maps.Keys(t.commits)), ", "),
		t.all.Seeds, bySize(t.sizes, func(z sim.Size) float64 { return float64(z.Seeds) }), t.all.Simulated.Hours(),
		bySize(t.timed, func(z sim.Size) float64 { return z.Simulated.Seconds() / z.CPU.Seconds() }), s.Ops, s.Unknown, s.Writes, t.lost(track), s.Elections,
		s.Crashes, s.PowerCuts, s.Snapshots, s.Repairs, s.WatchEvents, len(t.failures))
	writeFailures(w, t.failures, track)
}

// writeFailures lists runs that failed when they were made, and what the track
// record says became of each.
func writeFailures(w io.Writer, lines []string, track string) {
	for _, line := range lines {
		fmt.Fprintf(w, "- %s (%s)\n", line, became(seedOf.FindString(line), track))
	}
	if len(lines) > 0 {
		fmt.Fprintln(w)
	}
}

// became is what the track record says of a seed: its line names it as a whole,
// and the commit after "mended in".
func became(seed, track string) string {
	for line := range strings.Lines(track) {
		if seed == "" || !slices.Contains(seedOf.FindAllString(line, -1), seed) {
			continue
		}
		if m := mendedIn.FindStringSubmatch(line); m != nil {
			return "mended in " + m[1] + ", see the track record"
		}
		return "see the track record"
	}
	return "**not explained**"
}

var (
	seedOf   = regexp.MustCompile(`0x[0-9a-f]+`)
	mendedIn = regexp.MustCompile(`mended in ([0-9a-f]{7,12})`)
)

// bySize tells something about each number of members.
func bySize(sizes map[int]sim.Size, tell func(sim.Size) float64) string {
	var parts []string
	for _, n := range slices.Sorted(maps.Keys(sizes)) {
		parts = append(parts, fmt.Sprintf("%.0f with %d", tell(sizes[n]), n))
	}
	return strings.Join(parts, ", ") + " members"
}

// lost counts the seeds that failed for durability.
func (t *total) lost(track string) int { return countLost(t.failures, track) }

// countLost leaves out what the track record knows to be a mistake of the tools.
func countLost(failures []string, track string) (n int) {
	for _, line := range failures {
		if strings.Contains(line, " O4") && !falseAlarm(seedOf.FindString(line), track) {
			n++
		}
	}
	return n
}

// falseAlarm reports whether the track record names the seed below one of its
// headings for alarms.
func falseAlarm(seed, track string) bool {
	alarms := false
	for line := range strings.Lines(track) {
		switch {
		case strings.HasPrefix(line, "|"):
			if alarms && seed != "" && slices.Contains(seedOf.FindAllString(line, -1), seed) {
				return true
			}
		case strings.TrimSpace(line) != "":
			alarms = strings.HasPrefix(line, "Alarms that were ")
		}
	}
	return false
}

// writeWaits tells how long writes waited after faults.
func writeWaits(w io.Writer, waits map[fault.Kind]sim.Wait) {
	if len(waits) == 0 {
		return
	}
	fmt.Fprint(w, "## Until writes go on\n\nSimulated time from the end of all faults to the first acknowledgement of a write that was asked for after it, by the kinds that ended then: how many runs.\n\n| fault |")
	for _, b := range sim.WaitBounds {
		fmt.Fprintf(w, " <= %v |", b)
	}
	fmt.Fprintf(w, " longer | longest |\n|---|%s---|---|\n", strings.Repeat("---|", len(sim.WaitBounds)))
	for _, k := range slices.Sorted(maps.Keys(waits)) {
		fmt.Fprintf(w, "| %s |", k)
		for _, n := range waits[k].Spread {
			fmt.Fprintf(w, " %d |", n)
		}
		fmt.Fprintf(w, " %v |\n", waits[k].Longest.Round(time.Millisecond))
	}
	fmt.Fprintln(w)
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

const notTested = `## Not tested here

The simulator runs one goroutine: races between goroutines, gRPC, sockets, TLS and bbolt are outside it; its disks and networks are models. Ring B
has goroutines and gRPC, but no TLS, no bbolt, one thread, and nobody is interrupted where nothing is called. Real processes run on one machine and one kernel: their network is a switch in user space, their disks are images in memory, their dates can differ, but not how fast
their clocks run.
Nobody has pulled the plug of a machine, and no disk lied about a sync. Nobody uses users and roles in the simulator.
A line of the rotation with a time long ago, or none, says what it says.
`
