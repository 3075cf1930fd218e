//go:build linux

package real

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
)

// Config of a run.
type Config struct {
	Seed     uint64
	Faults   []*Fault      // one, or the two of a pair, which come in turns
	Times    int           // how often each is to happen; 0: the fault's own number
	Election time.Duration // 0: drawn from the seed
	Binary   string        // kvd
	Tuned    string        // the build of it for chaos tests; empty: none
	Older    string        // a kvd of an earlier commit, for upgrades; empty: none
	Keep     string        // folder for what failing runs leave
	Log      io.Writer     // what happens; nil: nobody wants to know
}

// ErrMeaningless: the run says nothing, because its load was too thin or its
// faults never happened.
var ErrMeaningless = errors.New("meaningless")

// errSkipped: this machine cannot make the fault.
var errSkipped = errors.New("not possible on this machine")

// Run is one run: a cluster, its load and the faults.
type Run struct {
	*Cluster
	Config
	rec      *history.Recorder
	load     *traffic
	mine     *caller // for what faults ask themselves
	probe    *prober
	watchers []*watcher
	watch    func(*watcher) // starts one more
	library  *library
	mirrors  []*mirror
	informed []*informer
	lags     int                   // followers that were left behind
	strikes  map[int]time.Duration // by fault of the history: when it first did something to a process; 0: it did not
	result   Result
	stop     context.CancelFunc // of watchers and probes
	watching sync.WaitGroup
}

// election is the timeouts that a seed may draw; etcd's own come most often.
var elections = []time.Duration{time.Second, time.Second, 500 * time.Millisecond}

// run makes one run in the world. The error is nil when the run was made, whatever
// it found.
func (w *world) run(ctx context.Context, cfg Config) (Result, error) {
	r := rand.New(rand.NewPCG(cfg.Seed, 0xc))
	election := cmp.Or(cfg.Election, elections[r.IntN(len(elections))])
	members := 3
	for _, f := range cfg.Faults {
		members = max(members, f.Members)
	}
	dir := filepath.Join(w.dir, fmt.Sprintf("run-%x", cfg.Seed))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	c := w.cluster(dir, r, election, cfg.Log)
	run := &Run{Cluster: c, Config: cfg, strikes: map[int]time.Duration{}}
	run.Election = election
	run.result = Result{
		Fault: faultNames(cfg.Faults), Classes: classesOf(cfg.Faults), Seed: cfg.Seed, Commit: Commit(), Began: time.Now().UTC().Truncate(time.Second),
		Members: members, Election: election, Happened: map[string]int{},
	}
	w.net.Heal()
	err := run.live(ctx, members)
	run.result.Took = time.Since(run.result.Began)
	if e := c.close(); e != nil {
		fmt.Fprintln(os.Stderr, "chaos: left behind:", e)
	}
	switch {
	case errors.Is(err, errSkipped):
		run.result.Skipped = err.Error()
	case errors.Is(err, ErrMeaningless):
		run.result.Meaningless = err.Error()
	case err != nil:
		run.result.Failure = err.Error()
	}
	return run.result, nil
}

// replay is the command that makes the run again.
func (r *Run) replay() string {
	s := fmt.Sprintf("go run ./cmd/chaos real -fault %s -seed %#x", faultNames(r.Faults), r.Seed)
	if r.Times > 0 {
		s += fmt.Sprint(" -times ", r.Times)
	}
	return s
}

func faultNames(all []*Fault) string {
	var names []string
	for _, f := range all {
		names = append(names, f.Name)
	}
	return strings.Join(names, "+")
}

func classesOf(all []*Fault) string {
	var names []string
	for _, class := range Classes {
		if slices.ContainsFunc(all, func(f *Fault) bool { return f.Class == class }) {
			names = append(names, class)
		}
	}
	return strings.Join(names, "+")
}

// live is the run from the first start to the verdict.
func (r *Run) live(ctx context.Context, members int) error {
	file := filepath.Join(r.dir, "history")
	w, err := history.Create(file, history.Meta{
		Ring: "real", Seed: r.Seed, Commit: Commit(), Began: r.result.Began, Replay: r.replay(), Machine: Machine(), Election: r.Election,
	})
	if err != nil {
		return err
	}
	r.rec = history.NewRecorder(w)
	r.begin = time.Now()
	err = r.phases(ctx, members)
	if err == nil || !errors.Is(err, errSkipped) && !errors.Is(err, ErrMeaningless) {
		err = r.verdict(file, err)
	} else {
		err = errors.Join(err, r.rec.Close())
	}
	if err != nil && !errors.Is(err, errSkipped) && !errors.Is(err, ErrMeaningless) && r.Keep != "" {
		r.keep()
	}
	return err
}

