package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progress draws a bar on a terminal, and nothing elsewhere.
type progress struct {
	w     io.Writer // nil: nobody looks
	what  string
	start time.Time
	drawn time.Time
}

const (
	barWidth  = 30
	barPeriod = 100 * time.Millisecond
)

func (a *app) progress(what string) *progress {
	p := &progress{what: what, start: time.Now()}
	if terminal(a.errs) {
		p.w = a.errs
	}
	return p
}

// at shows that done of total bytes are through; total 0: nobody knows.
func (p *progress) at(done, total int64) {
	if p.w == nil || time.Since(p.drawn) < barPeriod && done < total {
		return
	}
	p.drawn = time.Now()
	rate := size(int64(float64(done) / max(time.Since(p.start).Seconds(), 0.001)))
	if total <= 0 {
		fmt.Fprintf(p.w, "\r\x1b[K%s %s, %s/s", p.what, size(done), rate)
		return
	}
	p.draw(float64(done)/float64(total), fmt.Sprintf("%s of %s, %s/s", size(done), size(total), rate))
}

// step shows that a share of the work is done, in whatever it is counted.
func (p *progress) step(share float64, text string) {
	if p.w == nil || time.Since(p.drawn) < barPeriod && share < 1 {
		return
	}
	p.drawn = time.Now()
	p.draw(share, text)
}

func (p *progress) draw(share float64, text string) {
	share = min(max(share, 0), 1)
	full := int(share * barWidth)
	fmt.Fprintf(p.w, "\r\x1b[K%s [%s%s] %3d%% %s", p.what, strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), int(share*100), text)
}

// note shows a line of its own making.
func (p *progress) note(text string) {
	if p.w == nil || time.Since(p.drawn) < barPeriod {
		return
	}
	p.drawn = time.Now()
	fmt.Fprintf(p.w, "\r\x1b[K%s", text)
}

// done ends the line.
func (p *progress) done() {
	if p.w != nil && !p.drawn.IsZero() {
		fmt.Fprintln(p.w)
	}
}
