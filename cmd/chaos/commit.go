package main

import (
	"os/exec"
	"runtime/debug"
	"strings"
)

// unknownCommit stands for the commit of a build that does not know it.
const unknownCommit = "unknown"

// commit is the revision that this program was built from, or the one that is
// checked out here.
func commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value[:min(12, len(s.Value))]
			}
		}
	}
	out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return unknownCommit
	}
	return strings.TrimSpace(string(out))
}
