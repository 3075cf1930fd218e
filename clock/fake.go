package clock

import (
	"sync"
	"time"
)

// Fake is a clock that stands still until Advance moves it. Timers fire, in
// the order of their times, inside Advance.
type Fake struct {
	mu struct {
		sync.Mutex
		now     time.Time
		waiting []*fakeTimer
	}
}

// NewFake returns a clock that shows the given time.
func NewFake(now time.Time) *Fake {
	f := &Fake{}
	f.mu.now = now
	return f
}

// Now returns the time to which the clock was last advanced.
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.now
}

// Wall is Now: nobody sets a fake clock otherwise.
func (f *Fake) Wall() time.Time { return f.Now() }

// NewTimer returns a timer that fires when the clock has advanced by d.
func (f *Fake) NewTimer(d time.Duration) Timer {
	return f.add(&fakeTimer{clock: f, c: make(chan time.Time, 1)}, d)
}

// NewTicker returns a ticker of period d; a slow reader misses ticks.
func (f *Fake) NewTicker(d time.Duration) Ticker {
	return fakeTicker{f.add(&fakeTimer{clock: f, c: make(chan time.Time, 1), period: d}, d)}
}

// AfterFunc runs fn on a goroutine of its own when the clock has advanced by d.
func (f *Fake) AfterFunc(d time.Duration, fn func()) Timer {
	return f.add(&fakeTimer{clock: f, fn: fn}, d)
}

func (f *Fake) add(t *fakeTimer, d time.Duration) *fakeTimer {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.at = f.mu.now.Add(d)
	f.mu.waiting = append(f.mu.waiting, t)
	return t
}

// Advance moves the clock by d and fires what falls due on the way.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := f.mu.now.Add(d)
	for {
		next := -1
		for i, t := range f.mu.waiting {
			if !t.at.After(end) && (next < 0 || t.at.Before(f.mu.waiting[next].at)) {
				next = i
			}
		}
		if next < 0 {
			break
		}
		t := f.mu.waiting[next]
		f.mu.now = t.at
		if t.period > 0 {
			t.at = t.at.Add(t.period)
		} else {
			f.mu.waiting = append(f.mu.waiting[:next], f.mu.waiting[next+1:]...)
		}
		t.fire(f.mu.now)
	}
	f.mu.now = end
}

type fakeTimer struct {
	clock  *Fake
	at     time.Time // guarded by clock.mu
	period time.Duration
	c      chan time.Time
	fn     func()
}

func (t *fakeTimer) fire(now time.Time) {
	if t.fn != nil {
		go t.fn()
		return
	}
	select {
	case t.c <- now:
	default: // the reader has not taken the last one yet
	}
}

func (t *fakeTimer) C() <-chan time.Time { return t.c }

func (t *fakeTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	for i, w := range t.clock.mu.waiting {
		if w == t {
			t.clock.mu.waiting = append(t.clock.mu.waiting[:i], t.clock.mu.waiting[i+1:]...)
			return true
		}
	}
	return false
}

func (t *fakeTimer) Reset(d time.Duration) bool {
	active := t.Stop()
	t.clock.add(t, d)
	return active
}

type fakeTicker struct{ t *fakeTimer }

func (t fakeTicker) C() <-chan time.Time { return t.t.c }
func (t fakeTicker) Stop()               { t.t.Stop() }
