package server

import (
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// TestAlarmRPC follows etcd: unknown members may have alarms, NONE raises
// nothing, twice is once, and what is not there cannot be cleared.
func TestAlarmRPC(t *testing.T) {
	s := newSolo(t)
	ctx := callContext(t)
	client := pb.NewMaintenanceClient(s.conn)
	const (
		get, on, off           = pb.AlarmRequest_GET, pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE
		none, noSpace, corrupt = pb.AlarmType_NONE, pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT
	)
	one := func(id uint64, kind pb.AlarmType) *pb.AlarmMember { return &pb.AlarmMember{MemberID: id, Alarm: kind} }
	for i, step := range []struct {
		action pb.AlarmRequest_AlarmAction
		id     uint64
		kind   pb.AlarmType
		want   []*pb.AlarmMember
	}{
		{get, 0, none, nil},
		{on, 7, none, nil},
		{get, 0, none, nil},
		{on, 7, noSpace, []*pb.AlarmMember{one(7, noSpace)}},
		{on, 7, noSpace, []*pb.AlarmMember{one(7, noSpace)}},
		{off, 8, noSpace, nil},
		{on, 3, corrupt, []*pb.AlarmMember{one(3, corrupt)}},
		{on, 0, noSpace, []*pb.AlarmMember{one(0, noSpace)}},
		{get, 0, none, []*pb.AlarmMember{one(0, noSpace), one(7, noSpace), one(3, corrupt)}},
		{get, 9, corrupt, []*pb.AlarmMember{one(3, corrupt)}},
		{off, 7, noSpace, []*pb.AlarmMember{one(7, noSpace)}},
		{off, 7, noSpace, nil},
		{off, 3, corrupt, []*pb.AlarmMember{one(3, corrupt)}},
		{get, 0, none, []*pb.AlarmMember{one(0, noSpace)}},
	} {
		resp, err := client.Alarm(ctx, &pb.AlarmRequest{Action: step.action, MemberID: step.id, Alarm: step.kind})
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		want := &pb.AlarmResponse{Header: resp.Header, Alarms: step.want}
		if !proto.Equal(resp, want) || resp.Header.Revision != 1 || resp.Header.MemberId != uint64(soloMember) {
			t.Errorf("step %d: %v, want %v", i, resp, want)
		}
	}
}

// TestAlarmRows wants etcd's encoding, and the alarms back after a restart.
func TestAlarmRows(t *testing.T) {
	c := newTestCluster(1)
	m := c.start(t, "m0")
	ctx := callContext(t)
	client := pb.NewMaintenanceClient(m.conn)
	for _, r := range []*pb.AlarmRequest{
		{Action: pb.AlarmRequest_ACTIVATE, MemberID: 0x1122, Alarm: pb.AlarmType_NOSPACE},
		{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_CORRUPT},
	} {
		if _, err := client.Alarm(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	m.upkeep.raiseNoSpace(ctx) // of the quota's
	m.end(t)
	again := c.start(t, "m0")
	waitFor(t, "the member to lead", func() bool { return again.node.Status().Leader == again.id })
	var rows []string
	again.Store().Raw(engine.Alarm, func(k, v []byte) bool {
		rows = append(rows, hex.EncodeToString(k)+"="+hex.EncodeToString(v))
		return true
	})
	if len(rows) != 3 || !strings.Contains(strings.Join(rows, " "), "08a2221001=") || !strings.Contains(strings.Join(rows, " "), "1002=") {
		t.Errorf("rows: %q", rows)
	}
	if set := again.upkeep.alarms.current.Load(); len(set.list) != 3 || set.origin[alarmKey{pb.AlarmType_NOSPACE, uint64(again.id)}] != byQuota || len(set.origin) != 1 {
		t.Errorf("after a restart: %+v", set)
	}
}

// TestCorruptAlarmFreezes lists what etcd refuses while data is known to be corrupt.
func TestCorruptAlarmFreezes(t *testing.T) {
	s := newSolo(t)
	ctx := callContext(t)
	if _, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 4, TTL: 60}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Lease: 4}); err != nil {
		t.Fatal(err)
	}
	client := pb.NewMaintenanceClient(s.conn)
	r := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 1, Alarm: pb.AlarmType_CORRUPT}
	if _, err := client.Alarm(ctx, r); err != nil {
		t.Fatal(err)
	}
	put := &pb.PutRequest{Key: []byte("k")}
	for what, call := range map[string]func() error{
		"put":     func() error { _, err := s.kv.Put(ctx, put); return err },
		"delete":  func() error { _, err := s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: put.Key}); return err },
		"txn":     func() error { _, err := s.kv.Txn(ctx, txnOf(deleteOp("k", ""), nil)); return err },
		"compact": func() error { _, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: 2}); return err },
		"grant":   func() error { _, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60}); return err },
		"revoke":  func() error { _, err := s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 4}); return err },
	} {
		refused(t, what, call(), api.ErrCorrupt)
	}
	s.log.replay(commandLeaseExpire, leaseBatch{1, []leaseLeft{{4, 0}}}.encode())
	if _, ok := s.store.Lease(4); !ok {
		t.Error("a lease expired in a frozen store")
	}
	if resp, err := s.kv.Range(ctx, &pb.RangeRequest{Key: put.Key}); err != nil || resp.Count != 1 || resp.Header.Revision != 2 {
		t.Errorf("a range: %v, %v", resp, err)
	}
	r.Action = pb.AlarmRequest_DEACTIVATE
	if _, err := client.Alarm(ctx, r); err != nil {
		t.Fatal(err)
	}
	if _, err := s.kv.Put(ctx, put); err != nil {
		t.Errorf("after the alarm: %v", err)
	}
}

// TestHealthTellsOfAlarms wants etcd's bodies.
func TestHealthTellsOfAlarms(t *testing.T) {
	s := newSolo(t)
	h := &httpEndpoints{view: s.view(), metrics: s.metrics, log: s.Server.log, timeout: s.requestTimeout(), guard: newHTTPGuard(&s.cfg, s.Server.log)}
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.clientHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	raise := func(action pb.AlarmRequest_AlarmAction, kind pb.AlarmType) {
		r := &pb.AlarmRequest{Action: action, MemberID: 5, Alarm: kind}
		if _, err := pb.NewMaintenanceClient(s.conn).Alarm(callContext(t), r); err != nil {
			t.Fatal(err)
		}
	}
	check := func(path string, code int, body string) {
		t.Helper()
		if c, b := get(path); c != code || !strings.Contains(b, body) {
			t.Errorf("%s: %d %s, want %d %s", path, c, b, code, body)
		}
	}
	check("/health", 200, `{"health":"true","reason":""}`)
	raise(pb.AlarmRequest_ACTIVATE, pb.AlarmType_NOSPACE)
	check("/health", 503, `{"health":"false","reason":"ALARM NOSPACE"}`)
	check("/health?exclude=NOSPACE", 200, `"true"`)
	check("/readyz", 200, "ok")
	raise(pb.AlarmRequest_ACTIVATE, pb.AlarmType_CORRUPT)
	check("/health?exclude=NOSPACE", 503, "ALARM CORRUPT")
	check("/readyz/data_corruption", 503, "[-]data_corruption failed: alarm activated: CORRUPT")
	check("/livez", 200, "ok")
}
