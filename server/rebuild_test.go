package server

import (
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
)

// TestNamedMemberIsQuiet: a member that a majority has named shows no keys and no
// leases until its alarm is cleared, and who clears what a person raised is a person.
func TestNamedMemberIsQuiet(t *testing.T) {
	s := newSolo(t)
	ctx := callContext(t)
	do := func(kind uint8, action pb.AlarmRequest_AlarmAction) {
		t.Helper()
		body, err := proto.Marshal(&pb.AlarmRequest{Action: action, MemberID: uint64(soloMember), Alarm: pb.AlarmType_CORRUPT})
		if err != nil {
			t.Fatal(err)
		}
		if c := s.log.replay(kind, body); c.Err != nil {
			t.Fatal(c.Err)
		}
	}
	reads := func() error { return second(s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Serializable: true})) }
	do(commandDivergent, pb.AlarmRequest_ACTIVATE)
	refused(t, "range", reads(), api.ErrCorrupt)
	refused(t, "leases", second(s.lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})), api.ErrCorrupt)
	refused(t, "list of alarms", second(pb.NewMaintenanceClient(s.conn).Alarm(ctx, &pb.AlarmRequest{})), nil)

	// A restart knows it, too.
	again := newAlarms()
	if err := again.load(s.Store()); err != nil || !again.current.Load().differs(soloMember) {
		t.Errorf("a restart forgets it (%v)", err)
	}
	do(commandDivergent, pb.AlarmRequest_DEACTIVATE)
	refused(t, "range afterwards", reads(), nil)

	do(commandAlarm, pb.AlarmRequest_ACTIVATE)
	refused(t, "range under a person's alarm", reads(), nil)
	do(commandDivergent, pb.AlarmRequest_DEACTIVATE)
	if !s.upkeep.alarms.current.Load().has(pb.AlarmType_CORRUPT) {
		t.Error("a person's alarm was cleared")
	}
}
