package admission

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

const (
	// period is what the pacer steps by.
	period = 50 * time.Millisecond
	// loudness is how long a client is loud after it last had more under way, or
	// waiting, than a light one.
	loudness = time.Second
	// patience is the longest a request waits before it is refused: what it may
	// also wait for consensus.
	patience = api.RequestTimeout
	// Retry hints are twice what the last request of the class waited, within these.
	shortestHint = 50 * time.Millisecond
	longestHint  = 5 * time.Second
	// mostNames is how many clients with names are told from each other: more than
	// there are users. Beyond it a CA gives each caller a name of its own, and they
	// count as one.
	mostNames = 16_384
	// leastPause is what a paced stream of bytes waits at the least: shorter ones
	// are collected.
	leastPause = time.Millisecond
	mostPause  = 50 * time.Millisecond
)

// Request is what a gate wants to know.
type Request struct {
	Class Class
	Cost  int64 // in a class with quanta above 1: bytes; else 1
	// Timed: requests like this one take about equally long on a quiet member.
	Timed bool
}

// Pass is a request that was let in. Its zero value is one that needs no pass.
type Pass struct {
	flow  *Flow
	began time.Time
	class Class
	heavy bool
	timed bool
	quiet bool // its client is no loud one
	load  load
}

// Refusal is the error of a request that was not let in.
type Refusal struct{ RetryAfter time.Duration }

func (*Refusal) Error() string { return api.ErrTooManyRequests.Text }

// Unwrap makes it the error that clients know.
func (*Refusal) Unwrap() error { return api.ErrTooManyRequests }

// Gate lets requests in. Its methods are safe for concurrent use.
type Gate struct {
	clock clock.Clock
	paces bool // false: nobody is held back for the sake of others' times
	lanes [classes]lane

	bulk   atomic.Bool   // bytes went through Pace in this period
	bytes  atomic.Uint64 // float64 bits: bytes a second that Pace lets through; 0: all
	ends   atomic.Int64  // the period's end in nanoseconds
	pacing struct {
		sync.Mutex
		heavy pacer        // heavy requests, for the sake of quiet clients
		bulk  pacer        // bytes of large answers, for the sake of everybody
		due   [2]time.Time // by Way: when what was let through is through
	}
	named struct {
		sync.Mutex
		flows  map[string]*Flow
		others Flow
	}
}

// lane is one class's queue.
type lane struct {
	sync.Mutex
	queue
	quiet sample        // of quiet clients
	took  [loads]sample // of everybody
	busy  bool          // something heavy came in this period
	// What happened since the start.
	refused  uint64
	waited   uint64
	waitTime time.Duration
	lastWait time.Duration
}

// NewGate makes a gate with a bound for each class. paces: whether it also keeps
// quiet clients' times.
func NewGate(c clock.Clock, paces bool, bounds func(Class) Bounds) *Gate {
	g := &Gate{clock: c, paces: paces}
	g.named.flows = map[string]*Flow{}
	g.pacing.heavy = pacer{target: target, least: slowestBytes, level: 1}
	g.pacing.bulk = pacer{target: bulkTarget, least: slowestBulk, level: 1}
	for class := range classes {
		g.lanes[class].queue = queue{class: class, bounds: bounds(class)}
	}
	return g
}

// Flow is the flow of a client with a name. It lives as long as the gate: names
// are users and holders of certificates.
func (g *Gate) Flow(name string) *Flow {
	g.named.Lock()
	defer g.named.Unlock()
	if f := g.named.flows[name]; f != nil {
		return f
	}
	if len(g.named.flows) >= mostNames {
		return &g.named.others
	}
	f := &Flow{Name: name}
	g.named.flows[name] = f
	return f
}

// TryEnter lets a request in that can begin at once. Otherwise nothing has
// happened, and Enter waits.
func (g *Gate) TryEnter(f *Flow, r Request, now time.Time) (p Pass, ok bool) {
	if r.Class >= classes {
		return Pass{}, true
	}
	l := &g.lanes[r.Class]
	l.Lock()
	defer l.Unlock()
	p, _, ok = l.enter(f, r, now)
	return p, ok
}

// Enter waits until the request may begin. now is the time of the call. The
// caller gives what it gets to Leave when the request has ended; after an error,
// a Refusal or the context's, there is nothing to leave.
func (g *Gate) Enter(ctx context.Context, f *Flow, r Request, now time.Time) (Pass, error) {
	if r.Class >= classes {
		return Pass{}, nil
	}
	l := &g.lanes[r.Class]
	l.Lock()
	p, loud, ok := l.enter(f, r, now)
	if ok {
		l.Unlock()
		return p, nil
	}
	w := &Waiter{flow: f, cost: r.Cost, loud: loud, done: make(chan bool, 1)}
	refused := l.join(w)
	if refused != nil {
		l.refused++
		if refused != w {
			refused.done <- false
		}
	}
	hint := l.hint()
	l.Unlock()
	if refused == w {
		return Pass{}, &Refusal{hint}
	}
	return g.wait(ctx, l, w, p)
}

