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
	Caught      bool
	Seeds       int
	Took        time.Duration
	By          string // the oracle
	Line        string
}

// plantedBugs builds this program with each planted bug and looks for it.
func plantedBugs(args []string) error {
	f := flags("planted")
	seeds := f.Int("seeds", 2000, "seeds to try for each bug")
	limit := f.Duration("for", 5*time.Minute, "time for each bug")
	first := f.Uint64("seed", 1, "the first seed")
	only := f.String("only", "", "the bugs to look for, by comma; empty: all")
	results := f.String("results", "", "write what was found to this file, in JSON")
	if err := f.Parse(args); err != nil {
		return err
	}
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
	var hunts []hunt
	for _, b := range planted.Bugs {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), b.Name) {
			continue
		}
		h := look(bin, b, *first, *seeds, *limit)
		hunts = append(hunts, h)
		fmt.Println(h.row())
	}
	fmt.Println(summary(hunts))
	if *results != "" {
		b, err := json.MarshalIndent(hunts, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*results, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(hunts, func(h hunt) bool { return !h.Caught }) {
		return errors.New("a planted bug was not caught")
	}
	return nil
}

// look runs seeds until one fails.
func look(bin string, b planted.Bug, first uint64, seeds int, limit time.Duration) hunt {
	begin := time.Now()
	cmd := exec.Command(bin, "sim", "-seed", fmt.Sprint(first), "-seeds", fmt.Sprint(seeds), "-for", limit.String(), "-shrink", "0", "-stop")
	cmd.Env = append(os.Environ(), "KEELSON_PLANTED="+b.Name)
	out, _ := cmd.CombinedOutput() // it fails when it has caught the bug
	h := hunt{Name: b.Name, About: b.About, Took: time.Since(begin)}
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
	return h
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
