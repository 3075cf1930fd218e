package maintenance

import (
	"context"
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/compat/cluster"
)

// call is one request of the script; it returns the answer to compare.
type call struct {
	name string
	do   func(ctx context.Context, s *side) (proto.Message, error)
}

func alarm(action pb.AlarmRequest_AlarmAction, id uint64, kind pb.AlarmType) call {
	return call{fmt.Sprintf("alarm %v %d %v", action, id, kind), func(ctx context.Context, s *side) (proto.Message, error) {
		return s.admin.Alarm(ctx, &pb.AlarmRequest{Action: action, MemberID: id, Alarm: kind})
	}}
}

func downgrade(action pb.DowngradeRequest_DowngradeAction, version string) call {
	return call{fmt.Sprintf("downgrade %v %q", action, version), func(ctx context.Context, s *side) (proto.Message, error) {
		return s.admin.Downgrade(ctx, &pb.DowngradeRequest{Action: action, Version: version})
	}}
}

func writes(name string) call {
	return call{"write while " + name, func(ctx context.Context, s *side) (proto.Message, error) {
		return s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")})
	}}
}

// script goes through what the Maintenance service answers and refuses.
var script = []call{
	{"status", func(ctx context.Context, s *side) (proto.Message, error) {
		r, err := s.admin.Status(ctx, &pb.StatusRequest{})
		// What depends on a member's own files and log.
		r.DbSize, r.DbSizeInUse, r.RaftIndex, r.RaftAppliedIndex, r.RaftTerm = 0, 0, 0, 0, 0
		if r.Leader == r.Header.MemberId {
			r.Leader = 1
		}
		return r, err
	}},
	alarm(pb.AlarmRequest_GET, 0, pb.AlarmType_NONE),
	alarm(pb.AlarmRequest_ACTIVATE, 5, pb.AlarmType_NONE),
	alarm(pb.AlarmRequest_DEACTIVATE, 5, pb.AlarmType_NOSPACE),
	alarm(pb.AlarmRequest_ACTIVATE, 5, pb.AlarmType_NOSPACE),
	alarm(pb.AlarmRequest_ACTIVATE, 5, pb.AlarmType_NOSPACE),
	alarm(pb.AlarmRequest_GET, 0, pb.AlarmType_NOSPACE),
	alarm(pb.AlarmRequest_GET, 0, pb.AlarmType_CORRUPT),
	writes("full"),
	{"put without key while full", func(ctx context.Context, s *side) (proto.Message, error) {
		return s.kv.Put(ctx, &pb.PutRequest{})
	}},
	{"grant while full", func(ctx context.Context, s *side) (proto.Message, error) {
		return pb.NewLeaseClient(s.conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 3, TTL: 100})
	}},
	{"delete while full", func(ctx context.Context, s *side) (proto.Message, error) {
		return s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("k0")})
	}},
	{"conditional delete while full", func(ctx context.Context, s *side) (proto.Message, error) {
		del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("k1")}}}
		get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k1")}}}
		return s.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{del}, Failure: []*pb.RequestOp{get}})
	}},
	{"put in a branch not taken while full", func(ctx context.Context, s *side) (proto.Message, error) {
		put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k1")}}}
		return s.kv.Txn(ctx, &pb.TxnRequest{Failure: []*pb.RequestOp{put}})
	}},
	{"compact while full", func(ctx context.Context, s *side) (proto.Message, error) {
		return s.kv.Compact(ctx, &pb.CompactionRequest{Revision: 3})
	}},
	{"errors of status", func(ctx context.Context, s *side) (proto.Message, error) {
		r, err := s.admin.Status(ctx, &pb.StatusRequest{})
		return &pb.StatusResponse{Header: r.GetHeader(), Version: strings.Join(strings.Fields(fmt.Sprint(r.GetErrors())), " ")}, err
	}},
	alarm(pb.AlarmRequest_ACTIVATE, 0, pb.AlarmType_CORRUPT),
	alarm(pb.AlarmRequest_DEACTIVATE, 5, pb.AlarmType_NOSPACE),
	writes("corrupt"),
	{"range while corrupt", func(ctx context.Context, s *side) (proto.Message, error) {
		return s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k2")})
	}},
	{"compact while corrupt", func(ctx context.Context, s *side) (proto.Message, error) {
		return s.kv.Compact(ctx, &pb.CompactionRequest{Revision: 4})
	}},
	{"revoke while corrupt", func(ctx context.Context, s *side) (proto.Message, error) {
		return pb.NewLeaseClient(s.conn).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 3})
	}},
	alarm(pb.AlarmRequest_DEACTIVATE, 0, pb.AlarmType_CORRUPT),
	writes("sound again"),
	{"move leader to nobody", func(ctx context.Context, s *side) (proto.Message, error) {
		return s.admin.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 1})
	}},
	{"move leader to itself", func(ctx context.Context, s *side) (proto.Message, error) {
		st, err := s.admin.Status(ctx, &pb.StatusRequest{})
		if err != nil {
			return nil, err
		}
		return s.admin.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: st.Leader})
	}},
	{"defragment", func(ctx context.Context, s *side) (proto.Message, error) {
		return s.admin.Defragment(ctx, &pb.DefragmentRequest{})
	}},
	downgrade(pb.DowngradeRequest_VALIDATE, ""),
	downgrade(pb.DowngradeRequest_VALIDATE, "three"),
	downgrade(pb.DowngradeRequest_VALIDATE, "3.5"),
	downgrade(pb.DowngradeRequest_VALIDATE, "3.7"),
	downgrade(pb.DowngradeRequest_VALIDATE, "3.6"),
	downgrade(pb.DowngradeRequest_VALIDATE, "3.6.4"),
	downgrade(pb.DowngradeRequest_ENABLE, "3.8"),
	downgrade(pb.DowngradeRequest_CANCEL, ""),
	downgrade(7, "3.6"),
	{"enable a downgrade", func(ctx context.Context, s *side) (proto.Message, error) {
		r, err := s.admin.Downgrade(ctx, &pb.DowngradeRequest{Action: pb.DowngradeRequest_ENABLE, Version: "3.6"})
		r.Version = "" // the cluster version may have followed already
		return r, err
	}},
	{"the downgrade's state", func(ctx context.Context, s *side) (proto.Message, error) {
		for {
			r, err := s.admin.Status(ctx, &pb.StatusRequest{})
			if err != nil || r.StorageVersion == "3.6.0" {
				return &pb.StatusResponse{Header: r.GetHeader(), StorageVersion: r.GetStorageVersion(), DowngradeInfo: r.GetDowngradeInfo()}, err
			}
			pause(ctx)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}},
	downgrade(pb.DowngradeRequest_VALIDATE, "3.5"),
	{"cancel the downgrade", func(ctx context.Context, s *side) (proto.Message, error) {
		r, err := s.admin.Downgrade(ctx, &pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL})
		r.Version = ""
		return r, err
	}},
}

