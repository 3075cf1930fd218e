package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
)

// Members that applied the same log hold the same history. These checks compare
// what they hold, by hashes, and raise a CORRUPT alarm for whom they blame:
//
//	initial     a member compares itself with the others before it serves clients
//	periodic    the leader compares the whole history, as stored
//	compaction  the leader compares what each compaction covered, as stored
//	rolling     the leader compares what was ever applied, and finds the first
//	            revision in which members differ
//
// The first three follow etcd's rules; the last is ours and costs nearly nothing.

// checkProgress is what the checks remember.
type checkProgress struct {
	compacted atomic.Int64 // the latest compaction that all members agreed on
	divergent atomic.Int64 // the first divergent revision that was found; 0: none
}

// ErrInconsistent ends the start of a member that differs from the others.
var ErrInconsistent = errors.New("found data inconsistency with peers")

// checkInitially compares this member's history with that of the others, before
// clients are served. Those who cannot answer, or stand elsewhere, are passed over.
func (u *upkeep) checkInitially(ctx context.Context) error {
	own, _, err := u.s.Store().HashKV(ctx, 0)
	if err != nil {
		return fmt.Errorf("%s failed to fetch hash (%w)", u.s.id, err)
	}
	differ := 0
	for _, p := range u.peerHashes(ctx, own.Revision) {
		switch {
		case p.err != nil:
			u.log.Warn("cannot compare with a member", slog.String("member", p.id.String()), slog.Any("error", p.err))
		case p.hash.Hash != own.Hash && p.hash.Compact == own.Compact:
			u.log.Error("this member's history differs from another's", slog.String("member", p.id.String()),
				slog.Int64("revision", int64(own.Revision)), slog.Int64("compact-revision", int64(own.Compact)),
				slog.Uint64("own-hash", uint64(own.Hash)), slog.Uint64("hash", uint64(p.hash.Hash)))
			differ++
		}
	}
	if differ > 0 {
		return fmt.Errorf("%s %w", u.s.id, ErrInconsistent)
	}
	return nil
}

// checkHistory is the periodic check. Leader only.
func (u *upkeep) checkHistory(ctx context.Context) {
	store := u.s.Store()
	first, _, err := store.HashKV(ctx, 0)
	var peers []peerHash
	if err == nil {
		peers = u.peerHashes(ctx, first.Revision)
		err = u.s.node.ReadBarrier(ctx)
	}
	var second mvcc.KVHash
	var current api.Revision
	if err == nil {
		second, current, err = store.HashKV(ctx, 0)
	}
	if err != nil {
		u.log.Warn("cannot check the history", slog.Any("error", err))
		return
	}
	if second.Hash != first.Hash && second.Revision == first.Revision && second.Compact == first.Compact {
		u.blame(ctx, "this member's history changes by itself", first.Revision, u.s.id)
		return
	}
	for _, p := range peers {
		switch {
		case p.err != nil:
			u.log.Debug("cannot compare with a member", slog.String("member", p.id.String()), slog.Any("error", p.err))
		case p.current > current:
			u.blame(ctx, "a member's revision is beyond the leader's", p.current, p.id)
			return
		case p.hash.Compact > second.Compact:
			u.blame(ctx, "a member's compact revision is beyond the leader's", p.hash.Compact, p.id)
			return
		case p.hash.Compact == first.Compact && p.hash.Hash != first.Hash:
			u.blame(ctx, "a member's history differs from the leader's", first.Revision, p.id)
			return
		}
	}
}

// checkCompactions compares the hashes that compactions made, the latest first,
// until one was compared with all members. Leader only.
func (u *upkeep) checkCompactions(ctx context.Context) {
	hashes := u.s.Store().CompactionHashes()
	slices.Reverse(hashes)
	for _, own := range hashes {
		if int64(own.Revision) <= u.checks.compacted.Load() {
			return
		}
		groups := map[uint32][]api.MemberID{own.Hash: {u.s.id}}
		peers := u.peerHashes(ctx, own.Revision)
		asked := 0
		for _, p := range peers {
			if p.err == nil && p.hash.Compact == own.Compact {
				groups[p.hash.Hash] = append(groups[p.hash.Hash], p.id)
				asked++
			}
		}
		if len(groups) > 1 {
			u.name(ctx, "members hold different histories of a compaction", own.Revision, minority(groups, len(peers)+1)...)
			return
		}
		if asked == len(peers) {
			u.checks.compacted.Store(int64(own.Revision))
			return
		}
	}
}

