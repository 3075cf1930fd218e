package bench

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"time"
)

// A timeline is kept as CSV, with what it is of in comments before it. A row is a
// slot or a span; what it has not is empty.
var timelineColumns = []string{"store", "from_s", "to_s", "event", "writes", "typical_ms", "most_ms"}

const timelineComments = "# measured %s at commit %s\n# command %s\n# machine %s\n"

// CSV writes the timeline.
func (l *Timeline) CSV(w io.Writer) error {
	if _, err := fmt.Fprintf(w, timelineComments, l.Began.UTC().Format(time.RFC3339), l.Commit, l.Command, l.Machine); err != nil {
		return err
	}
	rows := [][]string{timelineColumns}
	for _, s := range l.Series {
		for _, p := range s.Spans {
			rows = append(rows, []string{s.Store, decimal(p.From), decimal(p.To), p.What, "", "", ""})
		}
		for _, p := range s.Slots {
			rows = append(rows, []string{s.Store, decimal(p.At), decimal(p.At + slotWidth.Seconds()), "", strconv.Itoa(p.Writes), decimal(p.Typical), decimal(p.Most)})
		}
	}
	return csv.NewWriter(w).WriteAll(rows)
}

func decimal(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

// ReadTimeline reads what CSV wrote.
func ReadTimeline(text []byte) (*Timeline, error) {
	l := &Timeline{}
	lines := bytes.SplitN(text, []byte("\n"), 4)
	if len(lines) < 4 {
		return nil, fmt.Errorf("no timeline: %d lines", len(lines))
	}
	var began string
	if _, err := fmt.Sscanf(string(lines[0]), "# measured %s at commit %s", &began, &l.Commit); err != nil {
		return nil, fmt.Errorf("first line: %w", err)
	}
	var err error
	if l.Began, err = time.Parse(time.RFC3339, began); err != nil {
		return nil, err
	}
	l.Command = string(bytes.TrimPrefix(lines[1], []byte("# command ")))
	l.Machine = string(bytes.TrimPrefix(lines[2], []byte("# machine ")))
	rows, err := csv.NewReader(bytes.NewReader(lines[3])).ReadAll()
	if err != nil {
		return nil, err
	}
	for _, row := range rows[min(1, len(rows)):] {
		if err := l.add(row); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *Timeline) add(row []string) error {
	if n := len(l.Series); n == 0 || l.Series[n-1].Store != row[0] {
		l.Series = append(l.Series, Series{Store: row[0]})
	}
	s := &l.Series[len(l.Series)-1]
	var v [7]float64
	for i, field := range row {
		if i == 0 || i == 3 || field == "" {
			continue
		}
		var err error
		if v[i], err = strconv.ParseFloat(field, 64); err != nil {
			return fmt.Errorf("%s: %w", timelineColumns[i], err)
		}
	}
	if row[3] != "" {
		s.Spans = append(s.Spans, Span{v[1], v[2], row[3]})
	} else {
		s.Slots = append(s.Slots, Slot{v[1], int(v[4]), v[5], v[6]})
	}
	return nil
}
