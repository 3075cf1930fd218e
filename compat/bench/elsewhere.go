package bench

import (
	"context"
	"math/rand/v2"
	"time"
)

// This file is what benches of other modules build on.

// Drive runs clients in closed loops, as the rows here do, and gives rate, cpu (in
// microseconds for one call), p50 and p99 (in milliseconds).
func Drive(ctx context.Context, clients int, d time.Duration, cpu func() time.Duration, f func(ctx context.Context, client int, rng *rand.Rand) error) (map[string]float64, error) {
	return latencies(drive(ctx, clients, d, cpu, f))
}

// Each runs n calls with some concurrency, and ends at the first error.
func Each(ctx context.Context, n, concurrency int, f func(ctx context.Context, i int) error) error {
	return each(ctx, n, concurrency, f)
}

// NewReport begins a report of rows that are measured elsewhere; Add fills it.
func NewReport(cfg Config) *Report { return newReport(cfg) }

// Add puts one row into the report: the samples of both sides, a map for each round.
func (r *Report) Add(row Row, samples [2][]map[string]float64, failed error) {
	rr := RowReport{Name: row.Name, Title: row.Title}
	if failed != nil {
		rr.Error = failed.Error()
	} else {
		for _, m := range row.Metrics {
			rr.Metrics = append(rr.Metrics, newMetricReport(m, samples))
		}
	}
	r.Rows = append(r.Rows, rr)
	r.Took = time.Since(r.Began).Round(time.Second).String()
}
