package real

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Classes of faults, in the order of the catalogue.
var Classes = []string{"process", "network", "disk", "time", "membership", "semantics", "load", "operations", "resources"}

// Result is what a run has found.
type Result struct {
	Fault    string // names, joined by +
	Classes  string // of them, in the catalogue's order, joined by +
	Seed     uint64
	Commit   string
	Began    time.Time
	Took     time.Duration
	Members  int
	Election time.Duration

	Happened  map[string]int // how often each fault really did
	Rate      float64        // acknowledged calls a second before the first
	Acked     int            // calls
	Unknown   int
	Writes    int       // acknowledged ones that changed something, found in the log
	Events    int       // told to watches
	PowerCuts int       // of single members
	AllCuts   int       // of all at once
	Gaps      []Measure // from a fault to the first acknowledgement of a write that was asked for after it
	Measures  []Measure // what faults timed themselves

	Failure     string
	Meaningless string
	Skipped     string
}

// Measure is a time.
type Measure struct {
	What string
	Time time.Duration
}

// Line tells how a run ended, in one line; a failure's says how to repeat it.
func (r Result) Line() string {
	var happened []string
	for name, n := range r.Happened {
		happened = append(happened, fmt.Sprintf("%s %d times", name, n))
	}
	text := fmt.Sprintf("%-24s seed %#x: %s, %d calls acknowledged, %d unknown, %d events, %.1fs", r.Fault, r.Seed, strings.Join(happened, ", "),
		r.Acked, r.Unknown, r.Events, r.Took.Seconds())
	switch {
	case r.Skipped != "":
		return fmt.Sprintf("%-24s skipped: %s", r.Fault, r.Skipped)
	case r.Meaningless != "":
		return fmt.Sprintf("MEANINGLESS ring=C fault=%s seed=%#x %s", r.Fault, r.Seed, r.Meaningless)
	case r.Failure != "":
		first, rest, _ := strings.Cut(r.Failure, "\n")
		if rest != "" {
			first += fmt.Sprintf(" (and %d more)", strings.Count(rest, "\n")+1)
		}
		return fmt.Sprintf("FAIL ring=C fault=%s seed=%#x commit=%s %s | replay: go run ./cmd/chaos real -fault %s -seed %#x",
			r.Fault, r.Seed, r.Commit, first, r.Fault, r.Seed)
	}
	return text
}

// Machine names the CPUs, and nothing else of the machine.
func Machine() string {
	model := runtime.GOARCH
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for in := bufio.NewScanner(f); in.Scan(); {
			if name, text, ok := strings.Cut(in.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(text)
				break
			}
		}
	}
	return fmt.Sprintf("%d x %s", runtime.NumCPU(), model)
}

// CommitEnv tells the commit to a program that was built without it.
const CommitEnv = "KEELSON_COMMIT"

// Unknown is a commit of which nobody knows.
const Unknown = "unknown"

// Commit is the revision that this program was built from, if it knows.
func Commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return cmp.Or(os.Getenv(CommitEnv), Unknown)
}
