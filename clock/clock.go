// Package clock is the only place where the product reads time. Everything
// else takes a Clock, so that a simulation decides what time it is.
package clock

import "time"

// Clock tells time and wakes callers. Now carries the monotonic reading, so
// that differences never jump with the wall clock.
type Clock interface {
	Now() time.Time
	// Wall is the date. It jumps when somebody sets the machine's clock, so only
	// what people and other programs read is made of it.
	Wall() time.Time
	NewTimer(d time.Duration) Timer
	NewTicker(d time.Duration) Ticker
	// AfterFunc runs f in its own goroutine after d.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is one pending wake-up.
type Timer interface {
	// C delivers the time once; nil for AfterFunc.
	C() <-chan time.Time
	// Stop prevents the wake-up; it reports whether it did.
	Stop() bool
	// Reset starts the timer again; stop and drain it before.
	Reset(d time.Duration) bool
}

// Ticker wakes again and again until it is stopped.
type Ticker interface {
	C() <-chan time.Time
	Stop()
}

// System returns the machine's clock.
func System() Clock { return system{} }

type system struct{}

func (system) Now() time.Time                            { return time.Now() }
func (system) Wall() time.Time                           { return time.Now().Round(0) }
func (system) NewTimer(d time.Duration) Timer            { return systemTimer{time.NewTimer(d)} }
func (system) NewTicker(d time.Duration) Ticker          { return systemTicker{time.NewTicker(d)} }
func (system) AfterFunc(d time.Duration, f func()) Timer { return systemTimer{time.AfterFunc(d, f)} }

type systemTimer struct{ t *time.Timer }

func (t systemTimer) C() <-chan time.Time        { return t.t.C }
func (t systemTimer) Stop() bool                 { return t.t.Stop() }
func (t systemTimer) Reset(d time.Duration) bool { return t.t.Reset(d) }

type systemTicker struct{ t *time.Ticker }

func (t systemTicker) C() <-chan time.Time { return t.t.C }
func (t systemTicker) Stop()               { t.t.Stop() }
