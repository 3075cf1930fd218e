package sim

import (
	"fmt"
	"runtime/debug"
)

// Line tells a failure in one line, with the command that repeats it.
func (r *Result) Line() string {
	return fmt.Sprintf("FAIL ring=A seed=%#x commit=%s %v | replay: go run ./cmd/chaos sim -seed %#x -v", r.Config.Seed, Commit(), r.Failure, r.Config.Seed)
}

// Commit is the revision that this program was built from, if it knows.
func Commit() string {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return "unknown"
}
