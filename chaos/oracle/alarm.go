package oracle

import (
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
)

// alarm is one that stands. The model knows NOSPACE alone; CORRUPT would stop
// everything.
type alarm struct{ own bool } // raised by a member that reached its quota

// alarm raises or clears one. What a member raised by itself a person may clear
// too, but a member clears its own alone.
func (m *Model) alarm(r *pb.AlarmRequest, own bool) Result {
	resp := &pb.AlarmResponse{}
	member := &pb.AlarmMember{MemberID: r.MemberID, Alarm: r.Alarm}
	was, stands := m.full[r.MemberID]
	switch r.Action {
	case pb.AlarmRequest_ACTIVATE:
		resp.Alarms = []*pb.AlarmMember{member}
		if !stands {
			m.full[r.MemberID] = alarm{own}
		}
	case pb.AlarmRequest_DEACTIVATE:
		if stands && (!own || was.own) {
			resp.Alarms = []*pb.AlarmMember{member}
			delete(m.full, r.MemberID)
		}
	}
	return Result{Rev: m.Rev, Response: resp}
}

// refuses says whether an alarm forbids a request.
func (m *Model) refuses(req proto.Message) error {
	if len(m.full) == 0 {
		return nil
	}
	switch r := req.(type) {
	case *pb.PutRequest, *pb.LeaseGrantRequest:
		return api.ErrNoSpace
	case *pb.TxnRequest:
		if puts(r) {
			return api.ErrNoSpace
		}
	}
	return nil
}

// puts reports whether a transaction may store something.
func puts(r *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if t := op.GetRequestTxn(); op.GetRequestPut() != nil || t != nil && puts(t) {
				return true
			}
		}
	}
	return false
}
