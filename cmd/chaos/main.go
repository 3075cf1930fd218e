// Command chaos breaks clusters and looks for what they lose. `chaos sim` runs
// the simulator of chaos/sim; a seed is one run, and the same seed is the same
// run. `chaos show` prints the history of a run.
package main

import (
	"flag"
	"fmt"
	"os"
)

// commands are the subcommands, in the order in which they are listed.
var commands = []struct {
	name, about string
	run         func(args []string) error
}{
	{"sim", "run seeds of the simulator", simulate},
	{"check", "what every change has to pass in the simulator", check},
	{"failcalls", "fail every call of the file system, one after the other, in the simulator", failCalls},
	{"real", "break clusters of real processes (Linux, root)", realProcesses},
	{"clients", "measure a member's memory with many connections and dead readers (Linux)", manyClients},
	{"report", "write docs/RELIABILITY.md from result files", report},
	{"show", "print a history file", show},
	{"html", "draw a history file as a page", drawn},
	{"judge", "let the oracles judge a history file", judge},
	{"cover", "count the blocks of raft, log and store that tests reach", cover},
	{"planted", "look for each planted bug, and print a table", plantedBugs},
}

func main() {
	if len(os.Args) > 1 {
		for _, c := range commands {
			if c.name == os.Args[1] {
				if err := c.run(os.Args[2:]); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				return
			}
		}
	}
	fmt.Fprintln(os.Stderr, "usage: chaos COMMAND [flags]; chaos COMMAND -h lists the flags")
	for _, c := range commands {
		fmt.Fprintf(os.Stderr, "  %-10s %s\n", c.name, c.about)
	}
	os.Exit(2)
}

// flags makes a command's flag set.
func flags(name string) *flag.FlagSet { return flag.NewFlagSet("chaos "+name, flag.ExitOnError) }
