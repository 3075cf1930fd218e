package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keelson-io/keelson/planted"
)

// hunt is what a hunt for one planted bug came to.
type hunt struct {
	Name, About string
	Commit      string
	Caught      bool
	Seeds       int           `json:",omitempty"`
	Took        time.Duration // with the build, of a Go test
	By          string        // the oracle, or the Go test
	Line        string        // that repeats it
}

// hunting is what plantedBugs is asked to do.
type hunting struct {
	fast    bool          // only bugs that are caught fast
	only    []string      // bugs by name; empty: all
	first   uint64        // seed
	seeds   int           // to try for each bug
	limit   time.Duration // for each bug
	results string        // file to write
}

func plantedBugs(args []string) error {
	f := flags("planted")
	var h hunting
	f.IntVar(&h.seeds, "seeds", 2000, "seeds to try for each bug")
	f.DurationVar(&h.limit, "for", 5*time.Minute, "time for each bug")
	f.Uint64Var(&h.first, "seed", 1, "the first seed")
	only := f.String("only", "", "the bugs to look for, by comma; empty: all")
	f.BoolVar(&h.fast, "fast", false, "leave the slow ones out")
	f.StringVar(&h.results, "results", "", "put what was found into this file, in JSON; bugs that were not looked for keep their place in it")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *only != "" {
		h.only = strings.Split(*only, ",")
	}
	return hunts(h)
}

// hunts builds this program with the planted bugs and looks for each.
func hunts(w hunting) error {
	dir, err := os.MkdirTemp("", "chaos-planted")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "chaos")
	build := exec.Command("go", "build", "-tags", "planted", "-o", bin, "github.com/keelson-io/keelson/cmd/chaos")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build with the tag planted: %w", err)
	}
	var found []hunt
	for _, b := range planted.Bugs {
		if len(w.only) > 0 && !slices.Contains(w.only, b.Name) || w.fast && b.Slow {
			continue
		}
		h := hunt{Name: b.Name, About: b.About, Commit: commit()}
		begin := time.Now()
		if b.Test != "" {
			h.test(b)
		} else {
			h.seeds(bin, w)
		}
		h.Took = time.Since(begin)
		found = append(found, h)
		fmt.Println(h.row())
	}
	fmt.Println(summary(found))
	if err := merge(w.results, found); err != nil {
		return err
	}
	if slices.ContainsFunc(found, func(h hunt) bool { return !h.Caught }) {
		return errors.New("a planted bug was not caught")
	}
	return nil
}

// merge puts hunts into a file of results, in the place of older ones for the
// same bug.
func merge(name string, found []hunt) error {
	if name == "" {
		return nil
	}
	old, err := readHunts(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var all []hunt
	for _, b := range planted.Bugs {
		is := func(h hunt) bool { return h.Name == b.Name }
		if i := slices.IndexFunc(found, is); i >= 0 {
			all = append(all, found[i])
		} else if i := slices.IndexFunc(old, is); i >= 0 {
			all = append(all, old[i])
		}
	}
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}

func readHunts(name string) (all []hunt, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return all, json.Unmarshal(b, &all)
}

// seeds runs seeds until one fails.
func (h *hunt) seeds(bin string, w hunting) {
	cmd := exec.Command(bin, "sim", "-seed", fmt.Sprint(w.first), "-seeds", fmt.Sprint(w.seeds), "-for", w.limit.String(), "-shrink", "0", "-stop")
	cmd.Env = append(os.Environ(), "KEELSON_PLANTED="+h.Name)
	out, _ := cmd.CombinedOutput() // it fails when it has caught the bug
	for line := range bytes.Lines(out) {
		text := strings.TrimSpace(string(line))
		if strings.HasPrefix(text, "FAIL ring=A") && !h.Caught {
			h.Caught, h.Line = true, text
			if words := strings.Fields(text); len(words) > 5 {
				h.By = words[5]
			}
		}
		var n, failed int
		if _, err := fmt.Sscanf(text, "%d seeds, %d failed", &n, &failed); err == nil {
			h.Seeds = n
		}
	}
}

// test runs the Go test that must fail with the bug.
func (h *hunt) test(b planted.Bug) {
	pkg, name, _ := strings.Cut(b.Test, " ")
	cmd := exec.Command("go", "test", "-count=1", "-tags", "planted", "-run", "^"+name+"$", pkg)
	cmd.Env = append(os.Environ(), "KEELSON_PLANTED="+h.Name)
	out, _ := cmd.CombinedOutput() // it fails when it has caught the bug
	h.By = name
	for line := range bytes.Lines(out) {
		if text := strings.TrimSpace(string(line)); strings.HasPrefix(text, "--- FAIL: "+name) {
			h.Caught, h.Line = true, "go test -tags planted -run "+name+" "+pkg
		}
	}
}

func (h hunt) row() string {
	verdict := "MISSED"
	if h.Caught {
		verdict = "caught by " + h.By
	}
	return fmt.Sprintf("%-22s %-18s %5d seeds %8v  %s", h.Name, verdict, h.Seeds, h.Took.Round(10*time.Millisecond), h.About)
}

func summary(hunts []hunt) string {
	var times []time.Duration
	for _, h := range hunts {
		if h.Caught {
			times = append(times, h.Took)
		}
	}
	slices.Sort(times)
	var median time.Duration
	if len(times) > 0 {
		median = times[len(times)/2]
	}
	return fmt.Sprintf("%d of %d planted bugs caught, median time %v", len(times), len(hunts), median.Round(10*time.Millisecond))
}
