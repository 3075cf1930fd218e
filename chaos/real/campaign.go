//go:build linux

package real

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"
)

// Plan is what a campaign runs: rounds of seeds, each with some faults.
type Plan struct {
	Config
	Rounds [][]*Fault    // one run each, with consecutive seeds
	Limit  time.Duration // no run begins after it; 0: none
	Stop   bool          // end at the first failure
	Each   func(Result)  // hears of every run
	Out    io.Writer     // the progress line
}

// Execute runs a plan in a sandbox's folder.
func Execute(ctx context.Context, dir string, p Plan) (failed int, err error) {
	w, err := newWorld(filepath.Join(dir, memory), filepath.Base(dir), p.Seed)
	if err != nil {
		return 0, err
	}
	defer w.close()
	begin := time.Now()
	for i, faults := range p.Rounds {
		if ctx.Err() != nil || p.Limit > 0 && time.Since(begin) > p.Limit {
			break
		}
		cfg := p.Config
		cfg.Seed, cfg.Faults = p.Seed+uint64(i), faults
		res, err := w.run(ctx, cfg)
		if err != nil || ctx.Err() != nil {
			return failed, err
		}
		p.Each(res)
		if res.Failure != "" || res.Meaningless != "" {
			failed++
		}
		fmt.Fprintf(p.Out, "[%d/%d %v, %d failed] %s\n", i+1, len(p.Rounds), time.Since(begin).Round(time.Second), failed, res.Line())
		if failed > 0 && p.Stop {
			break
		}
	}
	return failed, nil
}
