package auth

import (
	"sync"
	"time"

	"github.com/keelson-io/keelson/clock"
)

const (
	// maxThrottled pairs of user and client are remembered.
	maxThrottled = 16384
	// maxPause is the longest that a client has to wait for its next attempt.
	maxPause = time.Minute
	// forgetAfter is how long failures count.
	forgetAfter = 15 * time.Minute
)

// Throttle slows the guessing of passwords down: after a number of failures in a
// row, a client has to wait before it tries the same user again; one second at
// first, twice as long after each further failure. It counts by user and client
// address, so that nobody can shut another one out. Safe for concurrent use.
type Throttle struct {
	clock clock.Clock
	free  int // failures without a pause; 0: no throttle

	mu struct {
		sync.Mutex
		failed map[attempt]failures
	}
}

type attempt struct{ user, client string }

type failures struct {
	count int
	last  time.Time
}

// NewThrottle lets free attempts in a row fail before it slows down; 0 never does.
func NewThrottle(c clock.Clock, free int) *Throttle {
	t := &Throttle{clock: c, free: free}
	t.mu.failed = map[attempt]failures{}
	return t
}

// Allow reports whether the client may try the user's password now.
func (t *Throttle) Allow(user, client string) bool {
	if t.free <= 0 {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.mu.failed[attempt{user, client}]
	return t.clock.Now().Sub(f.last) >= t.pause(f.count)
}

func (t *Throttle) pause(count int) time.Duration {
	if count < t.free {
		return 0
	}
	return min(time.Second<<min(count-t.free, 10), maxPause)
}

// Failed counts a wrong password.
func (t *Throttle) Failed(user, client string) {
	if t.free <= 0 {
		return
	}
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	key := attempt{user, client}
	f, found := t.mu.failed[key]
	if now.Sub(f.last) > forgetAfter {
		f.count = 0
	}
	if !found && len(t.mu.failed) >= maxThrottled {
		t.makeRoomLocked(now)
	}
	t.mu.failed[key] = failures{count: f.count + 1, last: now}
}

// makeRoomLocked forgets what is old, or else some that is not: who can fill the
// table has that many addresses to guess from anyway.
func (t *Throttle) makeRoomLocked(now time.Time) {
	for k, f := range t.mu.failed {
		if now.Sub(f.last) > forgetAfter {
			delete(t.mu.failed, k)
		}
	}
	for k := range t.mu.failed {
		if len(t.mu.failed) < maxThrottled*3/4 {
			return
		}
		delete(t.mu.failed, k)
	}
}

// Passed forgets the failures: the client knows the password.
func (t *Throttle) Passed(user, client string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.mu.failed, attempt{user, client})
}
