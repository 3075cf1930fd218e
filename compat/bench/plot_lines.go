package bench

import (
	"fmt"
	"image/color"
	"io"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colors of lines: the left store's, the right one's, and what went on meanwhile.
var (
	lineColors = []color.Color{color.RGBA{0xd9, 0x8b, 0x2b, 0xff}, color.RGBA{0x1f, 0x6f, 0xc4, 0xff}}
	paleColors = []color.Color{color.RGBA{0xf0, 0xd0, 0xa0, 0xff}, color.RGBA{0xa5, 0xc8, 0xf0, 0xff}}
	spanColor  = color.RGBA{0xee, 0xee, 0xee, 0xff}
)

func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.X.Tick.Marker, p.Y.Tick.Marker = shortTicks{plot.DefaultTicks{}}, shortTicks{plot.DefaultTicks{}}
	p.Add(plotter.NewGrid())
	return p
}

// shortTicks are another one's, labelled 10k and 1M.
type shortTicks struct{ plot.Ticker }

func (s shortTicks) Ticks(low, high float64) []plot.Tick {
	ticks := s.Ticker.Ticks(low, high)
	for i, t := range ticks {
		switch {
		case t.Label == "":
		case t.Value >= 1e6:
			ticks[i].Label = fmt.Sprintf("%gM", t.Value/1e6)
		case t.Value >= 1e3:
			ticks[i].Label = fmt.Sprintf("%gk", t.Value/1e3)
		default:
			ticks[i].Label = fmt.Sprintf("%g", t.Value)
		}
	}
	return ticks
}

// tile draws plots below or beside each other, their axes aligned.
func tile(w io.Writer, plots [][]*plot.Plot, width, height vg.Length) error {
	canvas := vgsvg.New(width, height)
	dc := draw.New(canvas)
	tiles := draw.Tiles{Rows: len(plots), Cols: len(plots[0]), PadX: 8 * vg.Millimeter, PadY: 4 * vg.Millimeter,
		PadTop: 3 * vg.Millimeter, PadBottom: 3 * vg.Millimeter, PadLeft: 4 * vg.Millimeter, PadRight: 6 * vg.Millimeter}
	for i, row := range plot.Align(plots, tiles, dc) {
		for j, part := range row {
			plots[i][j].Draw(part)
		}
	}
	_, err := canvas.WriteTo(w)
	return err
}

// SVG draws the timeline: a panel for each store, both with the same axes.
func (l *Timeline) SVG(w io.Writer) error {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	var plots [][]*plot.Plot
	most, end := 1.0, 0.0
	for _, s := range l.Series {
		for _, slot := range s.Slots {
			most, end = max(most, slot.Most), max(end, slot.At)
		}
	}
	for n, s := range l.Series {
		p := newPlot(fmt.Sprintf("%s: how long writes take, %d clients one after the other (%s)", s.Store, timelineWriters, l.Began.Format("2006-01-02")), "seconds", "ms")
		p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, end, leastMs, most*spanRoom
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, shortTicks{plot.LogTicks{}}
		if err := s.addTo(p, n%len(lineColors), most); err != nil {
			return err
		}
		plots = append(plots, []*plot.Plot{p})
	}
	return tile(w, plots, 25*vg.Centimeter, vg.Length(len(plots))*9*vg.Centimeter)
}

const (
	leastMs  = 0.3 // where the scale begins
	spanRoom = 12  // times the longest write: room for the spans' names
)

