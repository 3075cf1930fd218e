package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/chaos/real"
)

// figures are what the goal table is made of.
type figures struct {
	sim    *total
	real   *realTotal
	bugs   []hunt
	others map[string]other
	measures
	track string // the track record
}

// other is a figure of another report, copied by hand.
type other struct {
	Figure, Value                  string
	Date, Commit, Command, Machine string
}

func (f *figures) readOthers(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var all []other
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	f.others = map[string]other{}
	for _, o := range all {
		f.others[o.Figure] = o
	}
	return nil
}

// goal is one figure that is aimed at; now is nil if it comes from another report.
type goal struct {
	figure, floor, aim string
	now                func(*figures) string
	from               string
}

const (
	fromSim  = "`chaos sim`, see below"
	fromReal = "`chaos real`, see below"
	fromAll  = "`chaos sim` and `chaos real`, see below"
)

// goals are those of the reliability plan.
var goals = []goal{
	{"simulated cluster time", "1,000 h a release", "100,000 h", func(f *figures) string { return fmt.Sprintf("%.1f h", f.sim.all.Simulated.Hours()) }, fromSim},
	{"simulated seconds a second of one core, three members", "50", "200", (*figures).speed, fromSim},
	{"rows of the catalogue reached at least 20 times", "58 of 58", "and all pairs of classes", func(f *figures) string { return f.rows() + "; " + f.pairs() }, fromAll},
	{"failpoints that were reached", "all", "all, by role and phase", (*figures).points, "`chaos sim` and `chaos failcalls`, see below"},
	{"acknowledged writes lost", "0 of 100 M", "0 of 1 G", (*figures).lost, fromAll},
	{"operations checked in one history", "1 M", "10 M", nil, ""},
	{"planted bugs caught", "40 of 40", "60 of 60", func(f *figures) string { return summary(f.bugs) }, "`chaos planted`, see below"},
	{"bugs of etcd's track record as scenarios", "17 of 17", "17 of 17, planted too", func(f *figures) string { return etcdRecord(f.bugs) }, "see below"},
	{"damaged bytes and sectors, all found, none served", "10,000", "1 M", (*figures).damages, fromAll},
	{"damaged members repaired from the others", "log and snapshot", "single records of the store, too", (*figures).repairs, fromAll},
	{"power cuts survived, counted by member; of all members at once", "1,000; 200", "10,000 of processes, 100,000 simulated", (*figures).powerCuts, fromAll},
	{"leader killed, election timeout 1 s, to the first acknowledged write", "p50 1.4 s, p99 2.2 s of 500", "p50 0.45 s, p99 0.7 s", (*figures).kills, fromReal},
	{"leader stopped, to the first acknowledged write", "p99 100 ms", "p99 30 ms", (*figures).handOver, fromReal},
	{"load held while the leader is killed every 5 s", "2,000 writes/s for 1 h", "5,000 writes/s for 24 h", (*figures).held, "`chaos real -hold`, see below"},
	{"events of watches checked, gaps or repeats", "100 M, 0", "1 G, 0", (*figures).events, fromAll},
	{"connections and slow clients, memory flat", "5,000 connections, 10,000 watches", "20,000 connections", func(f *figures) string { return f.clients.figure() }, ""},
	{"fuzzing", "15 targets, 10 core hours each", "100 core hours each", func(f *figures) string { return f.fuzz.figure() }, ""},
	{"calls of the file system that fail, one after the other", "all, in start, write, rotate, snapshot, recover", "and again in recovery", func(f *figures) string { return f.calls.figure() }, ""},
	{"branch coverage of raft, log and store", "90%", "100% of log and store", func(f *figures) string { return f.cover.figure() }, ""},
	{"requests compared with etcd 3.7", "1 M, 0 differences", "10 M", nil, ""},
	{"upgrades under kills", "every released pair, both ways", "and an hour mixed", (*figures).upgrades, fromReal},
	{"soak, a fault every 5 s", "6 h", "72 h", nil, ""},
}

