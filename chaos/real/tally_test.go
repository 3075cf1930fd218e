package real

import (
	"path/filepath"
	"reflect"
	"sync/atomic"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	h := Histogram{}
	for _, ms := range []float64{0, 0.2, 1, 9.5, 10, 99, 100.1, 341, 1999} {
		h.Add(time.Duration(ms * float64(time.Millisecond)))
	}
	if want := (Histogram{0: 1, 1: 2, 10: 2, 99: 1, 110: 1, 350: 1, 2000: 1}); !reflect.DeepEqual(h, want) {
		t.Errorf("got %v, want %v", h, want)
	}
	for p, want := range map[float64]time.Duration{1: 0, 50: 10, 88: 350, 89: 2000, 100: 2000} {
		if got := h.Percentile(p); got != want*time.Millisecond {
			t.Errorf("percentile %v is %v, not %vms", p, got, want)
		}
	}
	if got := (Histogram{}).Percentile(50); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// TestTally adds runs up in a file: of one day and one fault in one place, pairs
// without times.
func TestTally(t *testing.T) {
	file := filepath.Join(t.TempDir(), "real.json")
	day := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	one := func(fault, commit string, began time.Time) Result {
		return Result{Fault: fault, Commit: commit, Began: began, Election: time.Second, Happened: map[string]int{"kill": 2}, Acked: 10,
			PowerCuts: 3, AllCuts: 1, Gaps: []Measure{{"kill", 30 * time.Millisecond}}}
	}
	failed := one("kill", "b", day)
	failed.Failure, failed.Seed = "O4: gone", 0x7b
	pair := one("kill+cut", "a", day)
	pair.Classes = "process+network"
	for _, r := range []Result{one("kill", "a", day), failed, pair, one("kill", "a", day.Add(24*time.Hour))} {
		c, err := ReadCampaign(file)
		if err != nil {
			t.Fatal(err)
		}
		c.Add(r, "a machine")
		if err := c.Write(file); err != nil {
			t.Fatal(err)
		}
	}
	c, err := ReadCampaign(file)
	if err != nil || len(c.Tallies) != 3 {
		t.Fatalf("%d tallies, %v; want two days of kill, and pairs", len(c.Tallies), err)
	}
	first := c.Tallies[0]
	if first.Runs != 2 || first.Happened["kill"] != 4 || first.Acked != 20 || first.PowerCuts != 6 || len(first.Commits) != 2 || len(first.Failures) != 1 {
		t.Errorf("the first day is %+v", first)
	}
	if pairs := c.Tallies[2]; pairs.Fault != Pairs || len(pairs.Times) != 0 || c.Pairs["process+network"] != 1 {
		t.Errorf("pairs are %+v", pairs)
	}
	if got := c.Gaps("kill", time.Second); !reflect.DeepEqual(got, Histogram{30: 3}) {
		t.Errorf("gaps are %v", got)
	}
}

// TestHolds: the longest counts, then the one with the most writes; what failed does
// not, and the file keeps all.
func TestHolds(t *testing.T) {
	hold := func(d time.Duration, writes int, failure string) Held {
		return Held{Took: d, Rate: 20, Writes: writes, Failure: failure, Gaps: Histogram{30: 1}}
	}
	c := Campaign{Holds: []Held{hold(time.Hour, 9, "O4: gone"), hold(time.Minute, 500, ""), hold(20*time.Minute, 40, ""), hold(20*time.Minute, 41, "")}}
	file := filepath.Join(t.TempDir(), "real.json")
	if err := c.Write(file); err != nil {
		t.Fatal(err)
	}
	back, err := ReadCampaign(file)
	if err != nil || !reflect.DeepEqual(back.Holds, c.Holds) {
		t.Fatalf("read %+v, %v", back.Holds, err)
	}
	if best := back.Best(); best == nil || best.Writes != 41 {
		t.Errorf("the best is %+v", best)
	}
	if (&Campaign{Holds: c.Holds[:1]}).Best() != nil {
		t.Error("a failure is the best")
	}
	h := Held{Rate: 20}
	seconds := make([]atomic.Int64, 3)
	for i, n := range []int64{0, 19, 30} {
		seconds[i].Store(n)
	}
	h.count(seconds)
	if h.Writes != 49 || h.Seconds[0] != 1 || h.Seconds[9] != 1 || h.Seconds[10] != 1 {
		t.Errorf("counted %+v", h)
	}
}
