package campaign

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/keelson-io/keelson/compat/cluster"
)

// Config of a campaign.
type Config struct {
	System  cluster.System
	Dir     string // data directories and logs
	Kills   int
	Writers int
	Settle  time.Duration // load between the return of a victim and the next kill
	Args    []string
	// Checker is a program that is run on each member's data directory after a
	// clean stop and must exit with 0; empty: none.
	Checker  string
	Progress func(string)
}

// Result of a campaign.
type Result struct {
	Kills      []Kill
	Acked      int64 // writes
	Unknown    int
	Reads      int64
	Events     int // in the history
	Violations []string
}

// Run runs a campaign.
func Run(ctx context.Context, cfg Config) (res Result, err error) {
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := cluster.Start(ctx, cfg.System, cluster.Options{Members: 3, Dir: cfg.Dir, Args: cfg.Args})
	if err != nil {
		return res, err
	}
	defer c.Close()
	l, err := startLoad(ctx, c, cfg.Writers)
	if err != nil {
		return res, err
	}
	defer l.close()
	p, err := newProber(c)
	if err != nil {
		return res, err
	}
	defer p.close()
	for i := range cfg.Kills {
		time.Sleep(cfg.Settle)
		victim, k, err := p.killLeader(ctx)
		if err != nil {
			return res, fmt.Errorf("kill %d: %w", i+1, err)
		}
		res.Kills = append(res.Kills, k)
		cfg.Progress(fmt.Sprintf("kill %d: %s, first ack after %v, %d writes acknowledged so far", i+1, k.Victim, k.FirstAck.Round(time.Millisecond), l.acked.Load()))
		if err := victim.Start(); err != nil {
			return res, err
		}
		if err := c.Ready(ctx); err != nil {
			return res, fmt.Errorf("after kill %d: %w", i+1, err)
		}
	}
	time.Sleep(cfg.Settle)
	if err := l.finish(ctx); err != nil {
		return res, err
	}
	var histories [][]Event
	for _, m := range c.Members {
		h, err := readHistory(ctx, m, lastKey)
		if err != nil {
			return res, err
		}
		histories = append(histories, h)
	}
	res.Violations = l.judge(histories)
	res.Events, res.Acked, res.Reads = len(histories[0]), l.acked.Load(), l.reads.Load()
	for _, ws := range l.mu.writes {
		for _, w := range ws {
			if !w.acked && !w.failed {
				res.Unknown++
			}
		}
	}
	violations, err := inspect(ctx, c, cfg.Checker)
	res.Violations = append(res.Violations, violations...)
	return res, err
}

// finish ends the load and waits until every watch told of the last key: they
// must get there within five seconds (plus a second of a busy machine's grace).
func (l *load) finish(ctx context.Context) error {
	close(l.stop)
	// Writers end within their call timeout; only then is the last key last.
	l.writers.Wait()
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := l.clients[0].Put(call, lastKey, "last"); err != nil {
		return fmt.Errorf("put of the last key: %w", err)
	}
	late := time.After(6 * time.Second)
	for _, w := range l.watches {
		select {
		case <-w.done:
		case <-late:
			w.mu.Lock()
			n := len(w.mu.events)
			w.mu.Unlock()
			return fmt.Errorf("the watch through %s stands at %d events, 6 s after the last write", w.through, n)
		}
	}
	return nil
}

// inspect stops the members and runs the checker on what they left.
func inspect(ctx context.Context, c *cluster.Cluster, checker string) (out []string, err error) {
	for _, m := range c.Members {
		if e := m.Stop(20 * time.Second); e != nil {
			err = errors.Join(err, e)
		}
	}
	if checker == "" {
		return nil, err
	}
	for _, m := range c.Members {
		text, e := exec.CommandContext(ctx, checker, m.DataDir()).CombinedOutput()
		if e != nil {
			out = append(out, fmt.Sprintf("%s of %s: %v\n%s", checker, m.Name, e, text))
		}
	}
	return out, err
}

func (l *load) close() {
	for _, c := range l.clients {
		c.Close()
	}
}

// Distribution says how the times to first ack are spread.
func Distribution(kills []Kill) string {
	if len(kills) == 0 {
		return "no kills"
	}
	var ds []time.Duration
	for _, k := range kills {
		ds = append(ds, k.FirstAck.Round(time.Millisecond))
	}
	slices.Sort(ds)
	at := func(p float64) time.Duration { return ds[min(len(ds)-1, int(p*float64(len(ds))))] }
	var all []string
	for _, d := range ds {
		all = append(all, d.String())
	}
	return fmt.Sprintf("min %v, median %v, p90 %v, p99 %v, max %v\nall: %s", ds[0], at(0.5), at(0.9), at(0.99), ds[len(ds)-1], strings.Join(all, " "))
}
