package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/chaos/real"
)

// realRun is what `chaos real` was asked for.
type realRun struct {
	plan    real.Plan
	hold    real.Hold
	fault   string
	class   string
	kvd     string
	tuned   string
	older   string
	race    bool
	results string
	seeds   int
	whole   bool // each row of the catalogue must happen
	day     string
	list    bool
	verbose bool
}

// realProcesses runs faults against real processes.
func realProcesses(args []string) error {
	f := flags("real")
	var o realRun
	f.StringVar(&o.fault, "fault", "", "a fault by name; two joined by + happen in turns; all: each of the catalogue; mixed: pairs by chance")
	f.StringVar(&o.class, "class", "", "only faults of this class; two joined by +: one of each in turns, drawn for each run")
	f.BoolVar(&o.whole, "catalogue", false, "each fault of the catalogue once, and fail if a row was not reached")
	f.Uint64Var(&o.plan.Seed, "seed", 0, "the first seed; 0: one from the clock")
	f.StringVar(&o.day, "rotation", "", "the faults of this day, as in 2026-11-21, once each: in a week all come up that take no more than a minute")
	f.IntVar(&o.seeds, "seeds", 1, "how many runs of each, with consecutive seeds")
	f.DurationVar(&o.plan.Limit, "for", 0, "begin no run after so long")
	f.IntVar(&o.plan.Times, "times", 0, "how often a fault happens in a run; 0: the fault's own number")
	f.DurationVar(&o.plan.Election, "election", 0, "election timeout; 0: drawn from the seed")
	f.StringVar(&o.kvd, "kvd", "", "the member's program; empty: it is built")
	f.StringVar(&o.tuned, "tuned", "", "the same, built with -tags chaos, for the faults that need it")
	f.StringVar(&o.older, "older", "HEAD~50", "the commit of the earlier build, for upgrades")
	f.BoolVar(&o.race, "race", false, "build it with the race detector")
	f.StringVar(&o.results, "results", "", "add what each run was to the sums in this file")
	f.StringVar(&o.plan.Keep, "keep", "", "folder for what failing runs leave")
	f.BoolVar(&o.plan.Stop, "stop", false, "end at the first failure")
	f.DurationVar(&o.hold.For, "hold", 0, "no fault by name: writes for so long, while the leader is killed every -every")
	f.IntVar(&o.hold.Rate, "rate", 2000, "with -hold: writes a second that clients ask for")
	f.DurationVar(&o.hold.Every, "every", 5*time.Second, "with -hold: from kill to kill")
	f.BoolVar(&o.list, "list", false, "list the faults")
	f.BoolVar(&o.verbose, "v", false, "tell what happens")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.list {
		for _, x := range real.Catalogue() {
			fmt.Printf("%2d  %-10s  %-22s  %s\n", x.Row, x.Class, x.Name, x.About)
		}
		return nil
	}
	if err := o.choose(); err != nil {
		return err
	}
	dir, inside, err := real.Enter(o.prepare)
	if err != nil || !inside {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(max(exit.ExitCode(), 1))
		}
		return err
	}
	return o.run(dir)
}

// seedEnv tells the process in the sandbox which seed was drawn outside: the faults
// that it draws from it decide what is built.
const seedEnv = "KEELSON_CHAOS_SEED"

