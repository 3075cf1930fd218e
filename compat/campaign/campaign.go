package campaign

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/load"
	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/client"
	"github.com/keelson-io/keelson/compat/cluster"
)

// Config of a campaign.
type Config struct {
	System cluster.System
	Dir    string // data directories, logs and, unless File is set, the history
	File   string // of the history
	Kills  int
	// Calls is how many must be answered before the campaign ends, at most by Limit.
	Calls  int64
	Limit  time.Duration
	Load   load.Config
	Via    string        // "etcd", "client", "direct", or "all" in turns
	Settle time.Duration // load between the return of a victim and the next kill
	Args   []string
	// MinRate is how many calls a second must be answered before the first kill:
	// with fewer the campaign says nothing.
	MinRate float64
	// Checker is a program that is run on each member's data directory after a
	// clean stop and must exit with 0; empty: none.
	Checker  string
	Meta     history.Meta // commit, command, machine and replay line
	Progress func(string)
}

// Result of a campaign.
type Result struct {
	File     string
	History  *history.History
	Rate     float64 // answered calls a second, before the first kill
	FirstAck []time.Duration
	Judging  time.Duration
}

// Violations are what the oracles found.
func (r Result) Violations() (out []string) {
	for _, v := range r.History.Verdicts {
		for _, f := range v.Findings {
			out = append(out, v.Oracle+" "+f)
		}
	}
	return out
}

// Run runs a campaign and judges it.
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
	r := &run{Config: cfg, cluster: c, ids: map[*cluster.Member]uint64{}}
	if res.File = cfg.File; res.File == "" {
		res.File = filepath.Join(cfg.Dir, "history")
	}
	if err := r.record(ctx, res.File); err != nil {
		return res, err
	}
	if err := errors.Join(r.drive(ctx), r.rec.Close()); err != nil {
		return res, fmt.Errorf("%w; what was recorded is in %s", err, res.File)
	}
	res.Rate = r.rate
	if res.History, err = history.Open(res.File); err != nil {
		return res, err
	}
	begin := time.Now()
	oracle.Judge(res.History, func() time.Duration { return time.Since(begin) })
	res.Judging = time.Since(begin)
	if err := history.AppendVerdicts(res.File, res.History.Verdicts); err != nil {
		return res, err
	}
	for _, f := range res.History.Faults {
		if d, ok := oracle.FirstAck(res.History, f); ok {
			res.FirstAck = append(res.FirstAck, d)
		}
	}
	return res, r.inspect(ctx)
}

// run is a campaign that goes on.
type run struct {
	Config
	cluster *cluster.Cluster
	rec     *history.Recorder
	began   time.Time
	ids     map[*cluster.Member]uint64
	members []history.Member
	rate    float64
	shared  [libraries]*load.Conn
}

// record begins the history.
func (r *run) record(ctx context.Context, file string) error {
	for _, m := range r.cluster.Members {
		s, err := m.Status(ctx)
		if err != nil {
			return err
		}
		r.ids[m] = s.Header.MemberId
		r.members = append(r.members, history.Member{ID: s.Header.MemberId, Name: m.Name, Endpoint: m.Endpoint})
	}
	meta := r.Meta
	meta.Ring, meta.Seed, meta.Began, meta.Members, meta.Election = "campaign", r.Load.Seed, time.Now(), r.members, time.Second
	w, err := history.Create(file, meta)
	if err != nil {
		return err
	}
	r.began, r.rec = meta.Began, history.NewRecorder(w)
	return nil
}

// dial gives clients their way to the cluster, in turns if there are several.
func (r *run) dial(n int) (load.Conn, error) {
	ways := []string{"etcd", "client", "direct"}
	if r.Via != "all" {
		ways = []string{r.Via}
	}
	switch way := ways[n%len(ways)]; way {
	case "etcd":
		return dialEtcd(r.cluster.Endpoints())
	case "client":
		return r.library(n)
	case "direct":
		return load.Direct(r.members[n%len(r.members)])
	default:
		return load.Conn{}, fmt.Errorf("there is no way %q to the cluster", way)
	}
}

// libraries is how many of our clients the load's clients share: calls that are
// made at the same time through one go through one stream.
const libraries = 4

func (r *run) library(n int) (load.Conn, error) {
	n %= libraries
	if r.shared[n] == nil {
		c, err := load.Client(client.Config{Endpoints: r.cluster.Endpoints(), DialTimeout: time.Second})
		if err != nil {
			return load.Conn{}, err
		}
		r.shared[n] = &c
	}
	return *r.shared[n], nil // closing one again does nothing
}

// warmUp is how long load goes on before the first kill.
const warmUp = 3 * time.Second

// drive runs the load, and kills.
func (r *run) drive(ctx context.Context) error {
	l, err := load.Start(ctx, r.rec, r.Load, r.members, r.dial)
	if err != nil {
		return err
	}
	usage, stop := context.WithCancel(ctx)
	defer stop()
	go r.sample(usage) // ends with usage
	time.Sleep(warmUp)
	if r.rate = float64(l.Acked()) / r.rec.Now().Seconds(); r.rate < r.MinRate {
		err = fmt.Errorf("%.0f calls a second were answered before the first kill, which says nothing: %.0f must be", r.rate, r.MinRate)
	}
	began := time.Now()
	for i := 0; i < r.Kills && err == nil; i++ {
		time.Sleep(r.Settle)
		if err = r.kill(ctx); err == nil {
			r.Progress(fmt.Sprintf("kill %d of %d, %d calls answered so far", i+1, r.Kills, l.Acked()))
		}
	}
	for l.Acked() < r.Calls && time.Since(began) < r.Limit && err == nil {
		time.Sleep(r.Settle)
	}
	r.rec.Healed(r.rec.Now())
	time.Sleep(r.Settle)
	finish, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err = errors.Join(err, l.Finish(finish))
	return errors.Join(err, r.logs())
}

// inspect stops the members and runs the checker on what they left.
func (r *run) inspect(ctx context.Context) (err error) {
	for _, m := range r.cluster.Members {
		err = errors.Join(err, m.Stop(20*time.Second))
	}
	if r.Checker == "" {
		return err
	}
	for _, m := range r.cluster.Members {
		text, e := exec.CommandContext(ctx, r.Checker, m.DataDir()).CombinedOutput()
		if e != nil {
			err = errors.Join(err, fmt.Errorf("%s of %s: %w\n%s", r.Checker, m.Name, e, text))
		}
	}
	return err
}

// Distribution says how the times to first ack are spread.
func Distribution(times []time.Duration) string {
	if len(times) == 0 {
		return "no kills"
	}
	ds := slices.Sorted(slices.Values(times))
	at := func(p float64) time.Duration {
		return ds[min(len(ds)-1, int(p*float64(len(ds))))].Round(time.Millisecond)
	}
	var all []string
	for _, d := range ds {
		all = append(all, d.Round(time.Millisecond).String())
	}
	return fmt.Sprintf("min %v, median %v, p90 %v, p99 %v, max %v\nall: %s", at(0), at(0.5), at(0.9), at(0.99), at(1), strings.Join(all, " "))
}
