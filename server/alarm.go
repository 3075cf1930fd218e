package server

import (
	"cmp"
	"context"
	"fmt"
	"maps"
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
// Alarms that the space quota raised, and those by which a majority of the members
// named one that differs, may be cleared without a person. They are told from
// those that a person raised by rows of ours in bucket "meta".

// alarmOrigin is who raises or clears an alarm.
type alarmOrigin uint8

const (
	byPerson   alarmOrigin = iota // or by a check that no majority stands behind
	byQuota                       // NOSPACE only
	byMajority                    // CORRUPT only
)

// originRows are the names of the rows, each followed by the member's id.
var originRows = map[alarmOrigin]string{
	byQuota:    "keelson_quota_alarm/",
	byMajority: "keelson_divergent/",
}

// originKinds is the one type of alarm that each raises.
var originKinds = map[alarmOrigin]pb.AlarmType{byQuota: pb.AlarmType_NOSPACE, byMajority: pb.AlarmType_CORRUPT}

// originOf is the origin that a kind of command stands for.
func originOf(kind uint8) alarmOrigin {
	switch kind {
	case commandQuotaAlarm:
		return byQuota
	case commandDivergent:
		return byMajority
	}
	return byPerson
}

// fieldAlarms is the field of AlarmResponse.
const fieldAlarms = 2

// alarmSet is one state of the alarms; it never changes once published.
type alarmSet struct {
	list   []*pb.AlarmMember        // by type and member
	origin map[alarmKey]alarmOrigin // of those that no person raised
}

type alarmKey struct {
	kind pb.AlarmType
	id   uint64
}

func keyOf(m *pb.AlarmMember) alarmKey { return alarmKey{m.Alarm, m.MemberID} }

// alarms is the published state. Only the apply goroutine changes it.
type alarms struct{ current atomic.Pointer[alarmSet] }

func newAlarms() *alarms {
	a := &alarms{}
	a.current.Store(&alarmSet{origin: map[alarmKey]alarmOrigin{}})
	return a
}

// load reads the alarms at start and after a snapshot was installed.
func (a *alarms) load(store rawReader) error {
	next := &alarmSet{origin: map[alarmKey]alarmOrigin{}}
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
		for origin, row := range originRows {
			hex, ok := strings.CutPrefix(string(key), row)
			if !ok {
				continue
			}
			var id uint64
			if _, err := fmt.Sscanf(hex, "%x", &id); err != nil {
				bad = fmt.Errorf("alarms: row %q: %w", key, err)
				return false
			}
			next.origin[alarmKey{originKinds[origin], id}] = origin
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

// apply changes the alarms and returns the ones the answer names. What no person
// asks for clears only what had the same origin. Apply goroutine only.
func (a *alarms) apply(tx rawWriter, r *pb.AlarmRequest, by alarmOrigin) []*pb.AlarmMember {
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
		return []*pb.AlarmMember{a.activate(tx, &pb.AlarmMember{MemberID: r.MemberID, Alarm: r.Alarm}, by)}
	case pb.AlarmRequest_DEACTIVATE:
		m := old.find(r.MemberID, r.Alarm)
		if m == nil || by != byPerson && old.origin[keyOf(m)] != by {
			return nil
		}
		a.deactivate(tx, m)
		return []*pb.AlarmMember{m}
	}
	return nil
}

func (a *alarms) activate(tx rawWriter, m *pb.AlarmMember, by alarmOrigin) *pb.AlarmMember {
	tx.SetRaw(engine.Alarm, encodeAlarm(m), nil)
	next := a.current.Load().clone()
	next.list = append(next.list, m)
	next.sort()
	if originKinds[by] == m.Alarm {
		tx.SetRaw(engine.Meta, originKey(by, m.MemberID), nil)
		next.origin[keyOf(m)] = by
	}
	a.current.Store(next)
	return m
}

func (a *alarms) deactivate(tx rawWriter, m *pb.AlarmMember) {
	tx.DeleteRaw(engine.Alarm, encodeAlarm(m))
	next := a.current.Load().clone()
	next.list = slices.DeleteFunc(next.list, func(o *pb.AlarmMember) bool { return o == m })
	if by := next.origin[keyOf(m)]; by != byPerson {
		tx.DeleteRaw(engine.Meta, originKey(by, m.MemberID))
		delete(next.origin, keyOf(m))
	}
	a.current.Store(next)
}

func (s *alarmSet) clone() *alarmSet {
	return &alarmSet{list: slices.Clone(s.list), origin: maps.Clone(s.origin)}
}

// differs says that a majority of the members named this one.
func (s *alarmSet) differs(id api.MemberID) bool {
	return len(s.origin) > 0 && s.origin[alarmKey{pb.AlarmType_CORRUPT, uint64(id)}] == byMajority
}

func encodeAlarm(m *pb.AlarmMember) []byte {
	key, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("alarms: cannot encode %v: %v", m, err)) // numbers only
	}
	return key
}

func originKey(by alarmOrigin, id uint64) []byte {
	return fmt.Appendf(nil, "%s%x", originRows[by], id)
}

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
