package server

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft"
)

// logMetrics are about what this member asks of the log.
type logMetrics struct {
	clock   clock.Clock
	pending prometheus.Gauge
	failed  prometheus.Counter

	readsFailed, readsSlow prometheus.Counter
}

func newLogMetrics(k maker, c clock.Clock) logMetrics {
	return logMetrics{
		clock:       c,
		pending:     k.gauge("etcd_server_proposals_pending", "The current number of pending proposals to commit."),
		failed:      k.counter("etcd_server_proposals_failed_total", "The total number of failed proposals seen."),
		readsFailed: k.counter("etcd_server_read_indexes_failed_total", "Linearizable reads that could not learn how far they must wait."),
		readsSlow:   k.counter("etcd_server_slow_read_indexes_total", "Linearizable reads that timed out."),
	}
}

// countedLog counts what is asked of a log, and traces it.
type countedLog struct {
	replica
	m     *logMetrics
	trace Tracer // nil: nobody traces
}

func (l countedLog) Propose(ctx context.Context, kind uint8, principal string, body []byte) (any, error) {
	ctx, end := step(ctx, l.trace, "propose")
	l.m.pending.Inc()
	result, err := l.replica.Propose(ctx, kind, principal, body)
	end(err)
	l.m.ended(err)
	return result, err
}

// ProposeAll counts the commands as pending, also when they are not taken: their
// owner counts each end.
func (l countedLog) ProposeAll(cmds []*raft.Command) error {
	l.m.pending.Add(float64(len(cmds)))
	return l.replica.ProposeAll(cmds)
}

// ended counts a command that is not pending any more.
func (m *logMetrics) ended(err error) {
	m.pending.Dec()
	if err != nil && !isRefusal(err) {
		m.failed.Inc()
	}
}

// isRefusal reports whether a command was applied, and refused then: its
// proposal did not fail.
func isRefusal(err error) bool {
	var refusal *api.Error
	if !errors.As(err, &refusal) {
		return false
	}
	switch refusal {
	case api.ErrStopped, api.ErrTimeout, api.ErrNoLeader, api.ErrLeaderChanged, api.ErrTimeoutLeaderFail, api.ErrTimeoutConnLost, api.ErrTooManyRequests:
		return false
	}
	return true
}

func (l countedLog) ReadBarrier(ctx context.Context) error {
	ctx, end := step(ctx, l.trace, "wait until this member has caught up")
	err := l.replica.ReadBarrier(ctx)
	end(err)
	l.m.proved(err)
	return err
}

func (l countedLog) AfterBarrier(fn func(error)) {
	l.replica.AfterBarrier(func(err error) {
		l.m.proved(err)
		fn(err)
	})
}

// proved counts a read barrier that has ended.
func (m *logMetrics) proved(err error) {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
	case errors.Is(err, api.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		m.readsSlow.Inc()
		fallthrough
	default:
		m.readsFailed.Inc()
	}
}

// TransferLeaderTo passes through to a log that can.
func (l countedLog) TransferLeaderTo(ctx context.Context, to api.MemberID) error {
	if mover, ok := l.replica.(leaderMover); ok {
		return mover.TransferLeaderTo(ctx, to)
	}
	return api.ErrBadTransferee
}