func (s *Series) addTo(p *plot.Plot, n int, most float64) error {
	for _, span := range s.Spans {
		if err := span.shade(p); err != nil {
			return err
		}
	}
	for i, span := range s.Spans {
		if err := span.name(p, most*[]float64{5, 1.8}[i%2]); err != nil { // neighbours' names must not overlap
			return err
		}
	}
	// A line ends where no write began, and goes on where one did.
	var typical, longest []plotter.XYs
	for i, slot := range s.Slots {
		if i == 0 || (slot.Writes > 0) != (s.Slots[i-1].Writes > 0) {
			typical = append(typical, nil)
		}
		if last := len(typical) - 1; slot.Writes > 0 {
			typical[last] = append(typical[last], plotter.XY{X: slot.At, Y: max(leastMs, slot.Typical)})
		}
		if i == 0 {
			longest = append(longest, nil)
		}
		longest[0] = append(longest[0], plotter.XY{X: slot.At, Y: max(leastMs, slot.Most)})
	}
	for _, part := range []struct {
		name  string
		lines []plotter.XYs
		color color.Color
	}{{"the longest write under way", longest, lineColors[n]}, {"the median of those that began", typical, paleColors[n]}} {
		named := false
		for _, xys := range part.lines {
			if len(xys) == 0 {
				continue
			}
			line, err := plotter.NewLine(xys)
			if err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
			line.Color = part.color
			p.Add(line)
			if !named {
				p.Legend.Add(part.name, line)
				named = true
			}
		}
	}
	p.Legend.Left = true
	return nil
}

// shade marks the time of a span.
func (s Span) shade(p *plot.Plot) error {
	top := p.Y.Max
	area, err := plotter.NewPolygon(plotter.XYs{{X: s.From, Y: leastMs}, {X: s.To, Y: leastMs}, {X: s.To, Y: top}, {X: s.From, Y: top}})
	if err != nil {
		return err
	}
	area.Color, area.LineStyle.Width = spanColor, 0
	p.Add(area)
	return nil
}

// name writes what a span is at a height.
func (s Span) name(p *plot.Plot, height float64) error {
	at, align := s.From, text.XLeft
	if s.From > 0.8*p.X.Max {
		at, align = s.To, text.XRight
	}
	name, err := plotter.NewLabels(plotter.XYLabels{
		XYs: plotter.XYs{{X: at, Y: height}}, Labels: []string{fmt.Sprintf("%s (%.2g s)", s.What, s.To-s.From)},
	})
	if err != nil {
		return err
	}
	name.TextStyle[0].XAlign = align
	p.Add(name)
	return nil
}

// growthRows are the rows whose figures are one thing measured at several sizes. The
// name of a figure is the thing's and the size.
var growthRows = []struct{ name, title, x string }{
	{growthKeys, "cost as keys grow", "keys"},
	{growthWatchers, "cost as watchers grow", "watchers"},
}

// drawGrowth draws those rows side by side.
func (r *Report) drawGrowth(w io.Writer) error {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	var plots []*plot.Plot
	for _, g := range growthRows {
		i := slices.IndexFunc(r.Rows, func(row RowReport) bool { return row.Name == g.name && len(row.Metrics) > 0 })
		if i < 0 {
			continue
		}
		p := newPlot(g.title, g.x, "µs of server CPU")
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, shortTicks{plot.LogTicks{}}
		p.Y.Min = 0
		p.Legend.Top, p.Legend.Left = true, true
		if err := r.addGrowth(p, r.Rows[i]); err != nil {
			return err
		}
		p.Y.Max *= 1.3 // room for the legend
		plots = append(plots, p)
	}
	return tile(w, [][]*plot.Plot{plots}, vg.Length(len(plots))*13*vg.Centimeter, 9*vg.Centimeter)
}

func (r *Report) addGrowth(p *plot.Plot, row RowReport) error {
	var things []string
	points := map[string][2]plotter.XYs{}
	for _, m := range row.Metrics {
		thing, size, _ := strings.Cut(m.Name, " ")
		x, err := strconv.ParseFloat(size, 64)
		if err != nil {
			continue // not measured at sizes
		}
		if !slices.Contains(things, thing) {
			things = append(things, thing)
		}
		both := points[thing]
		both[0], both[1] = append(both[0], plotter.XY{X: x, Y: m.Left}), append(both[1], plotter.XY{X: x, Y: m.Right})
		points[thing] = both
	}
	for n, thing := range things {
		for store, xys := range points[thing] {
			line, dots, err := plotter.NewLinePoints(xys)
			if err != nil {
				return err
			}
			line.Color, dots.Color, dots.Shape = lineColors[store], lineColors[store], draw.CircleGlyph{}
			if n > 0 {
				line.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
			}
			p.Add(line, dots)
			p.Legend.Add([]string{r.Left, r.Right}[store]+", "+thing, line, dots)
		}
	}
	return nil
}
