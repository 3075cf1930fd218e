package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/keelson-io/keelson/compat/bench"
	"github.com/keelson-io/keelson/compat/cluster"
)

// Names are the names and titles of all rows.
func Names() (out [][2]string) {
	for _, r := range rows() {
		out = append(out, [2]string{r.Name, r.Title})
	}
	return out
}

// Config of a run.
type Config struct {
	bench.Config
	// Side is the only side that is measured; empty: both.
	Side string
	// Profiles is a directory in which each row leaves profiles of the store's
	// process. Empty: none are taken.
	Profiles string
}

// Run measures the rows that cfg names, or all, and gives the report. A row that fails
// is reported with its error and does not end the run.
func Run(ctx context.Context, cfg Config) (*bench.Report, error) {
	cfg.Left, cfg.Right = cluster.System{Name: Left}, cluster.System{Name: Right}
	rep := bench.NewReport(cfg.Config)
	var shared []*side
	defer func() { closeSides(shared) }()
	for _, r := range rows() {
		if len(cfg.Rows) > 0 && !slices.Contains(cfg.Rows, r.Name) {
			continue
		}
		cfg.Progress(r.Name)
		var samples [2][]map[string]float64
		var err error
		if r.own {
			samples, err = alone(ctx, cfg, r)
		} else {
			if shared == nil {
				if shared, err = cfg.startSides(ctx); err != nil {
					return rep, err
				}
			}
			samples, err = inTurns(ctx, cfg, r, shared)
		}
		rep.Add(r.Row, samples, err)
		if ctx.Err() != nil {
			return rep, ctx.Err()
		}
	}
	return rep, nil
}

// names of the sides that are measured, in the report's columns.
func (cfg Config) names() [2]string {
	names := [2]string{Left, Right}
	for i := range names {
		if cfg.Side != "" && cfg.Side != names[i] {
			names[i] = ""
		}
	}
	return names
}

// startSides starts both sides with the pods that are listed.
func (cfg Config) startSides(ctx context.Context) ([]*side, error) {
	sides := make([]*side, 2)
	for i, name := range cfg.names() {
		if name == "" {
			continue
		}
		s, err := startSide(ctx, name, filepath.Join(cfg.Dir, fmt.Sprint(i)))
		sides[i] = s
		if err == nil {
			err = s.fill(ctx, 0, listed)
		}
		if err != nil {
			return sides, fmt.Errorf("%s: %w", name, err)
		}
	}
	return sides, nil
}

func closeSides(sides []*side) {
	for _, s := range sides {
		if s != nil {
			s.close()
		}
	}
}

// inTurns measures a row in rounds that alternate between the sides.
func inTurns(ctx context.Context, cfg Config, r row, sides []*side) (samples [2][]map[string]float64, err error) {
	for range cfg.Rounds {
		for i, s := range sides {
			if s == nil {
				continue
			}
			m, err := cfg.profiled(ctx, r, s)
			if err != nil {
				return samples, fmt.Errorf("%s: %w", s.name, err)
			}
			samples[i] = append(samples[i], m)
		}
	}
	return samples, nil
}

// alone measures a row once, with one side after the other on the machine.
func alone(ctx context.Context, cfg Config, r row) (samples [2][]map[string]float64, err error) {
	for i, name := range cfg.names() {
		if name == "" {
			continue
		}
		s, err := startSide(ctx, name, filepath.Join(cfg.Dir, r.Name, fmt.Sprint(i)))
		var m map[string]float64
		if err == nil {
			m, err = cfg.profiled(ctx, r, s)
		}
		s.close()
		if err != nil {
			return samples, fmt.Errorf("%s: %w", name, err)
		}
		samples[i] = append(samples[i], m)
	}
	return samples, nil
}

// profiled measures once. If profiles are wanted, they begin when the row says that
// what it has prepared is ready (side.ready).
func (cfg Config) profiled(ctx context.Context, r row, s *side) (map[string]float64, error) {
	if cfg.Profiles == "" {
		return r.measure(ctx, s, cfg.Duration)
	}
	taken := make(chan error, 1)
	s.ready = func() {
		s.ready = func() {}
		go func() {
			seconds := max(1, int(cfg.Duration.Seconds()))
			taken <- s.profile(ctx, fmt.Sprintf("profile?seconds=%d", seconds), filepath.Join(cfg.Profiles, r.Name+".cpu"))
		}()
	}
	m, err := r.measure(ctx, s, cfg.Duration)
	if err != nil {
		return m, err
	}
	return m, errors.Join(<-taken, s.profile(ctx, "heap", filepath.Join(cfg.Profiles, r.Name+".heap")))
}
