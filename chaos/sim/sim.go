package sim

import (
	"container/heap"
	crand "crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// Sim is one simulation. Everything in it belongs to the goroutine that runs it.
type Sim struct {
	cfg    Config
	log    io.Writer // of what happens; nil: nobody reads it
	now    time.Duration
	events queue
	seq    uint64
	trace  uint64 // hash of all that happened

	members  []*member
	byID     map[api.MemberID]*member
	net      network
	clients  []*client
	watchers []*watcher
	operator *operator
	changes  changing
	calm     bool  // no more faults
	stopped  bool  // clients stop
	running  *task // the one that runs, nil between tasks
	breaks   *breaking

	hist   history.History
	watch  *oracle.Observer
	roster *oracle.Roster
	failed *Failure
	stats  Stats

	// The log so far, replayed for the question whether watches have all of it.
	replay   *oracle.Model
	replayed int // entries
	known    *watchcheck.History

	// A source of chance for each purpose.
	chance struct{ net, disk, client, sched, member *rand.Rand }
}

// Stats counts what a run did.
type Stats struct {
	Ops, Acked, Refused, Unknown int
	Writes                       int // acknowledged
	Crashes, PowerCuts           int
	Snapshots, Repairs           int
	Rotten, Rebuilt              int // databases damaged; found by somebody who read them
	Watches, WatchEvents         int
	Elections                    int
	Memberships, Unsafe          int // changes of the membership: acknowledged; refused for the sake of the quorum
	Full, Emptied                int // alarms that members raised, and cleared, by themselves
	Deleted                      int // databases
	Returned, DisksLost          int // members that came back after their removal; that lost all they had
	Faults                       map[fault.Kind]int
	FirstAck                     map[fault.Kind]Wait       // by the faults that ended
	Points                       map[string]map[string]int `json:",omitempty"` // where something was cut short, by Phases
}

// Failure is what a run found.
type Failure struct {
	Oracle string // "O1" to "O13", or "panic", "liveness"
	At     time.Duration
	Text   string
}

func (f *Failure) Error() string {
	return fmt.Sprintf("at=%v %s %s", f.At.Round(time.Millisecond), f.Oracle, f.Text)
}

// Result is a finished run.
type Result struct {
	Config  Config
	Plan    []fault.Event
	Failure *Failure
	Stats   Stats
	Trace   uint64
	Time    time.Duration // simulated
	History *history.History
}

type event struct {
	at  time.Duration
	seq uint64
	run func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}

// electionJitter guards crypto/rand.Reader, from which the Raft library takes the
// jitter of elections and which knows no other source: one simulation a process
// runs at a time.
var electionJitter sync.Mutex

// Run runs a configuration with a plan of faults. log, unless nil, is told what
// happens.
func Run(cfg Config, plan []fault.Event, log io.Writer) (r Result) { return run(cfg, plan, log, nil) }

// run is Run; breaks, unless nil, makes calls of the first member's disk fail.
func run(cfg Config, plan []fault.Event, log io.Writer, breaks *breaking) (r Result) {
	electionJitter.Lock()
	defer electionJitter.Unlock()
	var seed [32]byte
	for i := range 8 {
		seed[i] = byte(cfg.Seed >> (8 * i))
	}
	real := crand.Reader
	crand.Reader = rand.NewChaCha8(seed)
	defer func() { crand.Reader = real }()

	s := newSim(cfg, log)
	s.breaks = breaks
	defer func() {
		if p := recover(); p != nil {
			s.failed = nil
			s.fail("panic", "%v\n%s", p, debug.Stack())
		}
		s.stats.Ops = len(s.hist.Ops)
		s.release()
		r = Result{Config: cfg, Plan: plan, Failure: s.failed, Stats: s.stats, Trace: s.trace, Time: s.now, History: &s.hist}
	}()
	s.play(plan)
	return r
}

// release ends the tasks that still wait: each is a coroutine, and would keep the
// whole simulation in memory. What they do on their way out counts no more.
func (s *Sim) release() {
	defer func() { _ = recover() }() // after a panic nothing needs to be as it should
	for _, m := range s.members {
		m.life++
		m.node = nil
		m.abandon()
	}
}

func newSim(cfg Config, log io.Writer) *Sim {
	s := &Sim{cfg: cfg, log: log, byID: map[api.MemberID]*member{}, watch: oracle.NewObserver(), roster: oracle.NewRoster(), trace: 14695981039346656037}
	s.hist.Drift = cfg.Drift
	s.stats.Faults, s.stats.FirstAck, s.stats.Points = map[fault.Kind]int{}, map[fault.Kind]Wait{}, map[string]map[string]int{}
	source := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(cfg.Seed, n)) }
	c := &s.chance
	c.net, c.disk, c.client, c.sched, c.member = source(11), source(12), source(13), source(14), source(15)
	for n := range cfg.Members {
		s.members = append(s.members, newMember(s, n))
	}
	s.net.init(cfg.Members + spareMachines)
	for n := range cfg.Clients {
		s.clients = append(s.clients, newClient(s, n))
	}
	for n := range cfg.Watchers {
		s.watchers = append(s.watchers, newWatcher(s, cfg.Clients+n))
	}
	s.operator = newOperator(s, cfg.Clients+cfg.Watchers)
	return s
}

