package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// covered is a result file of `chaos cover`: what the tests of the packages below
// the server, and a few seeds of the simulator, reach.
type covered struct {
	stamp
	Packages map[string]blocks
}

// blocks are pieces of code without a branch in them, which is what Go counts.
type blocks struct {
	All, Met int
	Missed   []string `json:",omitempty"` // by file, with a number
}

// measured are the packages whose blocks count, and tests those that run: a restore
// of the store, for one, is tested where a person asks for it.
var (
	measured = []string{"./raft", "./raft/wal", "./raft/vfs", "./raft/transport", "./mvcc", "./mvcc/engine"}
	tests    = append([]string{"./chaos/sim", "./server", "./cmd/kvctl"}, measured...)
)

// cover runs the tests and counts.
func cover(args []string) error {
	f := flags("cover")
	results := f.String("results", "", "write the counts to this file, as JSON")
	profile := f.String("profile", "", "read this profile instead of running the tests")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *profile == "" {
		dir, err := os.MkdirTemp("", "cover")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		*profile = path.Join(dir, "profile")
		run := exec.Command("go", append([]string{"test", "-count=1", "-coverpkg=" + strings.Join(measured, ","), "-coverprofile=" + *profile}, tests...)...)
		run.Stdout, run.Stderr = os.Stdout, os.Stderr
		if err := run.Run(); err != nil {
			return err
		}
	}
	c := covered{stamp: newStamp("make cover"), Packages: map[string]blocks{}}
	if err := c.read(*profile); err != nil {
		return err
	}
	for _, pkg := range slices.Sorted(maps.Keys(c.Packages)) {
		fmt.Printf("%-16s %5.1f%% of %d blocks; missed: %s\n", pkg, c.Packages[pkg].percent(), c.Packages[pkg].All, strings.Join(c.Packages[pkg].Missed, ", "))
	}
	fmt.Println(c.figure())
	if *results == "" {
		return nil
	}
	return writeJSON(*results, c)
}

// read adds up a profile, in which a block has a line for each package of tests.
func (c *covered) read(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	met := map[string]bool{} // file:from,to
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		block, counts, ok := strings.Cut(lines.Text(), " ")
		if _, count, two := strings.Cut(counts, " "); ok && two {
			met[block] = met[block] || count != "0"
		}
	}
	if len(met) == 0 {
		return errors.Join(errors.New("the profile is empty"), lines.Err())
	}
	missed := map[string]map[string]int{}
	for block, yes := range met {
		file, _, _ := strings.Cut(strings.TrimPrefix(block, "github.com/keelson-io/keelson/"), ":")
		pkg := path.Dir(file)
		n := c.Packages[pkg]
		n.All++
		if yes {
			n.Met++
		} else {
			if missed[pkg] == nil {
				missed[pkg] = map[string]int{}
			}
			missed[pkg][path.Base(file)]++
		}
		c.Packages[pkg] = n
	}
	for pkg, n := range c.Packages {
		for _, file := range slices.Sorted(maps.Keys(missed[pkg])) {
			n.Missed = append(n.Missed, fmt.Sprintf("%s %d", file, missed[pkg][file]))
		}
		c.Packages[pkg] = n
	}
	return lines.Err()
}

func (b blocks) percent() float64 { return 100 * float64(b.Met) / float64(max(b.All, 1)) }

// figure is the line of the goal table.
func (c *covered) figure() string {
	var parts []string
	for _, pkg := range []string{"raft", "raft/wal", "mvcc", "mvcc/engine"} {
		parts = append(parts, fmt.Sprintf("%s %.1f%%", pkg, c.Packages[pkg].percent()))
	}
	return strings.Join(parts, ", ") + " of blocks (Go counts no branches)"
}

func (c *covered) write(w io.Writer) {
	fmt.Fprintf(w, "## Coverage\n\nMade by `make cover` (%s): what the tests of these packages, of server and kvctl, and a few runs of the simulator reach, in blocks: pieces of code without a branch in them.\n\n"+
		"| package | blocks | reached | not reached, by file |\n|---|---|---|---|\n", c.stamp)
	for _, pkg := range slices.Sorted(maps.Keys(c.Packages)) {
		n := c.Packages[pkg]
		fmt.Fprintf(w, "| %s | %d | %.1f%% | %s |\n", pkg, n.All, n.percent(), strings.Join(n.Missed, ", "))
	}
	fmt.Fprintln(w)
}
