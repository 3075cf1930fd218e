package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/keelson-io/keelson/chaos/sim"
)

// measures are results of commands of their own.
type measures struct {
	calls   failedCalls
	cover   covered
	fuzz    fuzzed
	clients clients
}

func readMeasures(folder string) (m measures, err error) {
	for name, into := range map[string]any{"calls.json": &m.calls, "cover.json": &m.cover, "clients.json": &m.clients} {
		if err := readResult(folder+"/"+name, into); err != nil {
			return m, err
		}
	}
	return m, m.fuzz.read(folder + "/fuzz.jsonl")
}

// from is where a figure of the measures comes from.
func (m *measures) from(figure string) string {
	return map[string]string{
		"connections and slow clients, memory flat": m.clients.String(),
		"fuzzing": m.fuzz.from(),
		"calls of the file system that fail, one after the other": m.calls.String(),
		"branch coverage of raft, log and store":                  m.cover.String(),
	}[figure]
}

// fuzzed is what scripts/fuzz.sh noted: lines add up.
type fuzzed struct {
	targets map[string]int // seconds
	inputs  int
	last    fuzzRun
}

type fuzzRun struct {
	Date, Commit, Package, Target string
	Seconds, Inputs               int
}

func (f *fuzzed) read(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	f.targets = map[string]int{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if err := json.Unmarshal(lines.Bytes(), &f.last); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		f.targets[f.last.Package+" "+f.last.Target] += f.last.Seconds
		f.inputs += f.last.Inputs
	}
	return lines.Err()
}

// figure is the line of the goal table. A target that finds something ends the
// script, so what was noted found nothing.
func (f *fuzzed) figure() string {
	least, sum := 0, 0
	for _, s := range f.targets {
		sum += s
		if least == 0 || s < least {
			least = s
		}
	}
	return fmt.Sprintf("%d targets, %.1f hours in all, at least %d s each, %.1f M inputs, 0 open", len(f.targets), float64(sum)/3600, least, float64(f.inputs)/1e6)
}

func (f *fuzzed) from() string {
	return fmt.Sprintf("%s, %s, `FUZZRESULTS=docs/results/fuzz.jsonl make fuzz`, one worker", f.last.Date, f.last.Commit)
}

// points is how many of the simulator's points something was cut short at.
func (f *figures) points() string {
	met, pairs := f.pointsMet()
	return fmt.Sprintf("%d of %d; %d with role or phase", met, len(sim.Points), pairs)
}

func (f *figures) pointsMet() (met, pairs int) {
	for _, p := range sim.Points {
		n := len(f.pointPhases(p))
		pairs += n
		if n > 0 {
			met++
		}
	}
	return met, pairs
}

// pointPhases is how often something was cut short at a point, by phase: in seeds
// and by `chaos failcalls`, which does not tell roles.
func (f *figures) pointPhases(p string) map[string]int {
	phases := map[string]int{}
	for phase, n := range f.sim.stats.Points[p] {
		phases[phase] += n
	}
	for name, n := range f.measures.calls.Points {
		if phase, point, _ := strings.Cut(name, ": "); point == p {
			if !slices.Contains(sim.Phases, phase) {
				phase = "any role"
			}
			phases[phase] += n
		}
	}
	return phases
}

func (f *figures) writePoints(w io.Writer) {
	columns := append(slices.Clone(sim.Phases), "any role")
	fmt.Fprintf(w, "## Where processes were cut short\n\nFailpoints, without code for them: every call that a member makes on its disk is one, and so are the states in which a crash can find it. How often the call failed or the power did in it,\n"+
		"in seeds of the simulator since this is counted, by role, and in `chaos failcalls`, which does not tell roles.\n\n| point | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, p := range sim.Points {
		phases := f.pointPhases(p)
		fmt.Fprintf(w, "| %s |", p)
		for _, c := range columns {
			if phases[c] == 0 {
				fmt.Fprint(w, " |")
			} else {
				fmt.Fprintf(w, " %d |", phases[c])
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "\n%s.\n\n", f.points())
}
