package server

import (
	"context"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
)

// The space quota, by etcd's rules: a request that could store something is
// refused when the database and an estimate of the request reach the quota, and
// then an alarm is raised that makes every member refuse such requests. Deletes,
// compactions and revocations go on. Unlike etcd, the member that raised it
// clears the alarm when space has come back, and makes it come back.

// What a request is estimated to take beside its keys and values; etcd's figures.
const (
	keyOverhead   = 256
	leaseOverhead = 64
)

// The alarm is cleared at clearPercent of the quota: below the point where it
// rises, so that the two do not follow each other at once. At reclaimPercent in
// use the file is worth being rewritten for that.
const (
	clearPercent   = 90
	reclaimPercent = 80
	quotaCheck     = time.Second // between looks at the size
)

func putCost(r *putRequest) int64 { return int64(keyOverhead + len(r.key) + len(r.value)) }

// txnCost is that of the dearer branch.
func txnCost(r *txnRequest) int64 { return max(opsCost(r.success), opsCost(r.failure)) }

func opsCost(ops []op) (sum int64) {
	for i := range ops {
		switch {
		case ops[i].put != nil:
			sum += putCost(ops[i].put)
		case ops[i].txn != nil:
			sum += txnCost(ops[i].txn)
		}
	}
	return sum
}

// admitCost refuses a request that would pass the quota, and raises the alarm.
// It comes before the request's fields are checked, as in etcd.
func (s *Server) admitCost(ctx context.Context, cost int64) error {
	if s.hasRoom(cost) {
		return nil
	}
	s.upkeep.raiseNoSpace(ctx)
	return api.ErrNoSpace
}

func (s *Server) hasRoom(cost int64) bool {
	quota := s.upkeep.view.quota()
	return cost == 0 || quota < 0 || s.Store().Space().Needed()+cost < quota
}

// raiseNoSpace raises the alarm of this member unless it stands. A failure needs
// nothing: the next request, or the watch over the size, tries again.
func (u *upkeep) raiseNoSpace(ctx context.Context) {
	if u.alarms.current.Load().find(uint64(u.s.id), pb.AlarmType_NOSPACE) != nil {
		return
	}
	u.log.Warn("the database reaches its quota; raising an alarm",
		slog.Int64("bytes", u.s.Store().Space().Needed()), slog.Int64("quota", u.view.quota()))
	r := &pb.AlarmRequest{MemberID: uint64(u.s.id), Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}
	if err := u.ask(ctx, commandQuotaAlarm, r, nil); err != nil {
		u.log.Warn("cannot raise the alarm", slog.Any("error", err))
	}
}

// watchQuota raises and clears the alarm of this member until ctx ends.
func (u *upkeep) watchQuota(ctx context.Context) {
	every(ctx, u.clock, quotaCheck, u.checkSpace)
}

// checkSpace is one look at the size.
func (u *upkeep) checkSpace(ctx context.Context) {
	space, quota := u.s.Store().Space(), u.view.quota()
	set := u.alarms.current.Load()
	raised := set.find(uint64(u.s.id), pb.AlarmType_NOSPACE) != nil
	switch {
	case quota > 0 && !raised && space.Needed() >= quota:
		u.raiseNoSpace(ctx)
	case raised && set.origin[alarmKey{pb.AlarmType_NOSPACE, uint64(u.s.id)}] == byQuota && u.cfg.NoSpaceAutoDisarm:
		u.freeSpace(ctx, space, quota)
	case u.cfg.NoSpaceAutoDisarm && u.clearForRemoved(ctx, set):
	case u.nearlyFull(space, quota):
		u.tryDefragment(ctx, "the quota is near and the file has free space", nearPause)
	case u.looseEnough(space):
		u.tryDefragment(ctx, "much of the file is free", loosePause)
	}
}

// nearlyFull reports that a rewrite keeps the file, or brings it back, below the
// quota.
func (u *upkeep) nearlyFull(space mvcc.Space, quota int64) bool {
	return u.cfg.NoSpaceAutoDisarm && quota > 0 &&
		space.Needed() > quota/100*clearPercent && space.InUse+space.Tail <= quota/100*reclaimPercent
}

// freeSpace clears the alarm when there is room, and makes room when the file
// has it: after a compaction under way, lest it be made twice.
func (u *upkeep) freeSpace(ctx context.Context, space mvcc.Space, quota int64) {
	switch {
	case quota < 0 || space.Needed() <= quota/100*clearPercent:
		u.log.Info("there is space again; clearing the alarm", slog.Int64("bytes", space.Needed()), slog.Int64("quota", quota))
		u.clearNoSpace(ctx, uint64(u.s.id))
	case u.nearlyFull(space, quota) && !u.s.Store().Reclaiming():
		u.tryDefragment(ctx, "the quota is reached and the file has free space", fullPause)
	}
}

func (u *upkeep) clearNoSpace(ctx context.Context, member uint64) {
	r := &pb.AlarmRequest{MemberID: member, Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}
	if err := u.ask(ctx, commandQuotaAlarm, r, nil); err != nil {
		u.log.Warn("cannot clear the alarm", slog.Any("error", err))
	}
}

// clearForRemoved has the leader clear the quota's alarm of a member that was removed,
// which cannot do so itself, and would have all others refuse writes for ever.
func (u *upkeep) clearForRemoved(ctx context.Context, set *alarmSet) bool {
	for _, a := range set.list {
		id := api.MemberID(a.MemberID)
		if _, there := u.s.members.find(id); set.origin[keyOf(a)] == byQuota && !there && u.leads() {
			u.log.Info("clearing the alarm of a member that was removed", slog.Any("member", id))
			u.clearNoSpace(ctx, a.MemberID)
			return true
		}
	}
	return false
}

// What makes the file be rewritten without a quota: the configured share of it,
// and enough bytes for it to be worth the work.
const (
	minLooseBytes = 64 << 20
	// Between two rewrites that nobody asked for.
	loosePause = 10 * time.Minute
	nearPause  = time.Minute
	fullPause  = 5 * time.Second // while writes are refused
)

// looseEnough waits for a compaction under way: what it is about to delete need not
// be copied, and the next rewrite is far away.
func (u *upkeep) looseEnough(space mvcc.Space) bool {
	free := space.Allocated - space.InUse
	percent := int64(u.cfg.AutoDefragPercent)
	return percent > 0 && free >= minLooseBytes && free >= space.Allocated/100*percent && !u.s.Store().Reclaiming()
}
