package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Origin says where figures come from.
type Origin struct {
	Began   time.Time
	Commit  string
	Command string
	Rounds  int
}

// Report is the result of a run, or of several: see Update.
type Report struct {
	Began       time.Time
	Took        string
	Machine     string
	Left, Right string
	Rounds      int
	Duration    string
	Rows        []RowReport
}

// RowReport is one row's figures.
type RowReport struct {
	Name, Title string
	Error       string `json:",omitempty"`
	From        Origin
	Ceiling     map[string]float64 `json:",omitempty"` // a server's that answers nothing, by metric
	Metrics     []MetricReport
}

// Update puts a later run's rows in the place of the same rows of this report, and
// those it lacks where they belong.
func (r *Report) Update(later *Report) {
	known := map[string]RowReport{}
	for _, row := range append(slices.Clone(r.Rows), later.Rows...) {
		known[row.Name] = row
	}
	rows := make([]RowReport, 0, len(known))
	for _, row := range Rows() {
		if measured, ok := known[row.Name]; ok {
			rows = append(rows, measured)
		}
	}
	*r = *later
	r.Rows = rows
}

// MetricReport is one figure of both stores: the medians of the rounds, all
// rounds, and how many times better the right one is.
type MetricReport struct {
	Metric
	LeftRounds, RightRounds []float64
	Left, Right             float64
	Factor                  float64
}

func newReport(cfg Config) *Report {
	return &Report{
		Began: time.Now(), Machine: machine(),
		Left: cfg.Left.Name, Right: cfg.Right.Name, Rounds: cfg.Rounds, Duration: cfg.Duration.String(),
	}
}

func machine() string {
	return fmt.Sprintf("%d CPUs, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}

func newMetricReport(m Metric, samples [2][]map[string]float64) MetricReport {
	r := MetricReport{Metric: m}
	for _, s := range samples[0] {
		r.LeftRounds = append(r.LeftRounds, s[m.Name])
	}
	for _, s := range samples[1] {
		r.RightRounds = append(r.RightRounds, s[m.Name])
	}
	r.Left, r.Right = median(r.LeftRounds), median(r.RightRounds)
	if m.Higher && r.Left > 0 {
		r.Factor = r.Right / r.Left
	} else if !m.Higher && r.Right > 0 {
		r.Factor = r.Left / r.Right
	}
	return r
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return 0
	}
	if len(s)%2 == 0 {
		return (s[len(s)/2-1] + s[len(s)/2]) / 2
	}
	return s[len(s)/2]
}

// noise is how far below its floor a factor may be measured: two runs of the same
// binary differ by as much.
const noise = 0.05

// verdict says whether the factor is what it must be and is meant to be. A figure
// with neither floor nor goal informs only.
func (m MetricReport) verdict() string {
	floor := m.Floor
	if floor == 0 && m.Goal > 0 {
		floor = 1
	}
	switch {
	case m.Factor < floor*(1-noise):
		return fmt.Sprintf("BELOW %.4g×", floor)
	case m.Goal > 0 && m.Factor < m.Goal:
		return fmt.Sprintf("goal %.4g×", m.Goal)
	case m.Goal > 0:
		return fmt.Sprintf("goal %.4g× met", m.Goal)
	}
	return ""
}

// Below lists the figures that failed their floor, and rows that failed.
func (r *Report) Below() (out []string) {
	for _, row := range r.Rows {
		if row.Error != "" {
			out = append(out, row.Name+": "+row.Error)
		}
		for _, m := range row.Metrics {
			if strings.HasPrefix(m.verdict(), "BELOW") {
				out = append(out, fmt.Sprintf("%s %s: factor %.2f", row.Name, m.Name, m.Factor))
			}
		}
	}
	return out
}

func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// lines are the cells of the table.
func (r *Report) lines() [][]string {
	out := [][]string{{"row", "figure", r.Left, r.Right, "factor", "", "ceiling"}}
	for _, row := range r.Rows {
		title := row.Title
		if row.Error != "" {
			out = append(out, []string{title, "FAILED", "", "", "", row.Error, ""})
		}
		for _, m := range row.Metrics {
			ceiling := ""
			if c, ok := row.Ceiling[m.Name]; ok {
				ceiling = figure(c)
			}
			out = append(out, []string{title, m.Name + " " + m.Unit, figure(m.Left), figure(m.Right), fmt.Sprintf("%.2f×", m.Factor), m.verdict(), ceiling})
			title = ""
		}
	}
	return out
}

func (r *Report) head() string {
	return fmt.Sprintf("%s beside %s: %s; medians of alternating rounds of %s\n", r.Left, r.Right, r.Machine, r.Duration) +
		"factor: how many times better the right store is, whichever way better lies\n" +
		"ceiling: a gRPC server of one process that answers nothing, called by as many clients\n"
}

// Table prints the report for a terminal.
func (r *Report) Table(w io.Writer) {
	fmt.Fprintln(w, r.head())
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, l := range r.lines() {
		fmt.Fprintln(tw, strings.Join(l, "\t"))
	}
	tw.Flush()
}

// Markdown prints the report as a page.
func (r *Report) Markdown(w io.Writer) {
	fmt.Fprintf(w, "# Speed: %s beside %s\n\n", r.Right, r.Left)
	fmt.Fprintln(w, r.head())
	for i, l := range r.lines() {
		fmt.Fprintf(w, "| %s |\n", strings.Join(l, " | "))
		if i == 0 {
			fmt.Fprintln(w, "|---|---|--:|--:|--:|---|--:|")
		}
	}
	fmt.Fprint(w, "\n| measured | commit | rounds | command | rows |\n|---|---|--:|---|---|\n")
	var runs []Origin
	rows := map[Origin][]string{}
	for _, row := range r.Rows {
		if rows[row.From] == nil {
			runs = append(runs, row.From)
		}
		rows[row.From] = append(rows[row.From], row.Name)
	}
	for _, run := range runs {
		fmt.Fprintf(w, "| %s | %s | %d | `%s` | %s |\n", run.Began.UTC().Format("2006-01-02 15:04"), run.Commit, run.Rounds, run.Command, strings.Join(rows[run], ", "))
	}
}

// JSON prints everything, single rounds included.
func (r *Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