// play is the run from beginning to end.
func (s *Sim) play(plan []fault.Event) {
	for _, m := range s.members {
		m.start()
	}
	for _, c := range s.clients {
		s.after(c.think(), c.next)
	}
	for _, w := range s.watchers {
		s.after(w.pause(), w.open)
	}
	for _, e := range plan {
		s.at(e.At, func() { s.strike(e) })
	}
	s.until(s.cfg.Safety)
	s.heal()
	s.probe(plan)
	s.settle()
	if s.failed == nil {
		s.judge()
	}
}

func (s *Sim) at(t time.Duration, run func()) {
	s.seq++
	heap.Push(&s.events, event{t, s.seq, run})
}

func (s *Sim) after(d time.Duration, run func()) { s.at(s.now+d, run) }

// until lets events happen until t, or until something is wrong.
func (s *Sim) until(t time.Duration) {
	s.when(t, func() bool { return false })
}

// when lets events happen until the condition holds, and reports whether it did
// before t. It is asked every few milliseconds.
func (s *Sim) when(t time.Duration, holds func() bool) bool {
	next := s.now
	for s.failed == nil {
		if s.now >= next {
			if holds() {
				return true
			}
			next = s.now + 10*time.Millisecond
		}
		if len(s.events) == 0 || s.events[0].at > t {
			s.now = t
			return holds()
		}
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		s.mix(uint64(e.at), e.seq)
		e.run()
	}
	return false
}

// mix adds to the trace.
func (s *Sim) mix(numbers ...uint64) {
	for _, n := range numbers {
		s.trace = (s.trace ^ n) * 1099511628211
	}
}

// fail ends the run; the first failure counts.
func (s *Sim) fail(oracle, format string, args ...any) {
	if s.failed == nil {
		s.failed = &Failure{Oracle: oracle, At: s.now, Text: fmt.Sprintf(format, args...)}
		s.say("FAIL %v", s.failed)
	}
}

// must fails the run for an error of an oracle.
func (s *Sim) must(oracle string, err error) {
	if err != nil {
		s.fail(oracle, "%v", err)
	}
}

func (s *Sim) say(format string, args ...any) {
	if s.log != nil {
		fmt.Fprintf(s.log, "%10v "+format+"\n", append([]any{s.now.Round(time.Microsecond)}, args...)...)
	}
}

// logger is a member's, shown with simulated time.
func (s *Sim) logger(name string) *slog.Logger {
	if s.log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(timed{s}, &slog.HandlerOptions{
		Level: slog.LevelInfo,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})).With("m", name)
}

type timed struct{ s *Sim }

func (t timed) Write(p []byte) (int, error) {
	t.s.say("  %s", p[:len(p)-1])
	return len(p), nil
}
