package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// colour is one of a terminal's.
type colour string

const (
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
)

// colourful reports whether w is a terminal that wants colours (NO_COLOR says
// that it does not).
func (a *app) colourful(w io.Writer) bool {
	env := environment(a.environ)
	return terminal(w) && env["NO_COLOR"] == "" && env["TERM"] != "dumb"
}

// paint colours a text for the output.
func (a *app) paint(c colour, s string) string {
	if !a.colours {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

// refreshing is the --watch of a command that shows a state.
type refreshing struct {
	on    bool
	every time.Duration
}

func (r *refreshing) define(c *cobra.Command) {
	c.Flags().BoolVarP(&r.on, "watch", "W", false, "again and again, until interrupted")
	c.Flags().DurationVar(&r.every, "interval", 2*time.Second, "how often --watch looks")
}

// refresh shows something once, or with --watch again and again: on a terminal
// in the same place. What fails is told, and looked at again.
func (a *app) refresh(ctx context.Context, r *refreshing, show func(ctx context.Context) error) error {
	if !r.on {
		return show(ctx)
	}
	if r.every <= 0 {
		return usage("--interval must be >0")
	}
	out := a.out
	defer func() { a.out = out }()
	for {
		var page strings.Builder
		a.out = &page
		err := show(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if terminal(out) {
			io.WriteString(out, "\x1b[H\x1b[2J")
		}
		io.WriteString(out, page.String())
		if err != nil {
			fmt.Fprintf(a.errs, "kvctl: %v\n", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(r.every):
		}
	}
}