// phases are everything that happens while the history is recorded.
func (r *Run) phases(ctx context.Context, members int) error {
	if slices.ContainsFunc(r.Faults, func(f *Fault) bool { return f.Tuned }) {
		if r.Binary = r.Tuned; r.Binary == "" {
			return fmt.Errorf("%w: there is no build for chaos tests", errSkipped)
		}
	}
	for n := range members {
		if _, err := r.newMember(n+1, r.Binary, r.diskBytes()); err != nil {
			return err
		}
	}
	for _, f := range r.Faults {
		r.args = append(r.args, f.Args...)
	}
	for _, f := range r.Faults {
		if f.Setup != nil {
			if err := f.Setup(r); err != nil {
				return err
			}
		}
	}
	r.objects = r.withObjects()
	if err := r.startAll(); err != nil {
		return err
	}
	if err := r.startLoad(); err != nil {
		return err
	}
	err := r.warmUp()
	if err == nil {
		err = r.faults(ctx)
	}
	err = errors.Join(err, r.heal(err))
	return errors.Join(err, r.rest(err))
}

// diskBytes is the size of a member's disk.
func (r *Run) diskBytes() int64 {
	size := int64(512 << 20) // for the log, of which damaged ones are kept
	for _, f := range r.Faults {
		if f.DiskBytes > 0 {
			size = f.DiskBytes
		}
	}
	return size
}

func (r *Run) startLoad() (err error) {
	if r.load, err = startTraffic(r.Cluster, r.rec, r.Seed); err != nil {
		return err
	}
	r.mine = r.load.caller(len(kinds)+1, r.Seed)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	r.watch = func(w *watcher) {
		r.watchers = append(r.watchers, w)
		r.watching.Go(func() { w.run(ctx) })
	}
	for n, m := range r.members() {
		r.watch(&watcher{n: 100 + n, c: r.Cluster, rec: r.rec, at: m})
	}
	r.watch(&watcher{n: 199, c: r.Cluster, rec: r.rec})
	r.library = &library{n: 200, cl: r.load.clients[0], rec: r.rec, errs: make(chan error, 1)}
	r.watching.Go(func() { r.library.run(ctx) })
	if r.user == "" {
		w, informers := r.readers()
		r.watch(w)
		r.mirrors, r.informed = []*mirror{w.mirror}, informers
		for _, f := range informers {
			r.mirrors = append(r.mirrors, f.mirror)
			r.watching.Go(func() { f.run(ctx) })
		}
	}
	r.probe = &prober{c: r.Cluster, rec: r.rec}
	r.watching.Go(func() { r.probe.run(ctx) })
	return nil
}

// warmUp demands that the load is worth something before anything breaks.
func (r *Run) warmUp() error {
	const window = 700 * time.Millisecond
	best := 0.0
	for range 20 { // a machine that is busy elsewhere gets its time
		before, begin := r.load.acked.Load(), time.Now()
		time.Sleep(window)
		best = max(best, float64(r.load.acked.Load()-before)/time.Since(begin).Seconds())
		if best >= minimumRate {
			r.result.Rate = best
			return nil
		}
	}
	return fmt.Errorf("%w: %.0f calls a second before the first fault, %d are the least", ErrMeaningless, best, minimumRate)
}

// faults lets the faults happen, in turns.
func (r *Run) faults(ctx context.Context) error {
	times := r.Times
	for _, f := range r.Faults {
		times = max(times, cmp.Or(r.Times, f.Times, 3))
	}
	for range times {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, f := range r.Faults {
			if err := r.one(f); err != nil {
				return err
			}
		}
	}
	for _, f := range r.Faults {
		for range 4 { // what is damaged may be what nobody uses
			if r.result.Happened[f.Name] > 0 || ctx.Err() != nil {
				break
			}
			if err := r.one(f); err != nil {
				return err
			}
		}
		if r.result.Happened[f.Name] == 0 {
			return fmt.Errorf("%w: %s never happened", ErrMeaningless, f.Name)
		}
	}
	return nil
}

// one lets a fault happen once, and waits until the cluster has got over it.
func (r *Run) one(f *Fault) error {
	r.pause(200*time.Millisecond, 700*time.Millisecond)
	h := r.rec.Begin(f.Name, 0, f.About)
	begin := r.now()
	r.net.Counts.reset()
	r.note("* %s", f.Name)
	r.struck.Store(0)
	err := f.Inject(r)
	r.strikes[h.ID] = time.Duration(r.struck.Load())
	r.rec.End(h)
	switch {
	case errors.Is(err, errNothing):
		r.note("  it did not happen: %v", err)
		return nil
	case err != nil:
		return fmt.Errorf("%s at %v: %w", f.Name, begin.Round(time.Millisecond), err)
	}
	r.result.Happened[f.Name]++
	if err := r.recover(); err != nil {
		return fmt.Errorf("after %s at %v: %w", f.Name, begin.Round(time.Millisecond), err)
	}
	return nil
}

// errNothing: this time the fault found nothing to do.
var errNothing = errors.New("nothing to break")

