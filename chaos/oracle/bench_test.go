package oracle_test

import (
	"testing"
	"time"

	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/chaos/workload"
)

// BenchmarkJudge judges a history of 100,000 calls; `chaos judge -make N` tells
// how long larger ones take.
func BenchmarkJudge(b *testing.B) {
	h := workload.Make(1, 100_000, 64)
	b.ResetTimer()
	var took map[string]time.Duration
	for b.Loop() {
		took = map[string]time.Duration{}
		begin := time.Now()
		for _, v := range oracle.Judge(h, func() time.Duration { return time.Since(begin) }) {
			took[v.Oracle] += v.Took
			if len(v.Findings) > 0 {
				b.Fatal(v)
			}
		}
	}
	for name, d := range took {
		b.ReportMetric(float64(d.Milliseconds()), "ms/"+name)
	}
}
