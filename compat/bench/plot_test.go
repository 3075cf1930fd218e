package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// TestPlot: what is drawn is a well-formed picture of the figures with a goal, also
// from a report that was read again.
func TestPlot(t *testing.T) {
	rep := &Report{Left: "etcd", Right: "kvd & co", Rows: []RowReport{
		{Name: "put", Title: "put <1,000>", Ceiling: map[string]float64{"rate": 9}, Metrics: []MetricReport{
			{Metric: Metric{Name: "rate", Goal: 2}, Left: 1, Right: 3, Factor: 3},
			{Metric: Metric{Name: "p50"}, Left: 1, Right: 7, Factor: 7},
			{Metric: Metric{Name: "cpu", Goal: 2}, Left: 1, Right: 1, Factor: 0.4},
			{Metric: Metric{Name: "far", Goal: 4}, Left: 1, Right: 1, Factor: 1000},
		}},
	}}
	var stored, first, second bytes.Buffer
	if err := rep.JSON(&stored); err != nil {
		t.Fatal(err)
	}
	if err := rep.SVG(&first); err != nil {
		t.Fatal(err)
	}
	var again Report
	if err := json.Unmarshal(stored.Bytes(), &again); err != nil {
		t.Fatal(err)
	}
	if err := again.SVG(&second); err != nil || second.String() != first.String() {
		t.Errorf("%v; the report that was read again is drawn differently", err)
	}
	if strings.Contains(first.String(), "%!") {
		t.Errorf("a number is missing in %s", first.String())
	}
	if n := strings.Count(first.String(), "stroke-dasharray"); n != 1 {
		t.Errorf("%d marks of the ceiling; the rate alone has one", n)
	}
	texts := textsOf(t, func(w io.Writer) error { _, err := first.WriteTo(w); return err })
	for _, want := range []string{"put <1,000>: rate", "3.00×", "0.40×", "1000.00×", "kvd & co"} {
		if !strings.Contains(texts, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(texts, "p50") {
		t.Error("a figure without a goal is drawn")
	}
}
