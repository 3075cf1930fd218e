package bench

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// A plot shows, for each figure that has a goal, how many times better the right
// store is than the left one, on a scale of doublings: the left store is the line
// at 1, the goal a mark.

// Sizes of a plot, in pixels.
const (
	plotWidth   = 950
	plotLabels  = 430 // the part on the left
	plotRow     = 22
	plotMargin  = 34
	plotDoubled = 64 // the width of one doubling
	plotMost    = 64 // factors beyond are cut
)

// SVG draws the report: bars, or lines if it is of growth.
func (r *Report) SVG(w io.Writer) error {
	for _, g := range growthRows {
		if slices.ContainsFunc(r.Rows, func(row RowReport) bool { return row.Name == g.name }) {
			return r.drawGrowth(w)
		}
	}
	return r.drawBars(w)
}

func (r *Report) drawBars(w io.Writer) error {
	var b strings.Builder
	var bars []plotBar
	for _, row := range r.Rows {
		for _, m := range row.Metrics {
			if m.Goal > 0 && m.Factor > 0 {
				bars = append(bars, plotBar{fmt.Sprintf("%s: %s", row.Title, m.Name), m, row.ceilingOf(m)})
			}
		}
	}
	height := plotMargin*2 + plotRow*len(bars)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", plotWidth, height)
	for f := 1.0; f <= plotMost; f *= 2 {
		x := plotX(f)
		fmt.Fprintf(&b, `<line x1="%.0f" x2="%.0f" y1="%d" y2="%d" stroke="%s"/><text x="%.0f" y="%d" text-anchor="middle">%g×</text>`+"\n",
			x, x, plotMargin-6, height-plotMargin, map[bool]string{true: "black", false: "#ddd"}[f == 1], x, plotMargin-12, f)
	}
	for i, bar := range bars {
		bar.draw(&b, plotMargin+i*plotRow)
	}
	fmt.Fprintf(&b, `<text x="8" y="%d" fill="#555">%s beside %s, the line at 1×. Black: the goal; dotted: a gRPC server that answers nothing. %s, %s</text>`+"\n</svg>\n",
		height-10, escaped(r.Right), escaped(r.Left), escaped(r.Machine), r.Began.Format("2006-01-02"))
	_, err := io.WriteString(w, b.String())
	return err
}

func plotX(factor float64) float64 {
	return plotLabels + plotDoubled*(1+math.Log2(min(max(factor, 0.5), plotMost)))
}

type plotBar struct {
	label string
	MetricReport
	ceiling float64 // the factor of a server that does nothing; 0: not known
}

func (row RowReport) ceilingOf(m MetricReport) float64 {
	c := row.Ceiling[m.Name]
	switch {
	case c == 0 || m.Left == 0:
		return 0
	case m.Higher:
		return c / m.Left
	}
	return m.Left / c
}

func (p plotBar) draw(b *strings.Builder, y int) {
	from, to := plotX(1), plotX(p.Factor)
	color := "#4a90d9"
	if strings.HasPrefix(p.verdict(), "BELOW") {
		color = "#d9534a"
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, plotLabels-8, y+15, escaped(p.label))
	fmt.Fprintf(b, `<rect x="%.0f" y="%d" width="%.0f" height="%d" fill="%s"/>`, min(from, to), y+4, max(1, math.Abs(to-from)), plotRow-8, color)
	fmt.Fprintf(b, `<line x1="%.0f" x2="%.0[1]f" y1="%d" y2="%d" stroke="black" stroke-width="2"/>`, plotX(p.Goal), y+2, y+plotRow-2)
	if p.ceiling > 0 {
		fmt.Fprintf(b, `<line x1="%.0f" x2="%.0[1]f" y1="%d" y2="%d" stroke="#777" stroke-width="2" stroke-dasharray="2,2"/>`, plotX(p.ceiling), y+2, y+plotRow-2)
	}
	fmt.Fprintf(b, `<text x="%.0f" y="%d">%.2f×</text>`+"\n", max(from, to, plotX(p.Goal), plotX(max(p.ceiling, 0.5)))+5, y+15, p.Factor)
}

func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}
