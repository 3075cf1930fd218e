package sim

import (
	"time"

	"github.com/keelson-io/keelson/clock"
)

// epoch is what every member's clock shows at the start.
var epoch = time.Unix(1_700_000_000, 0)

// memberClock is a member's own: it may run fast or slow, and what waits for it
// ends with the member.
type memberClock struct{ m *member }

// pace turns the member's time into simulated time.
func (c memberClock) pace(d time.Duration) time.Duration {
	if d > 1000*time.Hour {
		return d // nobody waits so long, and it must not overflow
	}
	return max(d, 0)*1000/time.Duration(1000+c.m.drift) + 1 // not before it is over
}

func (c memberClock) Now() time.Time { return c.m.timeOf(c.m.s.now) }

// timeOf is what the member's clock shows at a simulated time.
func (m *member) timeOf(at time.Duration) time.Time {
	return epoch.Add(at * time.Duration(1000+m.drift) / 1000)
}

// Wall jumps when a fault sets it.
func (c memberClock) Wall() time.Time { return c.Now().Add(c.m.wall) }

func (c memberClock) NewTimer(d time.Duration) clock.Timer {
	t := &timer{clock: c, c: make(chan time.Time, 1)}
	t.start(d)
	return t
}

// NewTicker is for goroutines, of which there are none.
func (c memberClock) NewTicker(time.Duration) clock.Ticker {
	panic("sim: a ticker without a goroutine")
}

func (c memberClock) AfterFunc(d time.Duration, f func()) clock.Timer {
	t := &timer{clock: c, fn: f}
	t.start(d)
	return t
}

type timer struct {
	clock  memberClock
	c      chan time.Time
	fn     func()
	serial int
	active bool
}

func (t *timer) start(d time.Duration) {
	t.serial++
	t.active = true
	serial := t.serial
	m := t.clock.m
	m.after(t.clock.pace(d), func() {
		if !t.active || t.serial != serial {
			return
		}
		t.active = false
		if t.fn != nil {
			t.fn()
			m.turn()
			return
		}
		select {
		case t.c <- t.clock.Now():
		default:
		}
	})
}

func (t *timer) C() <-chan time.Time { return t.c }

func (t *timer) Stop() bool {
	was := t.active
	t.active = false
	return was
}

func (t *timer) Reset(d time.Duration) bool {
	was := t.Stop()
	t.start(d)
	return was
}
