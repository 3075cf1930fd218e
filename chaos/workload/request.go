package workload

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Answer is an empty answer to a request.
func Answer(req proto.Message) proto.Message {
	switch req.(type) {
	case *pb.RangeRequest:
		return &pb.RangeResponse{}
	case *pb.PutRequest:
		return &pb.PutResponse{}
	case *pb.DeleteRangeRequest:
		return &pb.DeleteRangeResponse{}
	case *pb.TxnRequest:
		return &pb.TxnResponse{}
	case *pb.CompactionRequest:
		return &pb.CompactionResponse{}
	case *pb.LeaseGrantRequest:
		return &pb.LeaseGrantResponse{}
	case *pb.LeaseRevokeRequest:
		return &pb.LeaseRevokeResponse{}
	case *pb.LeaseKeepAliveRequest:
		return &pb.LeaseKeepAliveResponse{}
	case *pb.MemberAddRequest:
		return &pb.MemberAddResponse{}
	case *pb.MemberRemoveRequest:
		return &pb.MemberRemoveResponse{}
	case *pb.MemberPromoteRequest:
		return &pb.MemberPromoteResponse{}
	case *pb.AlarmRequest:
		return &pb.AlarmResponse{}
	}
	panic(fmt.Sprintf("workload: no answer to a %T", req))
}

// guarded writes a key if it is as it was, and reads it if not. A mod of 0: if it
// is not there.
func guarded(key []byte, mod int64, value []byte) *pb.TxnRequest {
	return &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: key, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: mod}}},
		Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: key, Value: value})},
		Failure: []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: key})},
	}
}

func putOp(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func rangeOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func deleteOp(r *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
}
