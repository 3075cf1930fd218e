package sim

import "time"

// Record is what a result file says of one seed.
type Record struct {
	Seed      uint64
	Commit    string
	Members   int
	Simulated time.Duration
	Took      time.Duration
	Trace     string
	Stats     Stats
	Failure   string `json:",omitempty"`
}