// minority names the members that differ from a majority of all, or 0, which
// stands for the whole cluster, when no majority agrees.
func minority[H comparable](groups map[H][]api.MemberID, all int) []api.MemberID {
	var out []api.MemberID
	agreed := false
	for _, ids := range groups {
		if len(ids) > all/2 {
			agreed = true
		} else {
			out = append(out, ids...)
		}
	}
	if !agreed {
		return []api.MemberID{0}
	}
	slices.Sort(out)
	return out
}

// blame raises the CORRUPT alarm for members that differ from the leader.
func (u *upkeep) blame(ctx context.Context, why string, at api.Revision, ids ...api.MemberID) {
	u.raiseCorrupt(ctx, commandAlarm, why, at, ids)
}

// name does so for those that minority has found: they rebuild their state, unless
// it is nobody in particular.
func (u *upkeep) name(ctx context.Context, why string, at api.Revision, ids ...api.MemberID) {
	kind := commandDivergent
	if slices.Contains(ids, 0) {
		kind = commandAlarm
	}
	u.raiseCorrupt(ctx, kind, why, at, ids)
}

func (u *upkeep) raiseCorrupt(ctx context.Context, kind uint8, why string, at api.Revision, ids []api.MemberID) {
	for _, id := range ids {
		u.log.Error("data corruption", slog.String("reason", why), slog.String("member", id.String()), slog.Int64("revision", int64(at)))
		if u.alarms.current.Load().find(uint64(id), pb.AlarmType_CORRUPT) != nil {
			continue
		}
		r := &pb.AlarmRequest{MemberID: uint64(id), Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_CORRUPT}
		if err := u.ask(ctx, kind, r, nil); err != nil {
			u.log.Error("cannot raise the alarm", slog.Any("error", err))
		}
	}
}

// checkRolling compares the rolling hashes of all members at the newest revision
// that each has. Leader only.
func (u *upkeep) checkRolling(ctx context.Context) {
	own, _ := u.s.Store().RollingHash(u.s.Store().Revision())
	groups := map[uint64][]api.MemberID{}
	var parted []rollingAnswer
	peers := u.askAll(ctx, callRolling, appendInt(nil, fieldAskedRevision, int64(own.Revision)))
	agree := []api.MemberID{u.s.id}
	for _, p := range peers {
		theirs, err := decodeRolling(p)
		if err != nil || theirs.Base != own.Base {
			continue // unknown, or not to be compared
		}
		mine, ok := u.s.Store().RollingHash(theirs.Revision)
		switch {
		case !ok || mine.Revision != theirs.Revision:
		case mine.Value == theirs.Value:
			agree = append(agree, p.id)
		default:
			groups[theirs.Value] = append(groups[theirs.Value], p.id)
			parted = append(parted, theirs)
		}
	}
	if len(parted) == 0 {
		return
	}
	at := parted[0].Revision
	for _, theirs := range parted {
		at = min(at, u.firstDivergent(ctx, theirs))
	}
	u.checks.divergent.Store(int64(at))
	groups[own.Value] = append(groups[own.Value], agree...)
	u.name(ctx, "members applied different changes, first in this revision", at, minority(groups, len(peers)+1)...)
}

// firstDivergent finds the first revision in which a member differs from this
// one, by halving. It is the oldest that both remember when they differ there
// already: then they parted at it or before.
func (u *upkeep) firstDivergent(ctx context.Context, theirs rollingAnswer) api.Revision {
	low, high := max(theirs.first, u.s.Store().RollingHashFrom()), theirs.Revision // they differ at high
	for low < high {
		at := low + (high-low)/2
		same, err := u.sameAt(ctx, theirs.member, at)
		if err != nil {
			u.log.Warn("cannot narrow down where members differ", slog.Any("error", err))
			return high
		}
		if same {
			low = at + 1
		} else {
			high = at
		}
	}
	return high
}

func (u *upkeep) sameAt(ctx context.Context, id api.MemberID, at api.Revision) (bool, error) {
	ctx, cancel := u.s.withTimeout(ctx, u.s.requestTimeout())
	defer cancel()
	body, err := u.s.node.Call(ctx, id, callRolling, appendInt(nil, fieldAskedRevision, int64(at)))
	if err != nil {
		return false, err
	}
	theirs, err := decodeRolling(peerAnswer{id: id, body: body})
	if err != nil {
		return false, err
	}
	mine, ok := u.s.Store().RollingHash(at)
	if !ok || theirs.Revision != at {
		return false, fmt.Errorf("revision %d is not remembered any more", at)
	}
	return mine.Value == theirs.Value, nil
}
