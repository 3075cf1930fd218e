package oracle

import (
	"bytes"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// sameAnswer compares two answers, headers aside. It knows the common ones by
// heart: a million comparisons by reflection take longer than all else.
func sameAnswer(a, b proto.Message) bool {
	switch a := a.(type) {
	case *pb.RangeResponse:
		b, ok := b.(*pb.RangeResponse)
		return ok && sameRange(a, b)
	case *pb.PutResponse:
		b, ok := b.(*pb.PutResponse)
		return ok && sameKV(a.PrevKv, b.PrevKv)
	case *pb.DeleteRangeResponse:
		b, ok := b.(*pb.DeleteRangeResponse)
		return ok && a.Deleted == b.Deleted && sameKVs(a.PrevKvs, b.PrevKvs)
	case *pb.TxnResponse:
		b, ok := b.(*pb.TxnResponse)
		return ok && sameTxn(a, b)
	case *pb.LeaseGrantResponse:
		b, ok := b.(*pb.LeaseGrantResponse)
		return ok && a.ID == b.ID && a.TTL == b.TTL && a.Error == b.Error
	case *pb.CompactionResponse:
		_, ok := b.(*pb.CompactionResponse)
		return ok
	case *pb.LeaseRevokeResponse:
		_, ok := b.(*pb.LeaseRevokeResponse)
		return ok
	case *pb.AlarmResponse:
		b, ok := b.(*pb.AlarmResponse)
		return ok && slices.EqualFunc(a.Alarms, b.Alarms, func(x, y *pb.AlarmMember) bool {
			return x.MemberID == y.MemberID && x.Alarm == y.Alarm
		})
	}
	return proto.Equal(a, b)
}

func sameRange(a, b *pb.RangeResponse) bool {
	return a.Count == b.Count && a.More == b.More && sameKVs(a.Kvs, b.Kvs)
}

func sameTxn(a, b *pb.TxnResponse) bool {
	if a.Succeeded != b.Succeeded || len(a.Responses) != len(b.Responses) {
		return false
	}
	for i, x := range a.Responses {
		if !sameAnswer(inner(x), inner(b.Responses[i])) {
			return false
		}
	}
	return true
}

// inner is the answer to one operation of a transaction.
func inner(r *pb.ResponseOp) proto.Message {
	switch o := r.Response.(type) {
	case *pb.ResponseOp_ResponseRange:
		return o.ResponseRange
	case *pb.ResponseOp_ResponsePut:
		return o.ResponsePut
	case *pb.ResponseOp_ResponseDeleteRange:
		return o.ResponseDeleteRange
	case *pb.ResponseOp_ResponseTxn:
		return o.ResponseTxn
	}
	return nil
}

func sameKVs(a, b []*mvccpb.KeyValue) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !sameKV(a[i], b[i]) {
			return false
		}
	}
	return true
}

func sameKV(a, b *mvccpb.KeyValue) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.ModRevision == b.ModRevision && a.CreateRevision == b.CreateRevision && a.Version == b.Version && a.Lease == b.Lease &&
		bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
}

func sameEvents(a, b []*mvccpb.Event) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Type != b[i].Type || !sameKV(a[i].Kv, b[i].Kv) {
			return false
		}
	}
	return true
}
