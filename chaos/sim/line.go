package sim

import "fmt"

// Line tells a failure in one line, with the command that repeats it.
func (r *Result) Line(commit string) string {
	return fmt.Sprintf("FAIL ring=A seed=%#x commit=%s %v | replay: go run ./cmd/chaos sim -seed %#x -v", r.Config.Seed, commit, r.Failure, r.Config.Seed)
}