// choose makes the rounds.
func (o *realRun) choose() error {
	if o.plan.Seed == 0 {
		o.plan.Seed, _ = strconv.ParseUint(os.Getenv(seedEnv), 10, 64) // none: 0
	}
	if o.plan.Seed == 0 {
		o.plan.Seed = uint64(time.Now().UnixNano()) >> 20
		os.Setenv(seedEnv, fmt.Sprint(o.plan.Seed))
	}
	switch {
	case o.hold.For < 0:
		return errors.New("-hold is how long the load lasts: more than 0")
	case o.hold.For > 0 && o.hold.Rate < 1:
		return errors.New("-rate is at least 1, as in -rate 2000")
	case o.hold.For > 0 && o.hold.Every < time.Second:
		return errors.New("-every is at least 1s: the others need an election between two kills")
	case o.hold.For > 0:
		return nil
	}
	var all []*real.Fault
	for _, f := range real.Catalogue() {
		if o.class == "" || slices.Contains(strings.Split(o.class, "+"), f.Class) {
			all = append(all, f)
		}
	}
	if o.whole {
		o.fault, o.plan.Times = "all", cmp.Or(o.plan.Times, 1)
	}
	if o.day != "" {
		return o.rotation()
	}
	if one, other, pair := strings.Cut(o.class, "+"); pair && o.fault == "" {
		return o.pair(one, other)
	}
	switch o.fault {
	case "all", "":
		for _, f := range all {
			for range o.seeds {
				o.plan.Rounds = append(o.plan.Rounds, []*real.Fault{f})
			}
		}
	case "mixed":
		o.mix(all)
	default:
		var faults []*real.Fault
		for _, name := range strings.Split(o.fault, "+") {
			f := real.Find(name)
			if f == nil {
				return fmt.Errorf("no fault is called %q; -list lists them", name)
			}
			faults = append(faults, f)
		}
		for range o.seeds {
			o.plan.Rounds = append(o.plan.Rounds, faults)
		}
	}
	return nil
}

// rotation makes the rounds of a day.
func (o *realRun) rotation() error {
	day, err := time.Parse(time.DateOnly, o.day)
	if err != nil {
		return fmt.Errorf("-rotation is a day, as in -rotation %s", time.Now().Format(time.DateOnly))
	}
	for _, f := range real.Rotation(day) {
		o.plan.Rounds = append(o.plan.Rounds, []*real.Fault{f})
	}
	o.plan.Times = cmp.Or(o.plan.Times, 1)
	return nil
}

// pair draws a fault of each of two classes, for each run.
func (o *realRun) pair(one, other string) error {
	r := rand.New(rand.NewPCG(o.plan.Seed, 2))
	for range o.seeds {
		var faults []*real.Fault
		for _, class := range []string{one, other} {
			if !slices.Contains(real.Classes, class) {
				return fmt.Errorf("no class is called %q; there are %s", class, strings.Join(real.Classes, ", "))
			}
			of := slices.DeleteFunc(real.Catalogue(), func(f *real.Fault) bool {
				return f.Class != class || len(faults) > 0 && !f.With(faults[0])
			})
			faults = append(faults, of[r.IntN(len(of))])
		}
		o.plan.Rounds = append(o.plan.Rounds, faults)
	}
	return nil
}

// mix draws pairs of faults of different classes, or of the two that were named.
func (o *realRun) mix(all []*real.Fault) {
	r := rand.New(rand.NewPCG(o.plan.Seed, 1))
	for range max(o.seeds, 1) * 1000 { // -for ends it
		a, b := all[r.IntN(len(all))], all[r.IntN(len(all))]
		if a.Class != b.Class && a.With(b) {
			o.plan.Rounds = append(o.plan.Rounds, []*real.Fault{a, b})
		}
	}
}

// prepare builds what the sandbox needs, outside of it.
func (o *realRun) prepare(dir string) error {
	if real.Commit() == real.Unknown { // `go run` does not say
		if out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output(); err == nil {
			os.Setenv(real.CommitEnv, strings.TrimSpace(string(out)))
		}
	}
	if o.some((*real.Fault).NeedsOlder) {
		if err := buildOlder(o.older, dir); err != nil {
			fmt.Fprintln(os.Stderr, "chaos: upgrades are left out:", err)
		}
	}
	if o.some(func(f *real.Fault) bool { return f.Tuned }) {
		if err := o.provide(o.tuned, filepath.Join(dir, tunedKvd), "-tags=chaos"); err != nil {
			return err
		}
	}
	return o.provide(o.kvd, filepath.Join(dir, "kvd"))
}

// some reports that a fault of the plan is such a one.
func (o *realRun) some(is func(*real.Fault) bool) bool {
	return slices.ContainsFunc(o.plan.Rounds, func(round []*real.Fault) bool { return slices.ContainsFunc(round, is) })
}

// tunedKvd is the build for chaos tests in the sandbox's folder.
const tunedKvd = "kvd-tuned"

