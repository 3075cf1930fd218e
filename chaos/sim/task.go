package sim

import (
	"iter"
	"slices"
	"time"
)

// task is something that waits in the middle: a request that a member serves, an
// expiry of leases. It is a coroutine, and runs only when it is resumed.
type task struct {
	m     *member
	next  func() (func() bool, bool)
	stop  func()
	yield func(func() bool) bool
	ready func() bool // what it waits for
	due   bool        // its resumption is planned
}

// spawn begins a task of the member and runs it up to its first wait.
func (m *member) spawn(fn func()) {
	t := &task{m: m}
	t.next, t.stop = iter.Pull(func(yield func(func() bool) bool) {
		t.yield = yield
		fn()
	})
	m.parked = append(m.parked, t)
	m.resume(t)
}

func (m *member) resume(t *task) {
	s := m.s
	before := s.running
	s.running = t
	ready, waits := t.next()
	s.running = before
	t.ready, t.due = ready, false
	if !waits {
		if i := slices.Index(m.parked, t); i >= 0 {
			m.parked = slices.Delete(m.parked, i, i+1)
		}
	}
}

// park suspends the task that runs. See server.SteppedWorld.
func (s *Sim) park(ready func() bool) bool {
	if ready() {
		return true
	}
	return s.running.yield(ready)
}

// wake plans the resumption of tasks that can go on: some at once, some later, as
// a scheduler does.
func (m *member) wake() (resumed bool) {
	for _, t := range slices.Clone(m.parked) {
		if t.due || t.ready == nil || !t.ready() {
			continue
		}
		t.due = true
		if d := m.s.cfg.ScheduleDelay; d > 0 && m.s.chance.sched.IntN(2) == 0 {
			m.after(time.Duration(m.s.chance.sched.Int64N(int64(d))), func() {
				m.resume(t)
				m.turn()
			})
			continue
		}
		m.resume(t)
		resumed = true
	}
	return resumed
}

// abandon ends the tasks of a member that is gone.
func (m *member) abandon() {
	left := m.parked
	m.parked = nil
	for _, t := range left {
		before := m.s.running
		m.s.running = t
		t.stop()
		m.s.running = before
	}
}