func (f *figures) writeGoals(w io.Writer) {
	fmt.Fprint(w, "## Goals\n\n| figure | floor | aim | now | from |\n|---|---|---|---|---|\n")
	for _, g := range goals {
		now, from := "not measured", ""
		if o, ok := f.others[g.figure]; ok {
			now, from = o.Value, strings.Join([]string{o.Date, o.Commit, "`" + o.Command + "`", o.Machine}, ", ")
		}
		if g.now != nil {
			now, from = g.now(f), cmp.Or(g.from, f.from(g.figure))
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", g.figure, g.floor, g.aim, now, from)
	}
	fmt.Fprintln(w)
}

func (f *figures) speed() string {
	z := f.sim.timed[3]
	return fmt.Sprintf("%.0f", z.Simulated.Seconds()/max(z.CPU.Seconds(), 1))
}

// enough is how often a row must be reached.
const enough = 20

func (f *figures) rows() string {
	n := 0
	for _, r := range fault.Catalogue {
		if f.simulated(r)+f.processes(r) >= enough {
			n++
		}
	}
	return fmt.Sprintf("%d of %d", n, len(fault.Catalogue))
}

func (f *figures) pairs() string {
	n := len(real.Classes)
	return fmt.Sprintf("%d of %d pairs of classes", len(f.real.Pairs), n*(n-1)/2)
}

func (f *figures) simulated(r fault.Row) (n int) {
	for _, k := range r.Kinds {
		n += f.sim.stats.Faults[k]
	}
	return n
}

func (f *figures) processes(r fault.Row) int {
	n, _ := f.real.row(r.N)
	return n
}

func (f *figures) lost() string {
	return fmt.Sprintf("%d of %.1f M", f.sim.lost(f.track)+f.real.lost(f.track), float64(f.sim.stats.Writes+f.real.Writes)/1e6)
}

func (f *figures) damages() string {
	s, r := f.sim.stats.Faults, f.real.times
	return fmt.Sprint(s[fault.FlipBit] + s[fault.ZeroSector] + s[fault.Rot] + r["flip-log"] + r["zero-sector"] + r["damage-store"] + r["damage-snapshot"])
}

func (f *figures) repairs() string {
	r := f.real.times
	return fmt.Sprintf("log and store, %d times", f.sim.stats.Repairs+r["flip-log"]+r["damage-store"]+r["delete-store"])
}

func (f *figures) powerCuts() string {
	return fmt.Sprintf("%d; %d of processes, %d simulated", f.real.PowerCuts, f.real.AllCuts, f.sim.stats.PowerCuts)
}

func (f *figures) upgrades() string {
	return fmt.Sprintf("there is one release; between two builds and back, under load, %d times, members stopped and not killed", f.real.times["upgrade"])
}

func (f *figures) kills() string { return spread(f.real.Gaps("kill-leader", time.Second)) }

func (f *figures) handOver() string { return spread(f.real.Gaps("stop-leader", time.Second)) }

func (f *figures) held() string {
	h := f.real.Best()
	if h == nil {
		return "not measured"
	}
	return fmt.Sprintf("%.0f writes/s for %v, %d kills, 0 lost", h.PerSecond(), h.Took.Round(time.Second), h.Kills)
}

func (f *figures) events() string {
	return fmt.Sprintf("%.1f M, 0", float64(f.sim.stats.WatchEvents+f.real.Events)/1e6)
}

// writeRows tells how often each row was reached, in each ring.
func (f *figures) writeRows(w io.Writer) {
	fmt.Fprint(w, "## The catalogue\n\nHow often each row's faults happened: in the simulator, whose kinds of events serve several rows, and to real processes.\n\n"+
		"| row | fault | kinds | simulated | faults of processes | happened |\n|---|---|---|---|---|---|\n")
	for _, r := range fault.Catalogue {
		var kinds []string
		for _, k := range r.Kinds {
			kinds = append(kinds, string(k))
		}
		n, names := f.real.row(r.N)
		fmt.Fprintf(w, "| %d | %s | %s | %d | %s | %d |\n", r.N, r.Name, strings.Join(kinds, ", "), f.simulated(r), cmp.Or(strings.Join(names, ", "), "none"), n)
	}
	fmt.Fprintf(w, "\n%s rows were reached at least %d times.\n\n", f.rows(), enough)
}
