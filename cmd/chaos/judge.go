package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/chaos/workload"
)

// judge lets the oracles look at a history.
func judge(args []string) error {
	f := flags("judge")
	calls := f.Int("make", 0, "judge a history of so many calls that is made up, instead of a file")
	clients := f.Int("clients", 64, "with -make: clients that call at the same time")
	seed := f.Uint64("seed", 1, "with -make: the seed")
	out := f.String("o", "", "write the history with the verdicts to this file")
	keep := f.Bool("keep", false, "add the verdicts to the file")
	if err := f.Parse(args); err != nil {
		return err
	}
	begin := time.Now()
	var h *history.History
	var err error
	if *calls > 0 {
		h = workload.Make(*seed, *calls, *clients)
		fmt.Printf("made %d calls of %d clients in %v\n", len(h.Ops), *clients, time.Since(begin).Round(time.Millisecond))
	} else if h, err = openHistory(f.Arg(0)); err != nil {
		return err
	}
	begin = time.Now()
	oracle.Judge(h, func() time.Duration { return time.Since(begin) })
	took := time.Since(begin)
	if err := h.Show(os.Stdout, 0, 0, true); err != nil {
		return err
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	fmt.Printf("judged in %v, %.2f GiB taken from the system\n", took.Round(time.Millisecond), float64(mem.Sys)/(1<<30))
	switch {
	case *out != "":
		w, err := history.Create(*out, h.Meta)
		if err != nil {
			return err
		}
		w.History(h)
		if err := w.Close(); err != nil {
			return err
		}
	case *keep && *calls == 0:
		if err := history.AppendVerdicts(f.Arg(0), h.Verdicts); err != nil {
			return err
		}
	}
	for _, v := range h.Verdicts {
		if len(v.Findings) > 0 {
			return errors.New("something was found")
		}
	}
	return nil
}