// provide puts a member's program where the sandbox finds it: one that is there, or
// a fresh build.
func (o *realRun) provide(ready, to string, flags ...string) error {
	if ready != "" {
		path, err := filepath.Abs(ready)
		if err != nil {
			return err
		}
		return os.Symlink(path, to)
	}
	if o.race {
		flags = append(flags, "-race")
	}
	cmd := exec.Command("go", slices.Concat([]string{"build", "-o", to}, flags, []string{"github.com/keelson-io/keelson/cmd/kvd"})...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build kvd: %w", err)
	}
	return nil
}

// olderKvd is the earlier build in the sandbox's folder.
const olderKvd = "kvd-older"

// buildOlder builds the member's program of another commit, in a checkout of its
// own.
func buildOlder(commit, dir string) error {
	tree := filepath.Join(dir, "older")
	if out, err := exec.Command("git", "worktree", "add", "--quiet", "--detach", tree, commit).CombinedOutput(); err != nil {
		return fmt.Errorf("check %s out: %w: %s", commit, err, out)
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, olderKvd), "./cmd/kvd")
	cmd.Dir = tree
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build %s: %w: %s", commit, err, out)
	}
	return errors.Join(err, exec.Command("git", "worktree", "remove", "--force", tree).Run())
}

// run is the part inside the sandbox.
func (o *realRun) run(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o.plan.Binary, o.plan.Out = filepath.Join(dir, "kvd"), os.Stdout
	if older := filepath.Join(dir, olderKvd); exists(older) {
		o.plan.Older = older
	}
	if tuned := filepath.Join(dir, tunedKvd); exists(tuned) {
		o.plan.Tuned = tuned
	}
	if o.verbose {
		o.plan.Log = os.Stdout
	}
	var campaign real.Campaign
	if o.results != "" {
		var err error
		if campaign, err = real.ReadCampaign(o.results); err != nil {
			return err
		}
	}
	campaign.Rows = map[string]int{}
	for _, f := range real.Catalogue() {
		campaign.Rows[f.Name] = f.Row
	}
	if o.hold.For > 0 {
		return o.held(ctx, dir, &campaign)
	}
	machine := real.Machine()
	runs, writing := 0, error(nil)
	happened := map[string]int{}
	o.plan.Each = func(res real.Result) {
		runs++
		for name, n := range res.Happened {
			happened[name] += n
		}
		campaign.Add(res, machine)
		if o.results != "" && writing == nil {
			writing = campaign.Write(o.results)
		}
	}
	failed, err := real.Execute(ctx, dir, o.plan)
	if err := errors.Join(err, writing); err != nil {
		return err
	}
	if o.whole {
		err = reached(os.Stdout, happened)
	}
	if failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d runs failed", failed, runs))
	}
	return errors.Join(err, ctx.Err())
}

// held holds a load while leaders are killed.
func (o *realRun) held(ctx context.Context, dir string, campaign *real.Campaign) error {
	o.hold.Seed, o.hold.Binary, o.hold.Keep, o.hold.Log = o.plan.Seed, o.plan.Binary, o.plan.Keep, o.plan.Log
	h, err := o.hold.Execute(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Println(h.Line())
	if campaign.Holds = append(campaign.Holds, h); o.results != "" {
		err = campaign.Write(o.results)
	}
	if h.Failure != "" {
		err = errors.Join(err, errors.New("the run failed"))
	}
	return err
}

// reached tells how often the faults of each row happened, and fails at zero.
func reached(w io.Writer, happened map[string]int) error {
	var missing []string
	for _, row := range fault.Catalogue {
		sum := 0
		var parts []string
		for _, f := range real.Catalogue() {
			if f.Row == row.N {
				sum += happened[f.Name]
				parts = append(parts, fmt.Sprintf("%s %d", f.Name, happened[f.Name]))
			}
		}
		fmt.Fprintf(w, "%2d  %-45s %3d  %s\n", row.N, row.Name, sum, strings.Join(parts, ", "))
		if sum == 0 {
			missing = append(missing, fmt.Sprint(row.N))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("rows that were not reached: %s", strings.Join(missing, ", "))
	}
	return nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
