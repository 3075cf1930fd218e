//go:build wasip1

// Guest is the program in each instance of ring B: a member, which is package
// server as kvd runs it, or the clients, which are package load.
//
//	guest member CONFIG
//	guest load CONFIG    (both in JSON, of package wire)
package main

import (
	"fmt"
	"os"
)

func main() {
	run := map[string]func([]string) error{"member": member, "load": drive}[os.Args[1]]
	if err := run(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
