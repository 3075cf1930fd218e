package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// Alarms are replicated: every member knows all of them and refuses the same
// commands at the same index. A row of bucket "alarm" has etcd's encoding, the
// AlarmMember message as its key and nothing as its value.
//
// An alarm that the space quota raised may be cleared by itself. It is told
// from one that a person raised by a row of ours in bucket "meta".

// quotaAlarmRow is the name of that row, followed by the member's id.
const quotaAlarmRow = "keelson_quota_alarm/"

// fieldAlarms is the field of AlarmResponse.
const fieldAlarms = 2

// alarmSet is one state of the alarms; it never changes once published.
type alarmSet struct {
	list    []*pb.AlarmMember // by type and member
	byQuota map[uint64]bool   // members whose NOSPACE alarm the quota raised
}

// alarms is the published state. Only the apply goroutine changes it.
type alarms struct{ current atomic.Pointer[alarmSet] }

func newAlarms() *alarms {
	a := &alarms{}
	a.current.Store(&alarmSet{})
	return a
}

// load reads the alarms at start and after a snapshot was installed.
func (a *alarms) load(store rawReader) error {
	next := &alarmSet{byQuota: map[uint64]bool{}}
	var bad error
	store.Raw(engine.Alarm, func(key, _ []byte) bool {
		var m pb.AlarmMember
		if err := proto.Unmarshal(key, &m); err != nil {
			bad = fmt.Errorf("alarms: row %x: %w", key, err)
			return false
		}
		next.list = append(next.list, &m)
		return true
	})
	store.Raw(engine.Meta, func(key, _ []byte) bool {
		if hex, ok := strings.CutPrefix(string(key), quotaAlarmRow); ok {
			var id uint64
			if _, err := fmt.Sscanf(hex, "%x", &id); err != nil {
				bad = fmt.Errorf("alarms: row %q: %w", key, err)
				return false
			}
			next.byQuota[id] = true
		}
		return true
	})
	next.sort()
	a.current.Store(next)
	return bad
}

func (s *alarmSet) sort() {
	slices.SortFunc(s.list, func(x, y *pb.AlarmMember) int {
		return cmp.Or(cmp.Compare(x.Alarm, y.Alarm), cmp.Compare(x.MemberID, y.MemberID))
	})
}

// of returns the alarms of a type, or all for NONE.
func (s *alarmSet) of(kind pb.AlarmType) (out []*pb.AlarmMember) {
	for _, m := range s.list {
		if kind == pb.AlarmType_NONE || m.Alarm == kind {
			out = append(out, m)
		}
	}
	return out
}

func (s *alarmSet) has(kind pb.AlarmType) bool {
	return slices.ContainsFunc(s.list, func(m *pb.AlarmMember) bool { return m.Alarm == kind })
}

func (s *alarmSet) find(id uint64, kind pb.AlarmType) *pb.AlarmMember {
	for _, m := range s.list {
		if m.MemberID == id && m.Alarm == kind {
			return m
		}
	}
	return nil
}

// apply changes the alarms and returns the ones the answer names. A command of
// the quota's clears only what the quota raised. Apply goroutine only.
func (a *alarms) apply(tx rawWriter, r *pb.AlarmRequest, quota bool) []*pb.AlarmMember {
	old := a.current.Load()
	switch r.Action {
	case pb.AlarmRequest_GET:
		return old.of(r.Alarm)
	case pb.AlarmRequest_ACTIVATE:
		if r.Alarm == pb.AlarmType_NONE {
			return nil
		}
		if m := old.find(r.MemberID, r.Alarm); m != nil {
			return []*pb.AlarmMember{m}
		}
		return []*pb.AlarmMember{a.activate(tx, &pb.AlarmMember{MemberID: r.MemberID, Alarm: r.Alarm}, quota)}
	case pb.AlarmRequest_DEACTIVATE:
		m := old.find(r.MemberID, r.Alarm)
		if m == nil || quota && !old.byQuota[r.MemberID] {
			return nil
		}
		a.deactivate(tx, m)
		return []*pb.AlarmMember{m}
	}
	return nil
}

func (a *alarms) activate(tx rawWriter, m *pb.AlarmMember, quota bool) *pb.AlarmMember {
	tx.SetRaw(engine.Alarm, alarmKey(m), nil)
	next := a.current.Load().clone()
	next.list = append(next.list, m)
	next.sort()
	if quota {
		tx.SetRaw(engine.Meta, quotaAlarmKey(m.MemberID), nil)
		next.byQuota[m.MemberID] = true
	}
	a.current.Store(next)
	return m
}

func (a *alarms) deactivate(tx rawWriter, m *pb.AlarmMember) {
	tx.DeleteRaw(engine.Alarm, alarmKey(m))
	next := a.current.Load().clone()
	next.list = slices.DeleteFunc(next.list, func(o *pb.AlarmMember) bool { return o == m })
	if m.Alarm == pb.AlarmType_NOSPACE && next.byQuota[m.MemberID] {
		tx.DeleteRaw(engine.Meta, quotaAlarmKey(m.MemberID))
		delete(next.byQuota, m.MemberID)
	}
	a.current.Store(next)
}

func (s *alarmSet) clone() *alarmSet {
	next := &alarmSet{list: slices.Clone(s.list), byQuota: map[uint64]bool{}}
	for id := range s.byQuota {
		next.byQuota[id] = true
	}
	return next
}

func alarmKey(m *pb.AlarmMember) []byte {
	key, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("alarms: cannot encode %v: %v", m, err)) // numbers only
	}
	return key
}

func quotaAlarmKey(id uint64) []byte { return fmt.Appendf(nil, "%s%x", quotaAlarmRow, id) }

// refuses says whether the alarms forbid a command, by etcd's rules: CORRUPT
// freezes the store, NOSPACE lets in only what needs no space. It looks at
// replicated state and the command alone. Apply goroutine only.
func (a *alarms) refuses(kind uint8, body []byte) error {
	set := a.current.Load()
	if len(set.list) == 0 {
		return nil
	}
	if set.has(pb.AlarmType_CORRUPT) {
		switch kind {
		case commandPut, commandDelete, commandTxn, commandCompact, commandLeaseGrant, commandLeaseRevoke, commandLeaseExpire:
			return api.ErrCorrupt
		}
	}
	if set.has(pb.AlarmType_NOSPACE) {
		switch kind {
		case commandPut, commandLeaseGrant:
			return api.ErrNoSpace
		case commandTxn:
			var r txnRequest
			if err := r.decode(body); err != nil {
				return err
			}
			if txnCost(&r) > 0 {
				return api.ErrNoSpace
			}
		}
	}
	return nil
}

// Alarm lists, raises or clears alarms. A list goes through the log too, as in
// etcd, so that it shows all that was acknowledged before.
func (s *maintenanceService) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	if err := s.serves(); err != nil {
		return nil, err
	}
	resp := &pb.AlarmResponse{}
	return resp, rpcError(s.view.upkeep.ask(ctx, commandAlarm, r, resp))
}
