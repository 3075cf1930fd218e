package resource

import (
	"time"

	"github.com/keelson-io/keelson/clock"
)

// timetable is when a watch has to do something although nothing happens.
type timetable struct {
	clock   clock.Clock
	end     time.Time
	last    time.Time // of the last bookmark
	regular time.Time // of the next one
	every   time.Duration
}

// timetable of a watch that lasts so long from now on.
func (w *watcher) timetable(timeout time.Duration) *timetable {
	l := w.call.layer
	now := l.clock.Now()
	every := bookmarkEvery - time.Duration(l.random64()%uint64(bookmarkEvery/10))
	return &timetable{clock: l.clock, end: now.Add(timeout), last: now.Add(timeout - lastBookmark), regular: now.Add(every), every: every}
}

// passed reports whether a bookmark is due, and goes on to the next.
func (t *timetable) passed(now time.Time) (due bool) {
	if !now.Before(t.last) {
		due, t.last = true, t.end
	}
	for !now.Before(t.regular) {
		due, t.regular = true, t.regular.Add(t.every)
	}
	return due
}

// next is how long it is until something is to be done.
func (t *timetable) next() time.Duration {
	at := t.last
	if t.regular.Before(at) {
		at = t.regular
	}
	return max(at.Sub(t.clock.Now()), 0)
}
