package raft

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
)

// standAlone makes this member the only one: after the last entry of its log it
// writes one change that makes it a voter and one for each other member that
// removes it, and declares all of it committed. That includes entries of which
// it never learned whether they were: their callers may have been told so by
// members that are gone, and for all others the outcome is unknown anyway.
//
// The changes have a term of their own, in which nobody else was elected, so no
// log of another member continues in the same way. Crash before fit syncs leaves
// the log as it was; after it the member is alone.
func (r *recovered) standAlone(cfg *Config) error {
	if r.hard.Term == 0 {
		return errors.New("raft: a member that has no log cannot stand alone")
	}
	known := r.hard.Commit
	r.hard.Commit = r.wal.Last()
	others, err := r.others(cfg.ID)
	if err != nil {
		return err
	}
	if len(others) == 0 {
		r.hard.Commit = known
		return nil // it has been alone for some time
	}
	r.hard.Term++
	r.hard.Vote = cfg.ID
	var entries []*raftpb.Entry
	add := func(op ConfOp, id api.MemberID, context []byte) error {
		data, typ, err := confEntry(op, id, context)
		if err != nil {
			return err
		}
		r.hard.Commit++
		entries = append(entries, &raftpb.Entry{
			Term: new(uint64(r.hard.Term)), Index: new(uint64(r.hard.Commit)), Type: typ.Enum(), Data: data,
		})
		return nil
	}
	// A change that is not needed is refused when it is applied.
	if err := add(ConfAddVoter, cfg.ID, cfg.AloneContext); err != nil {
		return err
	}
	for _, id := range others {
		if err := add(ConfRemove, id, nil); err != nil {
			return err
		}
	}
	cfg.Logger.Warn("this member stands alone now", "removed", others,
		"known_to_be_committed", uint64(known), "taken_for_committed", uint64(r.hard.Commit))
	return r.wal.Append(&r.hard, entries)
}

// others are all members that this one may know after it has applied its log,
// beside itself; some of them may be gone already.
func (r *recovered) others(self api.MemberID) ([]api.MemberID, error) {
	conf := r.state.ConfState
	ids := slices.Concat(conf.GetVoters(), conf.GetLearners())
	for next := max(r.state.Index, r.wal.Start().Index) + 1; next <= r.hard.Commit; {
		entries, err := r.wal.Entries(next, r.hard.Commit+1, maxAppendBytes)
		if err != nil {
			return nil, fmt.Errorf("raft: read the log: %w", err)
		}
		for _, e := range entries {
			next = api.Index(e.GetIndex()) + 1
			if e.GetType() != raftpb.EntryConfChange {
				continue
			}
			cc := &raftpb.ConfChange{}
			if err := proto.Unmarshal(e.GetData(), cc); err != nil {
				return nil, fmt.Errorf("raft: membership entry %d: %w", e.GetIndex(), err)
			}
			ids = append(ids, cc.GetNodeId())
		}
	}
	slices.Sort(ids)
	var others []api.MemberID
	for _, id := range slices.Compact(ids) {
		if id != uint64(self) {
			others = append(others, api.MemberID(id))
		}
	}
	return others, nil
}

// confEntry encodes a change that no member proposed.
func confEntry(op ConfOp, id api.MemberID, context []byte) ([]byte, raftpb.EntryType, error) {
	typ, data, err := raftpb.MarshalConfChange(&raftpb.ConfChange{
		Type:    raftpb.ConfChangeType(op).Enum(),
		NodeId:  new(uint64(id)),
		Context: appendConfFrame(nil, frameKey{}, &confFrame{op: op, member: id, context: context}),
	})
	return data, typ, err
}