// enter lets the request in if it can begin at once.
func (l *lane) enter(f *Flow, r Request, now time.Time) (p Pass, loud, ok bool) {
	at := now.UnixNano()
	s := &f.shares[r.Class]
	if l.bounds.Light > 0 && s.running+len(s.waiting) >= l.bounds.Light {
		s.loudAt = at
	}
	loud = at-s.loudAt < int64(loudness)
	heavy, ok := l.take(f, r.Cost, loud)
	if heavy {
		l.busy = true
	}
	return Pass{flow: f, class: r.Class, began: now, heavy: heavy, timed: ok && r.Timed, quiet: !loud, load: loadOf(l.running)}, loud, ok
}

// wait waits in the queue.
func (g *Gate) wait(ctx context.Context, l *lane, w *Waiter, p Pass) (Pass, error) {
	timer := g.clock.NewTimer(patience)
	defer timer.Stop()
	var granted bool
	var err error
	select {
	case granted = <-w.done:
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C():
		err = &Refusal{}
	}
	now := g.clock.Now()
	took := now.Sub(p.began)
	l.Lock()
	defer l.Unlock()
	if err != nil && !l.cancel(w) {
		granted = <-w.done // in the meantime
	}
	l.waited++
	l.waitTime += took
	l.lastWait = took
	switch {
	case granted && err != nil:
		l.leave(w.flow, w.heavy)
		l.wake()
	case granted:
		p.began, p.heavy = now, w.heavy
		return p, nil
	case err == nil:
		err = &Refusal{}
	default:
		l.wake() // another one of this client may fit where this one did not
	}
	if r, ok := err.(*Refusal); ok {
		if took >= patience {
			l.refused++
		}
		r.RetryAfter = l.hint()
	}
	return Pass{}, err
}

// hint says how long a refused client should stay away.
func (l *lane) hint() time.Duration { return min(max(2*l.lastWait, shortestHint), longestHint) }

// wake lets begin what can.
func (l *lane) wake() {
	for l.waiting > 0 {
		w := l.next()
		if w == nil {
			return
		}
		w.done <- true
	}
}

// Leave ends a request. ok: it ended as it should, so its time tells something.
func (g *Gate) Leave(p Pass, now time.Time, ok bool) {
	if p.flow == nil {
		return
	}
	l := &g.lanes[p.class]
	l.Lock()
	load := max(p.load, loadOf(l.running)) // of its beginning and its end
	l.leave(p.flow, p.heavy)
	if p.timed && ok {
		took := now.Sub(p.began)
		l.took[load].add(took)
		if p.quiet {
			l.quiet.add(took)
		}
	}
	l.wake()
	l.Unlock()
	g.tick(now)
}

// tick ends the period if it is over.
func (g *Gate) tick(now time.Time) {
	if !g.paces || now.UnixNano() < g.ends.Load() || !g.pacing.TryLock() {
		return
	}
	defer g.pacing.Unlock()
	g.ends.Store(now.Add(period).UnixNano())
	var quiet, all samples
	bulk := g.bulk.Swap(false)
	busy := bulk
	for c := range g.lanes {
		l := &g.lanes[c]
		l.Lock()
		quiet[c][0], all[c] = l.quiet, l.took
		l.quiet, l.took = sample{}, [loads]sample{}
		busy = busy || l.busy || l.waiting > 0
		l.busy = false
		l.Unlock()
	}
	g.pacing.heavy.step(&quiet, busy)
	g.pacing.bulk.step(&all, bulk)
	g.bytes.Store(math.Float64bits(fewer(g.pacing.heavy.bytes(), g.pacing.bulk.bytes())))
	for _, c := range paced {
		l := &g.lanes[c]
		l.Lock()
		l.bounds.Heavy = g.pacing.heavy.heavy(l.bounds.Slots)
		l.wake()
		l.Unlock()
	}
}

// Way is where bytes of large answers go.
type Way uint8

// The ways.
const (
	Building Way = iota
	Sending
)

// Pace waits as long as n more bytes of a large answer must, while they slow
// quiet clients down. done ends the wait.
func (g *Gate) Pace(done <-chan struct{}, way Way, n int) {
	if !g.bulk.Load() {
		g.bulk.Store(true)
	}
	rate := math.Float64frombits(g.bytes.Load())
	if rate == 0 {
		return
	}
	now := g.clock.Now()
	g.tick(now)
	g.pacing.Lock()
	due := &g.pacing.due[way]
	if due.Before(now) {
		*due = now
	}
	*due = due.Add(time.Duration(float64(n) / rate * float64(time.Second)))
	pause := min(due.Sub(now), mostPause)
	g.pacing.Unlock()
	if pause < leastPause {
		return
	}
	timer := g.clock.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-done:
	}
}

// State is what a class shows of itself.
type State struct {
	Running, Waiting int
	Refused, Waited  uint64
	WaitTime         time.Duration
}

// States shows all classes, and the levels of heavy requests and of large answers.
func (g *Gate) States(each func(Class, State)) (heavy, bulk float64) {
	for c := range g.lanes {
		l := &g.lanes[c]
		l.Lock()
		s := State{Running: l.running, Waiting: l.waiting, Refused: l.refused, Waited: l.waited, WaitTime: l.waitTime}
		l.Unlock()
		each(Class(c), s)
	}
	g.pacing.Lock()
	defer g.pacing.Unlock()
	return g.pacing.heavy.level, g.pacing.bulk.level
}
