//go:build linux

package real

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Faults in which a follower lags so far that it needs the whole state. All but the
// keeper give their log up soon; the keeper neither leads nor lags, so that the
// oracles can read a whole log.
var snapshotFaults = []*Fault{
	{Name: "lagging-snapshot", Row: 42, About: "a follower lags until it needs the state, and crashes while it gets it, or not", Times: 2, Tuned: true, Logs: incomplete, Setup: shortLogs, Inject: laggingSnapshot},
	{Name: "kill-compacting", Row: 43, About: "SIGKILL a follower that gets the state while history is compacted", Times: 2, Tuned: true, Logs: incomplete, Setup: shortLogs, Inject: killCompacting},
}

// incomplete is what a member says of a state whose end did not come.
var incomplete = []string{"snapshot"}

// keeperSeat is that of the member which keeps its log, shortLog what the others
// keep of theirs.
const (
	keeperSeat = 3
	shortLog   = 256 << 10
)

func shortLogs(r *Run) error {
	for _, m := range r.members() {
		if m.seat != keeperSeat {
			m.env = append(m.env, fmt.Sprint("KEELSON_LOG_BYTES=", shortLog))
		}
	}
	return nil
}

// lag cuts a follower from the others, clients stay, until the leader has given up
// the part of the log that it would need, and heals. caughtUp then demands that the
// follower becomes whole again, and got the state for it.
func (r *Run) lag() (m *Member, caughtUp func() error, err error) {
	pair := r.members()[:2]
	lead := r.lags % 2 // a leader keeps its log a while for whom it has sent a state
	r.lags++
	m = pair[1-lead]
	if err := r.handOver(pair[lead]); err != nil {
		return nil, nil, err
	}
	lines := len(pair[lead].lines())
	for _, o := range r.peers(m) {
		r.net.SetBoth(m.Addr, o, Link{Cut: true})
	}
	for _, d := range []time.Duration{2 * time.Second, 0} { // the log goes once the store is on the disk
		for i := range 4 * shortLog / bigBytes {
			r.mine.big(i)
		}
		time.Sleep(d)
	}
	for _, o := range r.peers(m) { // or what is on its way would come yet
		r.net.SetBoth(m.Addr, o, Link{Reset: true})
	}
	time.Sleep(200 * time.Millisecond)
	r.net.Heal()
	return m, func() error {
		if err := within(patience, r.together); err != nil {
			return fmt.Errorf("O5: a member that lagged: %w", err)
		}
		if !mentions(pair[lead], lines, saysSending) {
			return fmt.Errorf("%w: the follower needed no state", errNothing)
		}
		return nil
	}, nil
}

// saysSending is what a leader says of a follower that needs the state.
const saysSending = "sending a snapshot"

// handOver makes a member lead.
func (r *Run) handOver(to *Member) error {
	err := within(patience, func() error {
		l, err := r.leader()
		if err != nil || l == to {
			return err
		}
		return r.admin(l, func(ctx context.Context, _ pb.ClusterClient, c pb.MaintenanceClient, _ pb.KVClient) error {
			_, err := c.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: to.ID})
			if err == nil {
				err = fmt.Errorf("%s does not lead yet", to.Name)
			}
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("O9: make %s lead: %w", to.Name, err)
	}
	return nil
}

func laggingSnapshot(r *Run) error {
	m, caughtUp, err := r.lag()
	if err != nil {
		return err
	}
	if r.rand.IntN(2) == 0 {
		r.pause(0, 300*time.Millisecond)
		if err := r.restart(m, "kill"); err != nil {
			return err
		}
	}
	return caughtUp()
}

// killCompacting demands that the member's revision does not go back for good.
func killCompacting(r *Run) error {
	m, caughtUp, err := r.lag()
	if err != nil {
		return err
	}
	newest := int64(0)
	for range 4 {
		if err := r.compactSome(); err != nil {
			return err
		}
		r.pause(0, 150*time.Millisecond)
		if st, err := m.status(); err == nil {
			newest = max(newest, st.Header.Revision)
		}
		if err := r.restart(m, "kill"); err != nil {
			return err
		}
	}
	if err := caughtUp(); err != nil {
		return err
	}
	st, err := m.status()
	if err == nil && st.Header.Revision < newest {
		err = fmt.Errorf("O1: %s went back from revision %d to %d", m.Name, newest, st.Header.Revision)
	}
	return err
}
