package page

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/keelson-io/keelson/chaos/history"
)

// The timeline's measures, in units of its drawing.
const (
	left    = 118 // of the lanes
	width   = 1060
	gap     = 18
	buckets = 212 // of time
	barH    = 13
	chartH  = 96
	rows    = 24 // of the latency map, from lowest to highest
)

// lowest and highest bound latencies; what is outside goes to the edge.
const (
	lowest  = 100 * time.Microsecond
	highest = 20 * time.Second
)

// box is a rectangle; Tip shows when it is pointed at.
type box struct {
	X, Y, W, H float64
	Class      string
	Opacity    float64
	Tip        string
}

// text is a word in the drawing.
type text struct {
	X, Y  float64
	Class string
	Text  string
}

// line is a polyline.
type line struct{ Class, Points string }

type timeline struct {
	Width, Height, Left, Right, Top float64
	Boxes                           []box
	Texts                           []text
	Lines                           []line
	Seconds                         float64
}

// drawing is a timeline in the making: y is where the next lane begins.
type drawing struct {
	timeline
	h *history.History
	y float64
}

func newTimeline(h *history.History) timeline {
	d := &drawing{h: h, y: 6}
	d.Width, d.Left, d.Right, d.Seconds = left+width+60, left, left+width, max(h.End.Seconds(), 1e-3)
	d.Top = d.y
	d.faults()
	d.members()
	d.calls()
	d.latencies()
	d.lag()
	d.memory()
	d.axis()
	d.Height = d.y + 22
	return d.timeline
}

func (d *drawing) x(at time.Duration) float64 {
	return left + width*min(1, max(0, at.Seconds()/d.Seconds))
}

func (d *drawing) bucket(at time.Duration) int {
	return min(buckets-1, max(0, int(buckets*at.Seconds()/d.Seconds)))
}

func (d *drawing) bucketX(i int) float64 { return left + width*float64(i)/buckets }

const bucketW = float64(width) / buckets

func (d *drawing) bar(from, to time.Duration, y, h float64, class string, opacity float64, tip string) {
	x := d.x(from)
	d.Boxes = append(d.Boxes, box{x, y, max(1.5, d.x(to)-x), h, class, opacity, tip})
}

func (d *drawing) label(y float64, class, format string, args ...any) {
	d.Texts = append(d.Texts, text{left - 10, y, "label " + class, fmt.Sprintf(format, args...)})
}

// faults are bars, in as many rows as overlap.
func (d *drawing) faults() {
	if len(d.h.Faults) == 0 {
		return
	}
	faults := slices.Clone(d.h.Faults)
	slices.SortStableFunc(faults, func(a, b *history.Fault) int { return cmp.Compare(a.Begin, b.Begin) })
	d.label(d.y+10, "", "faults")
	var free []time.Duration // until when each row is taken
	for _, f := range faults {
		end := f.End
		if end == 0 {
			end = d.h.End
		}
		row := slices.IndexFunc(free, func(until time.Duration) bool { return until < f.Begin })
		if row < 0 {
			row, free = len(free), append(free, 0)
		}
		free[row] = end
		d.bar(f.Begin, end, d.y+float64(row)*(barH+2), barH, "fault", 1, fmt.Sprintf("%s: %s to %s (%s)", cmp.Or(f.Text, f.Kind), short(f.Begin), short(end), short(end-f.Begin)))
		if wide := d.x(end) - d.x(f.Begin); wide > 7*float64(len(f.Kind)) {
			d.Texts = append(d.Texts, text{d.x(f.Begin) + 4, d.y + float64(row)*(barH+2) + 10, "on", f.Kind})
		}
		// What a fault does shows below it.
		d.bar(f.Begin, end, d.y+float64(row)*(barH+2)+barH, 0, "shade", 1, "")
	}
	d.y += float64(len(free))*(barH+2) + gap
}

