package bench

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestFactorsAndVerdicts(t *testing.T) {
	rounds := func(name string, left, right []float64) (out [2][]map[string]float64) {
		for i, v := range [][]float64{left, right} {
			for _, x := range v {
				out[i] = append(out[i], map[string]float64{name: x})
			}
		}
		return out
	}
	for _, c := range []struct {
		metric      Metric
		left, right []float64
		factor      float64
		verdict     string
	}{
		{Metric{Name: "rate", Higher: true, Goal: 2, Floor: 1.5}, []float64{100, 90, 500}, []float64{220, 210, 10}, 2.1, "goal 2× met"},
		{Metric{Name: "rate", Higher: true, Goal: 2, Floor: 1.5}, []float64{100}, []float64{160}, 1.6, "goal 2×"},
		{Metric{Name: "rate", Higher: true, Goal: 2, Floor: 1.5}, []float64{100}, []float64{120}, 1.2, "BELOW 1.5×"},
		{Metric{Name: "cpu", Goal: 2}, []float64{100}, []float64{50}, 2, "goal 2× met"},
		{Metric{Name: "cpu", Goal: 2}, []float64{100}, []float64{200}, 0.5, "BELOW 1×"},
		{Metric{Name: "p50"}, []float64{100}, []float64{200}, 0.5, ""},
	} {
		got := newMetricReport(c.metric, rounds(c.metric.Name, c.left, c.right))
		if got.Factor != c.factor || got.verdict() != c.verdict {
			t.Errorf("%+v, %v and %v: factor %v %q, want %v %q", c.metric, c.left, c.right, got.Factor, got.verdict(), c.factor, c.verdict)
		}
	}
}

func TestReportNamesWhatFailed(t *testing.T) {
	r := &Report{Left: "etcd", Right: "kvd", Rows: []RowReport{
		{Name: "put", Title: "a put", Ceiling: map[string]float64{"rate": 12345}, Metrics: []MetricReport{{Metric: Metric{Name: "rate", Goal: 2}, Left: 2, Right: 1, Factor: 0.5}}},
		{Name: "list", Title: "a list", Error: "kvd: broken"},
	}}
	if below := r.Below(); len(below) != 2 {
		t.Errorf("got %q", below)
	}
	var table, markdown bytes.Buffer
	r.Table(&table)
	r.Markdown(&markdown)
	for _, want := range []string{"a put", "0.50×", "BELOW 1×", "12345", "FAILED", "kvd: broken"} {
		if !strings.Contains(table.String(), want) || !strings.Contains(markdown.String(), want) {
			t.Errorf("%q is missing in\n%s%s", want, table.String(), markdown.String())
		}
	}
}

// TestUpdate: a run of some rows leaves the others, with where they come from.
func TestUpdate(t *testing.T) {
	row := func(name, commit string) RowReport {
		return RowReport{Name: name, Title: name, From: Origin{Commit: commit}}
	}
	r := Report{Rows: []RowReport{row("put", "old"), row("get", "old")}}
	r.Update(&Report{Rows: []RowReport{row("get", "new"), row("callers", "new"), row("cas", "new")}})
	var got []string
	for _, row := range r.Rows {
		got = append(got, row.Name+" "+row.From.Commit)
	}
	if want := []string{"put old", "callers new", "cas new", "get new"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	var page bytes.Buffer
	r.Markdown(&page)
	for _, want := range []string{"| old |", "| callers, cas, get |"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("%q is missing in\n%s", want, page.String())
		}
	}
}

func TestRowsAreWellFormed(t *testing.T) {
	names := map[string]bool{}
	for _, r := range Rows() {
		if r.Name == "" || r.Title == "" || len(r.Metrics) == 0 || r.Round == nil || names[r.Name] {
			t.Errorf("row %+v", r)
		}
		names[r.Name] = true
	}
	if _, err := chosen([]string{"put", "nosuch"}); err == nil {
		t.Error("an unknown row is accepted")
	}
}
