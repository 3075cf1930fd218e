//go:build linux

package real

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// This file is what faults have in common.

// between is a time drawn from a range.
func (r *Run) between(from, to time.Duration) time.Duration {
	if to <= from {
		return from
	}
	return from + time.Duration(r.rand.Int64N(int64(to-from)))
}

// pause waits for a time drawn from a range.
func (r *Run) pause(from, to time.Duration) { time.Sleep(r.between(from, to)) }

// shuffled is all members, in any order.
func (r *Run) shuffled() []*Member {
	all := r.members()
	r.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// newLeader waits until somebody else leads.
func (r *Run) newLeader(than *Member) error {
	err := within(patience, func() error {
		m, err := r.leader()
		if err == nil && m == than {
			return fmt.Errorf("%s leads still", m.Name)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("O9: %v without a new leader: %w", patience, err)
	}
	return nil
}

// nobodyServes demands that for a time no write is acknowledged to anybody. Its
// callers have seen to it that there is no quorum.
func (r *Run) nobodyServes(d time.Duration) error {
	before := r.load.writes.Load()
	time.Sleep(d)
	if n := r.load.writes.Load() - before; n > 0 {
		return fmt.Errorf("O4: %d writes were acknowledged without a quorum", n)
	}
	return nil
}

// group puts a member's process into a cgroup of its own. What this machine does
// not have is skipped.
func (r *Run) group(m *Member, controller string) (*cgroup, error) {
	g, err := newCgroup(r.owner, controller, m.Name, m.pid())
	if errors.Is(err, errNoCgroup) {
		return nil, fmt.Errorf("%w: %w", errSkipped, err)
	}
	return g, err
}

// number finds "name value" in a text of lines; 0 when it is not there.
func number(text, name string) int {
	for _, line := range strings.Split(text, "\n") {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			n, _ := strconv.Atoi(f[1]) // the kernel writes numbers
			return n
		}
	}
	return 0
}
