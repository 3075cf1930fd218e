package differential

import "time"

// Shrink removes operations as long as what is left still fails, within a budget
// of time. It first drops large parts, then smaller ones. fails must start from
// fresh stores.
func Shrink(ops []Op, budget time.Duration, fails func([]Op) bool) []Op {
	deadline := time.Now().Add(budget)
	for size := len(ops) / 2; size >= 1; size /= 2 {
		for from := 0; from+size <= len(ops); {
			if time.Now().After(deadline) {
				return ops
			}
			// The last operation is the one that shows the difference.
			if from+size == len(ops) && size == 1 {
				break
			}
			rest := append(append([]Op{}, ops[:from]...), ops[from+size:]...)
			if len(rest) > 0 && fails(rest) {
				ops = rest
			} else {
				from += size
			}
		}
	}
	return ops
}
