package bench

import (
	"bytes"
	"encoding/xml"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestSlots: a write counts where it began, and is the longest wherever it is under way.
func TestSlots(t *testing.T) {
	ms := time.Millisecond
	slots := slotsOf([]timedWrite{{10 * ms, 12 * ms}, {50 * ms, 54 * ms}, {90 * ms, 330 * ms}, {310 * ms, 311 * ms}})
	want := []Slot{
		{At: 0, Writes: 3, Typical: 4, Most: 240}, {At: 0.1, Most: 240}, {At: 0.2, Most: 240}, {At: 0.3, Writes: 1, Typical: 1, Most: 240},
	}
	for i, s := range slots {
		slots[i].At = float64(int(s.At*10+0.5)) / 10
	}
	if !reflect.DeepEqual(slots, want) {
		t.Errorf("got %+v\nwant %+v", slots, want)
	}
}

func someTimeline() *Timeline {
	return &Timeline{
		Origin: Origin{Began: time.Date(2026, 11, 22, 2, 3, 4, 0, time.UTC), Commit: "abc", Command: "bench -timeline x.csv"}, Machine: "2 CPUs, linux",
		Series: []Series{
			{Store: "etcd", Spans: []Span{{0.1, 0.2, "a snapshot, sent & read"}}, Slots: []Slot{{0, 3, 1.5, 2}, {0.1, 0, 0, 100}, {0.2, 1, 3, 100}}},
			{Store: "kvd", Spans: []Span{{0.1, 0.15, "a snapshot, sent & read"}}, Slots: []Slot{{0, 4, 1.25, 2.5}, {0.1, 5, 1, 7}}},
		},
	}
}

// TestTimelineIsReadAgain: what is kept says all that was measured.
func TestTimelineIsReadAgain(t *testing.T) {
	var kept bytes.Buffer
	if err := someTimeline().CSV(&kept); err != nil {
		t.Fatal(err)
	}
	again, err := ReadTimeline(kept.Bytes())
	if err != nil || !reflect.DeepEqual(again, someTimeline()) {
		t.Errorf("%v; read again:\n%+v\nwas:\n%+v", err, again, someTimeline())
	}
	for _, bad := range []string{"", "# measured x\n#\n#\n", strings.Replace(kept.String(), "100.00", "much", 1)} {
		if _, err := ReadTimeline([]byte(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

// textsOf are the texts of a picture, which must be well formed.
func textsOf(t *testing.T, draw func(io.Writer) error) string {
	t.Helper()
	var picture bytes.Buffer
	if err := draw(&picture); err != nil {
		t.Fatal(err)
	}
	texts := ""
	for d := xml.NewDecoder(&picture); ; {
		token, err := d.Token()
		if err == io.EOF {
			return texts
		}
		if err != nil {
			t.Fatal(err)
		}
		if c, ok := token.(xml.CharData); ok {
			texts += string(c) + "\n"
		}
	}
}

func TestTimelineIsDrawn(t *testing.T) {
	texts := textsOf(t, someTimeline().SVG)
	for _, want := range []string{"etcd: how long", "kvd: how long", "a snapshot, sent & read (0.1 s)", "a snapshot, sent & read (0.05 s)", "seconds"} {
		if !strings.Contains(texts, want) {
			t.Errorf("%q is missing in %s", want, texts)
		}
	}
}

// TestGrowthIsDrawn: a report of growth becomes lines, not bars.
func TestGrowthIsDrawn(t *testing.T) {
	rep := &Report{Left: "etcd", Right: "kvd"}
	for _, row := range []Row{growthKeysRow(), growthWatchersRow()} {
		rr := RowReport{Name: row.Name}
		for i, m := range row.Metrics {
			rr.Metrics = append(rr.Metrics, MetricReport{Metric: m, Left: float64(20 + i), Right: float64(10 + i)})
		}
		rep.Rows = append(rep.Rows, rr)
	}
	texts := textsOf(t, rep.SVG)
	for _, want := range []string{"cost as keys grow", "cost as watchers grow", "etcd, put", "kvd, get", "kvd, write", "100k", "1M"} {
		if !strings.Contains(texts, want) {
			t.Errorf("%q is missing in %s", want, texts)
		}
	}
}