// recover starts who is down, and waits until all serve again under load.
func (r *Run) recover() error {
	for _, m := range r.members() {
		if m.down() {
			if err := m.start(); err != nil {
				return err
			}
		}
	}
	if err := within(patience, r.together); err != nil {
		return fmt.Errorf("O9: %v after the fault: %w", patience, err)
	}
	return r.load.everybodyServed(patience)
}

// together says what keeps the members from following one leader closely.
func (c *Cluster) together() error {
	l, err := c.leader()
	if err != nil {
		return err
	}
	lead, err := l.status()
	if err != nil {
		return err
	}
	all, err := c.statuses()
	if err != nil {
		return err
	}
	for m, st := range all {
		switch {
		case st.Leader != lead.Leader || st.RaftTerm != lead.RaftTerm:
			return fmt.Errorf("%s follows %x in term %d, the leader is %x in term %d", m.Name, st.Leader, st.RaftTerm, lead.Leader, lead.RaftTerm)
		case st.RaftAppliedIndex < lead.RaftIndex:
			return fmt.Errorf("%s has applied %d, the leader has %d", m.Name, st.RaftAppliedIndex, lead.RaftIndex)
		}
	}
	return nil
}

// heal ends faults for good, and waits until everybody is served.
func (r *Run) heal(failed error) error {
	r.net.Heal()
	if failed != nil {
		return nil
	}
	r.rec.Healed(r.now())
	return r.recover()
}

// rest ends the load, cuts the power of all members, and stops them in good order.
func (r *Run) rest(failed error) error {
	r.load.finish()
	var err error
	if failed == nil {
		err = r.quiet()
	}
	r.stop()
	r.watching.Wait()
	err = errors.Join(err, r.load.close())
	if failed != nil || err != nil {
		return err
	}
	r.note("* the last power cut")
	if err := r.cutAll(r.members()); err != nil {
		return err
	}
	if err := r.startAll(); err != nil {
		return err
	}
	for _, m := range r.members() {
		if err := m.stop(); err != nil {
			return err
		}
	}
	return nil
}

// watchDelay is how long watches may take to have everything. That of the library
// may first have to find out that its member lost power: nobody tells it, and gRPC
// asks after ten quiet seconds at the earliest.
const (
	watchDelay   = 5 * time.Second
	libraryDelay = watchDelay + 15*time.Second
)

// quiet waits until members are equal and watches have caught up.
func (r *Run) quiet() error {
	if err := errors.Join(r.mine.free(), r.settle(patience)); err != nil {
		return err
	}
	st, err := r.members()[0].status()
	if err != nil {
		return err
	}
	rev := st.Header.Revision
	err = within(watchDelay, func() error {
		for _, w := range r.watchers {
			if w.at != nil && w.seen.Load() < rev && r.has(w.at) {
				return fmt.Errorf("O3: the watch on %s stands at revision %d, %v after the last write at %d", w.at.Name, w.seen.Load(), watchDelay, rev)
			}
		}
		return nil
	})
	err = errors.Join(err, within(libraryDelay, func() error {
		if r.library.seen.Load() < rev {
			return fmt.Errorf("O3: the client's watch stands at revision %d, %v after the last write at %d", r.library.seen.Load(), libraryDelay, rev)
		}
		return nil
	}))
	err = errors.Join(err, r.copied())
	select {
	case e := <-r.library.errs:
		return errors.Join(err, e)
	default:
		return err
	}
}

func (c *Cluster) has(m *Member) bool { return slices.Contains(c.members(), m) }

// cutAll cuts the power of several members at once.
func (r *Run) cutAll(members []*Member) error {
	r.result.PowerCuts += len(members)
	if len(members) == len(r.members()) {
		r.result.AllCuts++
	}
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		journal := []int{journalFlushed, journalLost}[r.rand.IntN(2)]
		after := time.Duration(r.rand.Int64N(int64(30 * time.Millisecond)))
		wg.Go(func() { errs[i] = m.powerCut(journal, after) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// verdict closes the history, adds what members have left, and asks the oracles.
func (r *Run) verdict(file string, failed error) error {
	if err := r.rec.Close(); err != nil {
		return errors.Join(failed, err)
	}
	h, err := history.Open(file)
	if err != nil {
		return errors.Join(failed, err)
	}
	r.count(h)
	if err := r.audit(h); err != nil {
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return failed
	}
	switch err := remains(r.members(), h); {
	case errors.Is(err, errNoStart):
		r.note("%v: the oracles see acknowledged writes and states only", err)
		return acknowledged(h)
	case err != nil:
		return err
	}
	c := oracle.NewCase(h)
	r.result.Writes = len(c.Written())
	var errs []error
	for _, f := range r.informed {
		errs = append(errs, f.inTime(h.States[0].Compact))
	}
	for _, o := range oracle.All() {
		for _, err := range o.Check(c) {
			errs = append(errs, fmt.Errorf("%s %w", o.Name, err))
		}
	}
	return errors.Join(errs...)
}
