package real

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Held is a load of writes that went on while the leader was killed again and again.
type Held struct {
	Commit, Machine string
	Began           time.Time
	Seed            uint64
	Rate            int // writes a second that were asked for
	Every, Took     time.Duration

	Writes, Unknown int       // acknowledged; of unknown outcome
	Seconds         []int     // how many seconds had how many writes, in steps of a tenth of Rate; the last is Rate and more
	Kills           int       // of leaders
	Gaps            Histogram // from SIGKILL to the first acknowledgement of a write that was asked for after it
	Events          int       // told to watches
	Failure         string    `json:",omitempty"`
}

// PerSecond is the mean rate.
func (h Held) PerSecond() float64 { return float64(h.Writes) / max(h.Took.Seconds(), 1) }

// Line tells it in one line; a failure says how to repeat it.
func (h Held) Line() string {
	text := fmt.Sprintf("%.0f writes/s for %v (%d asked for, nine tenths of that or more in %d of %d seconds), %d leaders killed, first write after it p50 %d, p99 %d, max %d ms; %d unknown, %d events",
		h.PerSecond(), h.Took.Round(time.Second), h.Rate, sum(h.Seconds[9:]), sum(h.Seconds), h.Kills,
		h.Gaps.Percentile(50).Milliseconds(), h.Gaps.Percentile(99).Milliseconds(), h.Gaps.Percentile(100).Milliseconds(), h.Unknown, h.Events)
	if h.Failure != "" {
		text = fmt.Sprintf("FAIL ring=C hold seed=%#x commit=%s %s | replay: go run ./cmd/chaos real -hold %v -rate %d -every %v -seed %#x",
			h.Seed, h.Commit, h.Failure, h.Took.Round(time.Second), h.Rate, h.Every, h.Seed)
	}
	return text
}

func sum(of []int) (n int) {
	for _, x := range of {
		n += x
	}
	return n
}

// Best is the hold with the most writes a second of those that went on longest.
func (c *Campaign) Best() (best *Held) {
	for i, h := range c.Holds {
		if h.Failure == "" && (best == nil || h.Took.Round(time.Minute) > best.Took.Round(time.Minute) ||
			h.Took.Round(time.Minute) == best.Took.Round(time.Minute) && h.Writes > best.Writes) {
			best = &c.Holds[i]
		}
	}
	return best
}

// count sums seconds up.
func (h *Held) count(seconds []atomic.Int64) {
	h.Seconds = make([]int, 11)
	for i := range seconds {
		n := int(seconds[i].Load())
		h.Writes += n
		h.Seconds[min(n*10/h.Rate, 10)]++
	}
}
