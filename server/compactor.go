package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

// compactor compacts history by time or by number of revisions, as etcd's does
// to the same schedule: only the leader compacts, all members keep time, so that
// a new leader goes on where the old one ended.
type compactor struct {
	mode      string
	retention int64 // nanoseconds or revisions; 0: off

	clock    clock.Clock
	log      *slog.Logger
	revision func() api.Revision
	leads    func() bool
	compact  func(ctx context.Context, at api.Revision) error
}

const (
	// revisionInterval lies between two compactions by number.
	revisionInterval = 5 * time.Minute
	// maxCompactionInterval bounds the time between two compactions by time.
	maxCompactionInterval = time.Hour
	// samplesPerInterval is how often the revision is noted, and a failed
	// compaction tried again, within an interval.
	samplesPerInterval = 10
)

func (u *upkeep) compactor() *compactor {
	retention, err := u.cfg.retention()
	if err != nil {
		retention = 0 // Check has refused such a configuration
	}
	return &compactor{
		mode: u.cfg.AutoCompactionMode, retention: retention, clock: u.clock, log: u.log,
		revision: func() api.Revision { return u.s.Store().Revision() },
		leads:    u.leads,
		compact:  u.compact,
	}
}

// compact replicates a compaction.
func (u *upkeep) compact(ctx context.Context, at api.Revision) error {
	body, err := proto.Marshal(&pb.CompactionRequest{Revision: int64(at)})
	if err != nil {
		return err
	}
	_, err = u.s.node.Propose(ctx, commandCompact, "", body)
	return err
}

func (c *compactor) run(ctx context.Context) {
	switch {
	case c.retention <= 0:
	case c.mode == CompactPeriodic:
		c.periodic(ctx, time.Duration(c.retention))
	default:
		c.byRevision(ctx, api.Revision(c.retention))
	}
}

// sleep waits and reports whether to go on.
func (c *compactor) sleep(ctx context.Context, d time.Duration) bool {
	timer := c.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-ctx.Done():
		return false
	}
}

// periodic compacts to where the store stood a period ago: the first time after
// one period, then after each interval. revs holds the revisions of the last
// period, noted at equal distances.
func (c *compactor) periodic(ctx context.Context, period time.Duration) {
	interval := min(period, maxCompactionInterval)
	pause := max(interval/samplesPerInterval, 1)
	kept := int(period/pause) + 1
	var revs []api.Revision
	done, success, wait := api.Revision(0), c.clock.Now(), period
	for {
		if revs = append(revs, c.revision()); len(revs) > kept {
			revs = revs[1:]
		}
		if !c.sleep(ctx, pause) {
			return
		}
		if !c.leads() || c.clock.Now().Sub(success) < wait || revs[0] == done {
			continue
		}
		wait = interval
		if c.try(ctx, revs[0]) {
			done, success = revs[0], c.clock.Now()
		}
	}
}

// byRevision keeps the last revisions.
func (c *compactor) byRevision(ctx context.Context, keep api.Revision) {
	done := api.Revision(0)
	for c.sleep(ctx, revisionInterval) {
		at := c.revision() - keep
		if c.leads() && at > 0 && at != done && c.try(ctx, at) {
			done = at
		}
	}
}

// try compacts and reports whether that was done, by whomever.
func (c *compactor) try(ctx context.Context, at api.Revision) bool {
	err := c.compact(ctx, at)
	if err != nil && !errors.Is(err, api.ErrCompacted) {
		if ctx.Err() == nil {
			c.log.Warn("cannot compact", slog.String("mode", c.mode), slog.Int64("revision", int64(at)), slog.Any("error", err))
		}
		return false
	}
	c.log.Info("compacted", slog.String("mode", c.mode), slog.Int64("revision", int64(at)))
	return true
}
