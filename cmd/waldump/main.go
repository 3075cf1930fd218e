// Waldump shows a member's log without changing it: its segments, its records
// and its hard state, and whether it is clean, torn or damaged.
//
//	waldump [-records] directory
//
// It exits with 0 if the log can be opened, 1 if it cannot be read, 2 on wrong
// usage and 6 if it is damaged.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/raft/wal"
)

const (
	exitUnreadable = 1
	exitUsage      = 2
	exitDamaged    = 6
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("waldump", flag.ContinueOnError)
	flags.SetOutput(errs)
	records := flags.Bool("records", false, "print every record")
	flags.Usage = func() {
		fmt.Fprintln(errs, "usage: waldump [-records] directory")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil || flags.NArg() != 1 {
		flags.Usage()
		return exitUsage
	}
	p := &printer{out: out, records: *records, counts: map[string]int{}}
	report, err := wal.Inspect(vfs.OS(), flags.Arg(0), p.record)
	return p.report(report, err)
}

// printer writes records as they are read and the rest at the end.
type printer struct {
	out     io.Writer
	records bool
	counts  map[string]int
	bytes   int64
}

func (p *printer) record(r wal.Record) {
	p.counts[r.Kind]++
	p.bytes += r.Size
	if !p.records {
		return
	}
	fmt.Fprintf(p.out, "%016x %10d %8d  %-6s ", r.Segment, r.Offset, r.Size, r.Kind)
	switch r.Kind {
	case "entry":
		fmt.Fprintf(p.out, "index=%d term=%d type=%d length=%d", r.A, r.B, r.Type, r.Length)
	case "cut":
		fmt.Fprintf(p.out, "after=%d term=%d", r.A, r.B)
	case "footer":
		fmt.Fprintf(p.out, "sequence=%d begin=%d synced=%d last=%d %s", r.A, r.B, r.Synced, r.Last, state(r.State))
	case "state":
		fmt.Fprintf(p.out, "synced=%d last=%d %s", r.Synced, r.Last, state(r.State))
	case "pad":
		fmt.Fprintf(p.out, "length=%d", r.Length)
	}
	fmt.Fprintln(p.out)
}

func state(hs wal.HardState) string {
	return fmt.Sprintf("term=%d vote=%v commit=%d", hs.Term, hs.Vote, hs.Commit)
}

// report prints the summary and returns the exit code.
func (p *printer) report(r *wal.Report, err error) int {
	var damage *wal.DamageError
	if err != nil && !errors.As(err, &damage) {
		fmt.Fprintf(p.out, "unreadable: %v\n", err)
		return exitUnreadable
	}
	fmt.Fprintf(p.out, "cluster %v, member %v\n", r.Identity.Cluster, r.Identity.Member)
	for _, name := range r.Void {
		fmt.Fprintf(p.out, "segment %s: void, the log was reset after it\n", name)
	}
	for _, s := range r.Segments {
		reset := ""
		if s.Reset {
			reset = ", reset"
		}
		fmt.Fprintf(p.out, "segment %s: %d bytes, begins after entry %d of term %d%s\n",
			s.Name, s.Size, s.Position.Index, s.Position.Term, reset)
	}
	fmt.Fprintf(p.out, "records: %d entries, %d cuts, %d batches, %d bytes\n",
		p.counts["entry"], p.counts["cut"], p.counts["footer"], p.bytes)
	found := r.Recovered
	fmt.Fprintf(p.out, "hard state: %s\n", state(found.HardState))
	fmt.Fprintf(p.out, "log: starts after entry %d of term %d, %d entries, last %d\n",
		found.Start.Index, found.Start.Term, found.Last-found.Start.Index, found.Last)
	return p.verdict(r, damage)
}

func (p *printer) verdict(r *wal.Report, damage *wal.DamageError) int {
	switch {
	case damage != nil:
		fmt.Fprintf(p.out, "verdict: damage at %s offset %d: %s\n", damage.File, damage.Offset, damage.Reason)
		return exitDamaged
	case r.Recovered.TornBytes > 0:
		fmt.Fprintf(p.out, "verdict: torn tail, %d bytes of an unfinished write\n", r.Recovered.TornBytes)
	case r.Unproven > 0:
		fmt.Fprintln(p.out, "verdict: clean; the last batch is complete but unproven, the next start writes it again")
	default:
		fmt.Fprintln(p.out, "verdict: clean")
	}
	return 0
}
