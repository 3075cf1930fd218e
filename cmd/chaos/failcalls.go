package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/keelson-io/keelson/chaos/sim"
)

// stamp says where a result comes from.
type stamp struct{ Date, Commit, Command, Machine string }

func newStamp(command string) stamp {
	return stamp{Date: time.Now().Format(time.DateOnly), Commit: commit(), Command: command, Machine: fmt.Sprintf("%d CPUs, %s/%s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)}
}

func (s stamp) String() string {
	return fmt.Sprintf("%s, %s, `%s`, %s", s.Date, s.Commit, s.Command, s.Machine)
}

// failedCalls is a result file of `chaos failcalls`.
type failedCalls struct {
	stamp
	Step  int
	World string `json:",omitempty"` // the only one; empty: all
	sim.CallCounts
}

// failCalls fails every call of the file system that a member makes, one after
// the other, and for some the calls of the recovery, too.
func failCalls(args []string) error {
	f := flags("failcalls")
	step := f.Int("step", 1, "fail every n-th call only")
	again := f.Int("again", 1, "fail the calls of recovery, too, after so many calls of each name")
	only := f.String("world", "", "only this one: alone, three, rotten")
	results := f.String("results", "", "write the counts to this file, as JSON")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *step < 1 {
		return errors.New("-step is at least 1: each call is the first after the one before")
	}
	all := failedCalls{stamp: newStamp("make failcalls"), Step: *step, World: *only}
	found := false
	for _, w := range []struct {
		name  string
		again int
		sim.World
	}{{"alone", *again, sim.NewWorld(1)}, {"three", *again, sim.NewWorld(3)}, {"rotten", 0, sim.RottenWorld()}} {
		if *only == "" || *only == w.name {
			found = true
			all.Add(w.FailCalls(sim.Ways, *step, w.again, func(line string) { fmt.Println(line) }))
		}
	}
	if !found {
		return fmt.Errorf("no world is called %q; there are alone, three, rotten", *only)
	}
	for _, name := range all.Names() {
		fmt.Printf("%6d %s\n", all.Points[name], name)
	}
	fmt.Println(all.figure())
	if *results != "" {
		if err := writeJSON(*results, all); err != nil {
			return err
		}
	}
	if len(all.Failures) > 0 {
		return errors.New("something was found")
	}
	return nil
}

func writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}

// figure is the line of the goal table.
func (c *failedCalls) figure() string {
	return fmt.Sprintf("%s%d calls of %d names; %d second ones, in recovery; %d findings",
		map[bool]string{true: "all, "}[c.Step == 1 && c.World == ""], sumOf(c.Ways), len(c.Points), c.Again, len(c.Failures))
}

func sumOf[K comparable](m map[K]int) (n int) {
	for v := range maps.Values(m) {
		n += v
	}
	return n
}

func (c *failedCalls) write(w io.Writer) {
	fmt.Fprintf(w, "## Calls that fail\n\nMade by `go run ./cmd/chaos failcalls -results FILE` (%s): a member of one or of three runs through a first start, writes, changes of\nsegments, compactions, a crash and its recovery, a state from its leader, a repair by the others and a rebuild of its database, once for each call of the file system that it makes,\n"+
		"and that call fails. For the first calls of each name, each call of the recovery that follows fails, too, or the power does. Every run is judged by all oracles.\nThe member's store is in memory here: of it, commits fail.\n\n| how | calls |\n|---|---|\n", c.stamp)
	for _, way := range sim.Ways {
		fmt.Fprintf(w, "| %s | %d |\n", way, c.Ways[way])
	}
	fmt.Fprintf(w, "| **all**; the process stopped, went on | %d; %d, %d |\n| second ones, in the recovery | %d |\n\n| call | times |\n|---|---|\n", sumOf(c.Ways), c.Stopped, c.WentOn, c.Again)
	for _, name := range slices.Sorted(maps.Keys(c.Points)) {
		fmt.Fprintf(w, "| %s | %d |\n", name, c.Points[name])
	}
	fmt.Fprintln(w)
	for _, line := range c.Failures {
		fmt.Fprintf(w, "- %s\n", line)
	}
}

// readResult reads a result file that a command has written.
func readResult(name string, into any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