// TestSameAnswers plays the script against one member of each.
func TestSameAnswers(t *testing.T) {
	ctx := limited(t)
	pair := [2]*side{start(ctx, t, "etcd", cluster.Options{NoSync: true}), start(ctx, t, "kvd", cluster.Options{NoSync: true})}
	for _, s := range pair {
		eventually(ctx, t, "the cluster version", func() bool {
			r, err := s.admin.Status(ctx, &pb.StatusRequest{})
			return err == nil && r.StorageVersion == "3.7.0"
		})
		for i := range 5 {
			put(ctx, t, s, fmt.Sprint("k", i), "v")
		}
	}
	for _, c := range script {
		var text [2]string
		for i, s := range pair {
			resp, err := c.do(ctx, s)
			text[i] = verdict(err)
			if err == nil {
				mask(resp)
				text[i] = strings.Join(strings.Fields(prototext.MarshalOptions{}.Format(resp)), " ")
			}
		}
		if text[0] != text[1] {
			t.Errorf("%s:\n  etcd %s\n  kvd  %s", c.name, text[0], text[1])
		}
	}
}

// mask takes out of a header what is a member's own.
func mask(m proto.Message) {
	if h, ok := m.(interface{ GetHeader() *pb.ResponseHeader }); ok && h.GetHeader() != nil {
		h.GetHeader().ClusterId, h.GetHeader().MemberId, h.GetHeader().RaftTerm = 0, 0, 0
	}
}