// members are lanes of availability, with who leads.
func (d *drawing) members() {
	if len(d.h.Probes) == 0 && len(d.h.Leaders) == 0 {
		return
	}
	d.Texts = append(d.Texts, text{left, d.y - 5, "head", "probes answered, by member; a line above: it leads"})
	for _, m := range d.h.Members {
		d.label(d.y+14, "", "%s", d.h.Name(m.ID))
		var ok, all [buckets]int
		for _, p := range d.h.Probes {
			if p.Member == m.ID {
				i := d.bucket(p.Call)
				all[i]++
				if p.OK {
					ok[i]++
				}
			}
		}
		for i := range all {
			if all[i] == 0 {
				continue
			}
			class, share := "up", float64(ok[i])/float64(all[i])
			if share < 0.5 {
				class = "down"
			} else if share < 1 {
				class = "partly"
			}
			d.Boxes = append(d.Boxes, box{d.bucketX(i), d.y + 5, bucketW + 0.2, barH, class, 1,
				fmt.Sprintf("%s at %s: %d of %d probes answered", m.Name, d.timeOf(i), ok[i], all[i])})
		}
		d.leads(m)
		d.y += barH + 11
	}
	d.y += gap - 4
}

// leads draws when a member led, by its own word.
func (d *drawing) leads(m history.Member) {
	var since *history.Leader
	end := func(at time.Duration) {
		if since != nil {
			d.bar(since.At, at, d.y, 4, "leads", 1, fmt.Sprintf("%s leads term %d, %s to %s", m.Name, since.Term, short(since.At), short(at)))
			since = nil
		}
	}
	for i := range d.h.Leaders {
		if l := &d.h.Leaders[i]; l.Member == m.ID {
			end(l.At)
			if l.Leader == m.ID {
				since = l
			}
		}
	}
	end(d.h.End)
}

func (d *drawing) timeOf(i int) string {
	return short(time.Duration(float64(i) / buckets * d.Seconds * float64(time.Second)))
}

// calls is how many calls ended how, by when they were made.
func (d *drawing) calls() {
	var n [3][buckets]int
	most := 1
	for _, op := range d.h.Ops {
		kind := 0
		switch op.Outcome {
		case history.Refused:
			kind = 1
		case history.Unknown:
			kind = 2
		}
		n[kind][d.bucket(op.Call)]++
	}
	for i := range buckets {
		most = max(most, n[0][i]+n[1][i]+n[2][i])
	}
	rate := float64(buckets) / d.Seconds
	d.head("calls a second: answered, refused, unknown")
	d.label(d.y+10, "", "%s/s", count(int(float64(most)*rate)))
	d.label(d.y+chartH, "", "0")
	for i := range buckets {
		y := d.y + chartH
		for kind, class := range []string{"ok", "refused", "unknown"} {
			if n[kind][i] == 0 {
				continue
			}
			h := chartH * float64(n[kind][i]) / float64(most)
			if kind > 0 {
				h = max(h, 1.5) // few are worth seeing
			}
			y -= h
			d.Boxes = append(d.Boxes, box{d.bucketX(i), y, bucketW - 0.6, h, class, 1,
				fmt.Sprintf("%s: %s %s, %.0f a second", d.timeOf(i), count(n[kind][i]), class, float64(n[kind][i])*rate)})
		}
	}
	d.y += chartH + gap + 14
}

func (d *drawing) head(words string) {
	d.Texts = append(d.Texts, text{left, d.y - 5, "head", words})
}

// row is where a latency stands on the logarithmic scale, from 0 to 1.
func scale(t time.Duration) float64 {
	return min(1, max(0, math.Log(float64(t)/float64(lowest))/math.Log(float64(highest)/float64(lowest))))
}

func (d *drawing) scaleLabels() {
	for _, t := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second} {
		y := d.y + chartH*1.4*(1-scale(t))
		d.label(y+4, "", "%s", short(t))
		d.Boxes = append(d.Boxes, box{left, y, width, 0.6, "rule", 1, ""})
	}
}

// latencies is a map of how many calls took how long.
func (d *drawing) latencies() {
	var n [buckets][rows]int
	most := 1
	for _, op := range d.h.Ops {
		if op.Outcome != history.OK {
			continue
		}
		i, r := d.bucket(op.Call), min(rows-1, int(scale(op.Return-op.Call)*rows))
		n[i][r]++
		most = max(most, n[i][r])
	}
	d.head("time to the answer, by when the call was made")
	d.scaleLabels()
	h := chartH * 1.4 / rows
	for i := range n {
		for r, k := range n[i] {
			if k == 0 {
				continue
			}
			d.Boxes = append(d.Boxes, box{d.bucketX(i), d.y + chartH*1.4 - float64(r+1)*h, bucketW + 0.2, h + 0.2, "heat",
				0.12 + 0.88*math.Sqrt(float64(k)/float64(most)), fmt.Sprintf("%s: %s calls of about %s", d.timeOf(i), count(k), short(middle(r)))})
		}
	}
	d.y += chartH*1.4 + gap + 14
}

