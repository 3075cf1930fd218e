// Kvcheck reads the database of a stopped member, or any etcd database file,
// and proves that it is whole: every record's checksum, each key's chain of
// revisions, the index that a start would build, and the leases.
//
// Usage:
//
//	kvcheck [-q] PATH
//
// PATH is a data directory or a database file. Nothing is written. The exit
// status is 0 when all is well, 1 for a wrong command line, 2 when the file
// cannot be read and 3 when something in it is wrong.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
)

const (
	exitClean = iota
	exitUsage
	exitUnreadable
	exitDamaged
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, out, errOut io.Writer) int {
	flags := flag.NewFlagSet("kvcheck", flag.ContinueOnError)
	flags.SetOutput(errOut)
	quiet := flags.Bool("q", false, "print problems only")
	flags.Usage = func() {
		fmt.Fprintln(errOut, "usage: kvcheck [-q] PATH    (a data directory or a database file)")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil || flags.NArg() != 1 {
		if err == nil {
			flags.Usage()
		}
		return exitUsage
	}
	path := flags.Arg(0)
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, "member", "snap", "db")
	}
	if *quiet {
		out = io.Discard
	}
	problems, err := check(path, out)
	switch {
	case errors.Is(err, mvcc.ErrCorrupt):
		problems = []error{err}
	case err != nil:
		fmt.Fprintf(errOut, "kvcheck: %v\n", err)
		return exitUnreadable
	}
	for _, p := range problems {
		fmt.Fprintf(errOut, "kvcheck: %s: %v\n", path, p)
	}
	if len(problems) > 0 {
		return exitDamaged
	}
	fmt.Fprintln(out, "clean")
	return exitClean
}

// check opens the database as a member would and checks it.
func check(path string, out io.Writer) (problems []error, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err // bbolt would wait for a lock first
	}
	e, err := engine.OpenBolt(path, engine.BoltOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	c := clock.System()
	start := c.Now()
	s, err := mvcc.Open(mvcc.Config{Clock: c, Engine: e})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	index, term := s.Applied()
	st := s.Stats()
	fmt.Fprintf(out, "file       %s, %d bytes, %d in use\n", path, st.Engine.Allocated, st.Engine.InUse)
	fmt.Fprintf(out, "log        index %d, term %d\n", index, term)
	fmt.Fprintf(out, "revision   %d, compacted %d\n", s.Revision(), max(s.CompactRevision(), 0))
	fmt.Fprintf(out, "keys       %d, revisions %d, leases %d\n", st.Keys, st.Revisions, st.Leases)
	opened := c.Now()
	problems = s.Check()
	fmt.Fprintf(out, "took       %v to read, %v to check\n",
		opened.Sub(start).Round(time.Millisecond), c.Now().Sub(opened).Round(time.Millisecond))
	return problems, nil
}
