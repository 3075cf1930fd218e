package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/keelson-io/keelson/chaos/history"
)

// show prints a history.
func show(args []string) error {
	f := flags("show")
	from := f.Duration("from", 0, "leave out what happened before")
	to := f.Duration("to", math.MaxInt64, "leave out what happened after")
	brief := f.Bool("brief", false, "print only what the run was and what its judges said")
	if err := f.Parse(args); err != nil {
		return err
	}
	h, err := openHistory(f.Arg(0))
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	return errors.Join(h.Show(out, *from, *to, *brief), out.Flush())
}

// openHistory reads a file, or what its writer left of it.
func openHistory(name string) (*history.History, error) {
	if name == "" {
		return nil, errors.New("name a history file")
	}
	h, err := history.Open(name)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		fmt.Fprintf(os.Stderr, "%s ends inside a record, %v into the run: its writer was killed\n", name, h.End.Round(time.Millisecond))
		return h, nil
	}
	return h, err
}
