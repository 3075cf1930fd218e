//go:build linux

package real

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

var processFaults = []*Fault{
	{Name: "kill-follower", Row: 1, About: "SIGKILL a follower", Times: 5, Inject: killFollower},
	{Name: "kill-leader", Row: 2, About: "SIGKILL the leader", Times: 5, Inject: killLeader},
	{Name: "kill-majority", Row: 3, About: "SIGKILL a majority", Inject: killMajority},
	{Name: "kill-all", Row: 4, About: "SIGKILL all, start in any order", Inject: killAll},
	{Name: "kill-recovering", Row: 6, About: "SIGKILL while it recovers, up to five deep", Inject: killRecovering},
	{Name: "stop-leader", Row: 7, About: "SIGTERM the leader", Times: 5, Inject: stopLeader},
	{Name: "pause-leader", Row: 8, About: "SIGSTOP the leader for three election timeouts", Inject: pauseLeader},
	{Name: "freeze-leader", Row: 8, About: "the freezer holds the leader for three election timeouts", Inject: freezeLeader},
	{Name: "pause-follower", Row: 9, About: "SIGSTOP a follower", Inject: pauseFollower},
	{Name: "pause-all", Row: 9, About: "SIGSTOP all members", Inject: pauseAll},
	{Name: "starve-leader", Row: 10, About: "the leader gets a tenth of a CPU", Inject: starveLeader},
}

func killFollower(r *Run) error {
	m, err := r.follower()
	if err != nil {
		return err
	}
	before, err := r.leader()
	if err != nil {
		return fmt.Errorf("%w: %w", errNothing, err)
	}
	if err := m.kill("kill"); err != nil {
		return err
	}
	r.pause(200*time.Millisecond, 600*time.Millisecond)
	if after, err := r.leader(); err == nil && before != after {
		return fmt.Errorf("O9: the leader changed from %s to %s when a follower was killed", before.Name, after.Name)
	}
	return nil
}

func killLeader(r *Run) error {
	m, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	if err := m.kill("kill"); err != nil {
		return err
	}
	return r.newLeader(m)
}

// killMajority demands that nothing is acknowledged while there is no quorum.
func killMajority(r *Run) error {
	all := r.shuffled()
	lost := all[:len(all)/2+1]
	for _, m := range lost {
		if err := m.kill("kill"); err != nil {
			return err
		}
	}
	r.pause(100*time.Millisecond, 200*time.Millisecond) // answers that are on their way
	if err := r.nobodyServes(time.Second); err != nil {
		return err
	}
	return lost[0].start()
}

func killAll(r *Run) error {
	for _, m := range r.shuffled() {
		if err := m.kill("kill"); err != nil {
			return err
		}
	}
	for _, m := range r.shuffled() {
		if err := m.start(); err != nil {
			return err
		}
		r.pause(0, 300*time.Millisecond)
	}
	return nil
}

// killRecovering kills a member at a moment of its start, again and again.
func killRecovering(r *Run) error {
	m := r.some()
	for range 2 + r.rand.IntN(4) {
		if err := m.kill("kill"); err != nil {
			return err
		}
		if err := m.start(); err != nil {
			return err
		}
		r.pause(0, 150*time.Millisecond)
	}
	return nil
}

// stopLeader demands that leadership is handed over: nobody waits for an election.
func stopLeader(r *Run) error {
	m, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	if err := m.stop(); err != nil {
		return err
	}
	return r.newLeader(m)
}

func pauseLeader(r *Run) error {
	m, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	return r.paused(3*r.Election, m)
}

func pauseFollower(r *Run) error {
	m, err := r.follower()
	if err != nil {
		return err
	}
	return r.paused(r.between(r.Election, 3*r.Election), m)
}

func pauseAll(r *Run) error { return r.paused(r.between(r.Election, 3*r.Election), r.members()...) }

// paused stops processes for a time.
func (r *Run) paused(d time.Duration, members ...*Member) error {
	for _, m := range members {
		if err := m.signal(unix.SIGSTOP); err != nil {
			return err
		}
	}
	time.Sleep(d)
	var errs []error
	for _, m := range members {
		errs = append(errs, m.signal(unix.SIGCONT))
	}
	return errors.Join(errs...)
}

func freezeLeader(r *Run) error {
	m, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	g, err := r.group(m, "freezer")
	if err != nil {
		return err
	}
	if err := g.set("freezer.state", "FROZEN"); err != nil {
		return err
	}
	time.Sleep(3 * r.Election)
	was := g.get("freezer.state")
	if err := errors.Join(g.set("freezer.state", "THAWED"), g.remove()); err != nil {
		return err
	}
	if was != "FROZEN" {
		return fmt.Errorf("%w: the freezer says %s", errNothing, was)
	}
	return nil
}

// starveLeader counts when the kernel has held the process back.
func starveLeader(r *Run) error {
	m, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	g, err := r.group(m, "cpu")
	if err != nil {
		return err
	}
	if err := errors.Join(g.set("cpu.cfs_period_us", "20000"), g.set("cpu.cfs_quota_us", "2000")); err != nil {
		return err
	}
	time.Sleep(r.between(2*time.Second, 3*time.Second))
	held := number(g.get("cpu.stat"), "nr_throttled")
	if err := g.remove(); err != nil {
		return err
	}
	if held == 0 {
		return fmt.Errorf("%w: never throttled", errNothing)
	}
	return nil
}
