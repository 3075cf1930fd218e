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
	rate := float64(done) / max(time.Since(p.start).Seconds(), 0.001)
	if total <= 0 {
		fmt.Fprintf(p.w, "\r\x1b[K%s %s, %s/s", p.what, size(done), size(int64(rate)))
		return
	}
	full := int(min(done, total) * barWidth / total)
	fmt.Fprintf(p.w, "\r\x1b[K%s [%s%s] %3d%% %s of %s, %s/s", p.what, strings.Repeat("=", full), strings.Repeat(" ", barWidth-full),
		min(done, total)*100/total, size(done), size(total), size(int64(rate)))
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
