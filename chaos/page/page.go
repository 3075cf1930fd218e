package page

import (
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
)

//go:embed page.html
var files embed.FS

// Write draws the page.
func Write(w io.Writer, h *history.History) error {
	t, err := template.ParseFS(files, "page.html")
	if err != nil {
		return err
	}
	return t.Execute(w, newPage(h))
}

// page is what page.html shows.
type page struct {
	*history.History
	Title    string
	Date     string
	Long     string
	Findings int
	Judged   bool
	Figures  []figure
	Verdicts []verdict
	Faults   []faultRow
	Methods  []methodRow
	Settings []setting
	Timeline timeline
}

type figure struct{ Value, Unit, Name string }

type setting struct{ Name, Value string }

type verdict struct {
	Oracle, About, Took string
	Findings            []string
}

type faultRow struct{ At, Text, Long, FirstAck, Gap string }

type methodRow struct {
	Name                      string
	Calls, OK, Refused, Lost  int
	Median, P90, P99, Longest string
}

// about says what each oracle holds a run to.
var about = map[string]string{
	"O1":  "every answer is the one of a store that does one thing after the other, and time does not go back",
	"O2":  "transactions that append to lists have no cycle of dependencies",
	"O3":  "watches: every event once, in order, whole, resumable, and in time",
	"O4":  "what was acknowledged is in every member",
	"O5":  "members hold the same: keys, history, leases, users, members",
	"O7":  "leases end neither early nor late, and tokens of locks never go back",
	"O8":  "nothing happened twice, and counters lost nothing",
	"O9":  "writes are answered whenever no fault is under way",
	"O10": "memory, goroutines and files do not grow",
	"O11": "nothing severe is printed without a fault, and damage is told",
	"O12": "no member ends by itself without a reason",
}

func newPage(h *history.History) page {
	p := page{History: h, Title: "Chaos run", Date: h.Began.UTC().Format("2006-01-02 15:04 UTC"), Long: short(h.End), Judged: len(h.Verdicts) > 0}
	for _, v := range h.Verdicts {
		p.Findings += len(v.Findings)
		p.Verdicts = append(p.Verdicts, verdict{v.Oracle, about[v.Oracle], short(v.Took), v.Findings})
	}
	p.Figures = figures(h)
	p.Methods = methods(h)
	for _, f := range h.Faults {
		row := faultRow{At: short(f.Begin), Text: cmp.Or(f.Text, f.Kind), Long: "to the end", FirstAck: "–", Gap: "–"}
		if f.End > 0 {
			row.Long = short(f.End - f.Begin)
		}
		if d, ok := oracle.FirstAck(h, f); ok {
			row.FirstAck = short(d)
		}
		for _, g := range oracle.Gaps(h, 0) { // the longest first
			if g.To > f.Begin && (f.End == 0 || g.From < f.End) {
				row.Gap = short(g.Long())
				break
			}
		}
		p.Faults = append(p.Faults, row)
	}
	for _, name := range slices.Sorted(keys(h.Config)) {
		p.Settings = append(p.Settings, setting{name, h.Config[name]})
	}
	p.Timeline = newTimeline(h)
	return p
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func figures(h *history.History) []figure {
	var ok, unknown, writes, events int
	for _, op := range h.Ops {
		switch op.Outcome {
		case history.OK:
			ok++
			if !op.ReadOnly() {
				writes++
			}
		case history.Unknown:
			unknown++
		}
	}
	for _, w := range h.Watches {
		for _, r := range w.Responses {
			events += len(r.Events)
		}
	}
	out := []figure{
		{count(len(h.Ops)), "", "calls"}, {count(writes), "", "writes acknowledged"}, {count(unknown), "", "outcomes unknown"},
		{count(int(float64(ok) / max(h.End.Seconds(), 1))), "/s", "calls answered"}, {count(events), "", "events watched"}, {count(len(h.Faults)), "", "faults"},
	}
	if gaps := oracle.Gaps(h, 0); len(gaps) > 0 {
		out = append(out, figure{short(gaps[0].Long()), "", "longest gap of writes"})
	}
	return out
}

func methods(h *history.History) (out []methodRow) {
	times := map[string][]time.Duration{}
	rows := map[string]*methodRow{}
	for _, op := range h.Ops {
		name := op.Method[strings.LastIndex(op.Method, "/")+1:]
		r := rows[name]
		if r == nil {
			r = &methodRow{Name: name}
			rows[name] = r
		}
		r.Calls++
		switch op.Outcome {
		case history.OK:
			r.OK++
			times[name] = append(times[name], op.Return-op.Call)
		case history.Refused:
			r.Refused++
		default:
			r.Lost++
		}
	}
	for name, r := range rows {
		if d := times[name]; len(d) > 0 {
			slices.Sort(d)
			r.Median, r.P90, r.P99, r.Longest = short(at(d, 0.5)), short(at(d, 0.9)), short(at(d, 0.99)), short(d[len(d)-1])
		}
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b methodRow) int { return cmp.Or(cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Name, b.Name)) })
	return out
}

// at is a quantile of what is in order.
func at(d []time.Duration, q float64) time.Duration { return d[min(len(d)-1, int(q*float64(len(d))))] }

// short is a time as one reads it: three digits.
func short(d time.Duration) string {
	switch {
	case d <= 0:
		return "0"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d:%02d min", int(d.Minutes()), int(d.Seconds())%60)
}

// count is a number with its thousands apart.
func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}
