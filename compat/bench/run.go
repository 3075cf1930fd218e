package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/keelson-io/keelson/compat/cluster"
)

// Config of a run.
type Config struct {
	Left, Right cluster.System
	Rows        []string // names; empty: all
	Rounds      int
	Duration    time.Duration // of a round
	Dir         string        // data directories
	Commit      string        // of what is measured, and the command that does: for the report
	Command     string
	Progress    func(string)
	Ceiling     func(ctx context.Context, d time.Duration, clients int) (map[string]float64, error)
}

// Run measures the rows, alternating between the stores, and gives the report. A
// row that fails is reported with its error and does not end the run.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	rows, err := chosen(cfg.Rows)
	if err != nil {
		return nil, err
	}
	rep := newReport(cfg)
	var targets [2]*target
	shared := slices.ContainsFunc(rows, func(r Row) bool { return !r.Own })
	for i, sys := range []cluster.System{cfg.Left, cfg.Right} {
		dir := filepath.Join(cfg.Dir, fmt.Sprint(i))
		targets[i] = &target{system: sys, dir: dir}
		if !shared {
			continue
		}
		t, err := newTarget(ctx, sys, dir)
		targets[i] = t
		defer t.close()
		if err != nil {
			return rep, err
		}
	}
	for _, row := range rows {
		cfg.Progress(row.Name)
		rr := measure(ctx, cfg, row, targets)
		rr.From = Origin{Began: rep.Began.UTC().Truncate(time.Second), Commit: cfg.Commit, Command: cfg.Command, Rounds: cfg.Rounds}
		rep.Rows = append(rep.Rows, rr)
		if ctx.Err() != nil {
			return rep, ctx.Err()
		}
	}
	rep.Took = time.Since(rep.Began).Round(time.Second).String()
	return rep, nil
}

func measure(ctx context.Context, cfg Config, row Row, targets [2]*target) RowReport {
	rr := RowReport{Name: row.Name, Title: row.Title}
	if row.Clients > 0 && cfg.Ceiling != nil {
		var err error
		if rr.Ceiling, err = cfg.Ceiling(ctx, cfg.Duration, row.Clients); err != nil {
			rr.Error = fmt.Sprintf("empty server: %v", err)
			return rr
		}
	}
	rounds := cfg.Rounds
	if row.Own {
		rounds = 1 // it measures several times itself, or takes long
	}
	var samples [2][]map[string]float64
	for _, t := range targets {
		if row.Setup == nil {
			continue
		}
		if err := row.Setup(ctx, t); err != nil {
			rr.Error = fmt.Sprintf("%s: prepare: %v", t.system.Name, err)
			return rr
		}
	}
	for range rounds {
		for i, t := range targets {
			s, err := row.Round(ctx, t, cfg.Duration)
			if err != nil {
				rr.Error = fmt.Sprintf("%s: %v", t.system.Name, err)
				return rr
			}
			samples[i] = append(samples[i], s)
			cfg.Progress(fmt.Sprintf("%s: %s: %v", row.Name, t.system.Name, s)) // a run that is cut short is not lost
			time.Sleep(200 * time.Millisecond)                                  // let the other one's background work start elsewhere
		}
	}
	for _, m := range row.Metrics {
		rr.Metrics = append(rr.Metrics, newMetricReport(m, samples))
	}
	return rr
}

func chosen(names []string) ([]Row, error) {
	all := Rows()
	if len(names) == 0 {
		return slices.DeleteFunc(all, func(r Row) bool { return r.Apart }), nil
	}
	var out []Row
	for _, n := range names {
		i := slices.IndexFunc(all, func(r Row) bool { return r.Name == n })
		if i < 0 {
			return nil, fmt.Errorf("no row is called %q", n)
		}
		out = append(out, all[i])
	}
	return out, nil
}