// middle is the latency that a row stands for.
func middle(row int) time.Duration {
	return time.Duration(float64(lowest) * math.Pow(float64(highest)/float64(lowest), (float64(row)+0.5)/rows))
}

// lag is how long after somebody knew a revision watches were told of it.
func (d *drawing) lag() {
	var late [buckets][]time.Duration
	known := firstKnown(d.h)
	for _, w := range d.h.Watches {
		for i, r := range w.Responses {
			n := len(r.Events)
			if n == 0 || i >= len(w.At) {
				continue
			}
			if from, ok := known[r.Events[n-1].Kv.ModRevision]; ok {
				b := d.bucket(w.At[i])
				late[b] = append(late[b], max(lowest, w.At[i]-max(from, w.Opened)))
			}
		}
	}
	if len(known) == 0 || len(d.h.Watches) == 0 {
		return
	}
	d.head("watches: how long after an event was known it was delivered; median, 99th of a hundred, longest")
	d.scaleLabels()
	for class, q := range map[string]float64{"median": 0.5, "p99": 0.99, "longest": 1} {
		points, empty := "", 0
		for i := range late {
			if len(late[i]) == 0 {
				empty++
				continue
			}
			if empty > 3 && points != "" { // nothing happened for a while
				d.Lines = append(d.Lines, line{"lag " + class, points})
				points = ""
			}
			empty = 0
			slices.Sort(late[i])
			points += fmt.Sprintf("%.1f,%.1f ", d.bucketX(i)+bucketW/2, d.y+chartH*1.4*(1-scale(at(late[i], q))))
		}
		d.Lines = append(d.Lines, line{"lag " + class, points})
	}
	d.y += chartH*1.4 + gap + 14
}

// firstKnown is when a client was first told of each revision that a call made.
func firstKnown(h *history.History) map[int64]time.Duration {
	known := map[int64]time.Duration{}
	for _, op := range h.Ops {
		if rev := op.Revision(); rev > 0 {
			if was, ok := known[rev]; !ok || op.Return < was {
				known[rev] = op.Return
			}
		}
	}
	return known
}

// memory is what members' processes hold.
func (d *drawing) memory() {
	var most int64 = 1
	for _, s := range d.h.Samples {
		most = max(most, s.RSS)
	}
	if len(d.h.Samples) == 0 {
		return
	}
	d.head("memory of each member")
	d.label(d.y+10, "", "%d MiB", most>>20)
	d.label(d.y+chartH*0.7, "", "0")
	for i, m := range d.h.Members {
		points := ""
		for _, s := range d.h.Samples {
			if s.Member == m.ID {
				points += fmt.Sprintf("%.1f,%.1f ", d.x(s.At), d.y+chartH*0.7*(1-float64(s.RSS)/float64(most)))
			}
		}
		d.Lines = append(d.Lines, line{fmt.Sprintf("memory m%d", i%5), points})
	}
	d.y += chartH*0.7 + gap
}

// axis is time, below all lanes.
func (d *drawing) axis() {
	step := niceStep(d.Seconds / 10)
	for t := 0.0; t <= d.Seconds; t += step {
		x := left + width*t/d.Seconds
		d.Boxes = append(d.Boxes, box{x, d.Top, 0.6, d.y - d.Top, "rule", 1, ""})
		d.Texts = append(d.Texts, text{x, d.y + 14, "tick", fmt.Sprintf("%g s", t)})
	}
	if d.h.Healed > 0 {
		d.Boxes = append(d.Boxes, box{d.x(d.h.Healed), d.Top, 1.2, d.y - d.Top, "healed", 1, "faults have ended"})
	}
}

// niceStep is 1, 2 or 5 times a power of ten.
func niceStep(least float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(least)))
	for _, f := range []float64{1, 2, 5, 10} {
		if f*power >= least {
			return f * power
		}
	}
	return 10 * power
}
