package sim

import (
	"slices"

	"github.com/keelson-io/keelson/chaos/fault"
)

// Shrink looks for a shorter plan that still fails for the same oracle, by
// leaving out halves, quarters and so on (delta debugging), within a number of
// runs. It returns the shortest that it has found.
func Shrink(r Result, runs int) Result {
	best := r
	// What comes after the failure cannot have caused it.
	try := func(plan []fault.Event) bool {
		if runs == 0 {
			return false
		}
		runs--
		next := Run(best.Config, plan, nil)
		if next.Failure == nil || next.Failure.Oracle != r.Failure.Oracle {
			return false
		}
		best = next
		return true
	}
	try(slices.DeleteFunc(slices.Clone(best.Plan), func(e fault.Event) bool { return e.At > best.Failure.At }))
	for part := (len(best.Plan) + 1) / 2; part > 0 && runs > 0; {
		left := false
		for from := 0; from < len(best.Plan); {
			to := min(from+part, len(best.Plan))
			if try(slices.Delete(slices.Clone(best.Plan), from, to)) {
				left = true
			} else {
				from = to
			}
		}
		if !left || part > len(best.Plan) {
			part /= 2
		}
	}
	return best
}
