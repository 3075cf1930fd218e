package server

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
)

// The hand-written decoders must understand every message as the generated ones
// do: what one accepts the other accepts, with the same fields. message turns a
// decoded request back into the generated type for the comparison.

func (r *rangeRequest) message() *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: r.key, RangeEnd: r.end, Limit: r.limit, Revision: int64(r.revision),
		SortOrder: pb.RangeRequest_SortOrder(r.sortOrder), SortTarget: pb.RangeRequest_SortTarget(r.sortTarget),
		Serializable: r.serializable, KeysOnly: r.keysOnly, CountOnly: r.countOnly,
		MinModRevision: r.minMod, MaxModRevision: r.maxMod, MinCreateRevision: r.minCreate, MaxCreateRevision: r.maxCreate,
	}
}

func (r *putRequest) message() *pb.PutRequest {
	return &pb.PutRequest{
		Key: r.key, Value: r.value, Lease: int64(r.lease),
		PrevKv: r.prevKV, IgnoreValue: r.ignoreValue, IgnoreLease: r.ignoreLease,
	}
}

func (r *deleteRequest) message() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: r.key, RangeEnd: r.end, PrevKv: r.prevKV}
}

func (c *compare) message() *pb.Compare {
	m := &pb.Compare{
		Result: pb.Compare_CompareResult(c.result), Target: pb.Compare_CompareTarget(c.target),
		Key: c.key, RangeEnd: c.end,
	}
	switch c.union {
	case unionVersion:
		m.TargetUnion = &pb.Compare_Version{Version: c.num}
	case unionCreate:
		m.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: c.num}
	case unionMod:
		m.TargetUnion = &pb.Compare_ModRevision{ModRevision: c.num}
	case unionValue:
		m.TargetUnion = &pb.Compare_Value{Value: c.value}
	case unionLease:
		m.TargetUnion = &pb.Compare_Lease{Lease: c.num}
	}
	return m
}

func (o *op) message() *pb.RequestOp {
	switch {
	case o.rng != nil:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: o.rng.message()}}
	case o.put != nil:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: o.put.message()}}
	case o.del != nil:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: o.del.message()}}
	case o.txn != nil:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: o.txn.message()}}
	}
	return &pb.RequestOp{}
}

func (r *txnRequest) message() *pb.TxnRequest {
	m := &pb.TxnRequest{}
	for i := range r.compares {
		m.Compare = append(m.Compare, r.compares[i].message())
	}
	for i := range r.success {
		m.Success = append(m.Success, r.success[i].message())
	}
	for i := range r.failure {
		m.Failure = append(m.Failure, r.failure[i].message())
	}
	return m
}

// sameDecoding decodes b with both decoders and reports any difference.
func sameDecoding(t *testing.T, b []byte, want proto.Message, got interface{ decode([]byte) error }, message func() proto.Message) {
	t.Helper()
	wantErr, gotErr := proto.Unmarshal(b, want), got.decode(bytes.Clone(b))
	if (wantErr == nil) != (gotErr == nil) {
		t.Fatalf("%T of %x: protobuf says %v, ours says %v", want, b, wantErr, gotErr)
	}
	if wantErr != nil {
		return
	}
	discardUnknown(want)
	if m := message(); !proto.Equal(want, m) {
		t.Fatalf("%T of %x:\nprotobuf %v\nours     %v", want, b, want, m)
	}
}

// discardUnknown drops unknown fields on all levels.
func discardUnknown(m proto.Message) {
	raw, err := proto.Marshal(m)
	if err == nil {
		proto.Reset(m)
		err = proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, m)
	}
	if err != nil {
		panic(err)
	}
}

func decodeBoth(t *testing.T, b []byte) {
	t.Helper()
	var rng rangeRequest
	sameDecoding(t, b, &pb.RangeRequest{}, &rng, func() proto.Message { return rng.message() })
	var put putRequest
	sameDecoding(t, b, &pb.PutRequest{}, &put, func() proto.Message { return put.message() })
	var del deleteRequest
	sameDecoding(t, b, &pb.DeleteRangeRequest{}, &del, func() proto.Message { return del.message() })
	var txn txnRequest
	sameDecoding(t, b, &pb.TxnRequest{}, &txn, func() proto.Message { return txn.message() })
}

func decoderSeeds() [][]byte {
	put := &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: -1, PrevKv: true, IgnoreValue: true, IgnoreLease: true}
	rng := &pb.RangeRequest{
		Key: []byte("a"), RangeEnd: []byte("\x00"), Limit: 3, Revision: -7, SortOrder: pb.RangeRequest_DESCEND,
		SortTarget: pb.RangeRequest_VALUE, Serializable: true, KeysOnly: true, CountOnly: true,
		MinModRevision: 1, MaxModRevision: 2, MinCreateRevision: 3, MaxCreateRevision: 4,
	}
	del := &pb.DeleteRangeRequest{Key: []byte("d"), RangeEnd: []byte("e"), PrevKv: true}
	inner := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put}}, {}}}
	txn := &pb.TxnRequest{
		Compare: []*pb.Compare{
			{Result: pb.Compare_LESS, Target: pb.Compare_MOD, Key: []byte("k"), TargetUnion: &pb.Compare_ModRevision{ModRevision: 9}},
			{Target: pb.Compare_VALUE, Key: []byte("k"), RangeEnd: []byte("l"), TargetUnion: &pb.Compare_Value{Value: []byte("x")}},
			{Target: pb.Compare_LEASE, TargetUnion: &pb.Compare_Lease{Lease: 0}},
		},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: rng}}, {Request: &pb.RequestOp_RequestTxn{RequestTxn: inner}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: del}}},
	}
	var seeds [][]byte
	for _, m := range []proto.Message{put, rng, del, txn, inner} {
		b, err := proto.Marshal(m)
		if err != nil {
			panic(err)
		}
		seeds = append(seeds, b)
	}
	// The same member of a oneof twice merges; another one replaces it.
	putOp := protowire.AppendBytes([]byte{0x12}, seeds[0])
	rngOp := protowire.AppendBytes([]byte{0x0a}, seeds[1])
	for _, twice := range [][]byte{append(bytes.Clone(putOp), putOp...), append(bytes.Clone(putOp), rngOp...)} {
		seeds = append(seeds, protowire.AppendBytes([]byte{0x12}, twice))
	}
	return append(seeds, nil, []byte{0x08}, []byte{0x0a, 0x05, 'a'}, []byte{0x0b, 0x0c}, []byte{0x0c}, []byte{0x00, 0x00},
		[]byte{0x0d, 1, 2, 3, 4}, []byte{0x09, 1, 2, 3, 4, 5, 6, 7, 8}, []byte{0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02},
		[]byte{0x28, 0x80, 0x80, 0x80, 0x80, 0x10}, []byte{0x0a, 0x00, 0x12, 0x00})
}

func TestDecodersAgreeWithProtobuf(t *testing.T) {
	for _, seed := range decoderSeeds() {
		decodeBoth(t, seed)
		for cut := range seed {
			decodeBoth(t, seed[:cut])
		}
	}
}

func FuzzDecoders(f *testing.F) {
	for _, seed := range decoderSeeds() {
		f.Add(seed)
	}
	f.Fuzz(decodeBoth)
}

func FuzzMemberMessages(f *testing.F) {
	f.Add(leaseQuestion{id: -3, renew: true, keys: true}.encode())
	f.Add(leaseBatch{9, []leaseLeft{{1, 2}, {-1, 0}}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := decodeLeaseQuestion(b); err == nil {
			if again, err := decodeLeaseQuestion(q.encode()); err != nil || again != q {
				t.Fatalf("%+v became %+v (%v)", q, again, err)
			}
		}
		if batch, err := decodeLeaseBatch(b); err == nil {
			again, err := decodeLeaseBatch(batch.encode())
			if err != nil || again.term != batch.term || len(again.leases) != len(batch.leases) {
				t.Fatalf("%+v became %+v (%v)", batch, again, err)
			}
		}
		_, _ = decodeLeaseAnswer(b)
	})
}

func TestDecodeDepthIsBounded(t *testing.T) {
	var b []byte
	for range maxDecodeDepth + 1 {
		op := protowire.AppendBytes([]byte{0x22}, b)
		b = protowire.AppendBytes([]byte{0x12}, op)
	}
	if err := new(txnRequest).decode(b); err != errDecode {
		t.Fatalf("got %v", err)
	}
}

func TestCloseMessage(t *testing.T) {
	for _, size := range []int{0, 1, 127, 128, 129, 16383, 16384, 70000} {
		b, mark := openMessage([]byte("before"), 3)
		content := bytes.Repeat([]byte{0xa5}, size)
		b = closeMessage(append(b, content...), mark)
		want := protowire.AppendBytes(append([]byte("before"), 0x1a), content)
		if !bytes.Equal(b, want) {
			t.Errorf("content of %d bytes: wrong encoding", size)
		}
	}
}

func TestRecordParts(t *testing.T) {
	kv := &mvccpb.KeyValue{Key: []byte("k"), CreateRevision: 2, ModRevision: 300, Version: 4, Value: []byte("value"), Lease: -9}
	b, err := proto.Marshal(kv)
	if err != nil {
		t.Fatal(err)
	}
	value, err := record(b).value()
	if err != nil || string(value) != "value" {
		t.Errorf("value is %q, %v", value, err)
	}
	var bare mvccpb.KeyValue
	if err := proto.Unmarshal(record(b).withoutValue(), &bare); err != nil {
		t.Fatal(err)
	}
	kv.Value = nil
	if !proto.Equal(&bare, kv) {
		t.Errorf("without value: %v", &bare)
	}
	if _, err := record([]byte{0xff}).value(); err != mvcc.ErrCorrupt {
		t.Errorf("damaged record: %v", err)
	}
}

func TestCodec(t *testing.T) {
	c := Codec()
	if c.Name() != "proto" {
		t.Errorf("name is %q", c.Name())
	}
	want := &pb.PutRequest{Key: []byte("k"), Lease: 5}
	data, err := c.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var generated pb.PutRequest
	var ours putRequest
	if err := c.Unmarshal(data, &generated); err != nil || !proto.Equal(&generated, want) {
		t.Errorf("generated: %v, %v", &generated, err)
	}
	if err := c.Unmarshal(data, &ours); err != nil || ours.lease != api.LeaseID(5) || !bytes.Equal(ours.body, data.Materialize()) {
		t.Errorf("ours: %+v, %v", ours, err)
	}
	encoded, err := c.Marshal(encodeBytes([]byte("as it is")))
	if err != nil || string(encoded.Materialize()) != "as it is" {
		t.Errorf("encoded: %q, %v", encoded.Materialize(), err)
	}
	if _, err := c.Marshal(7); err == nil {
		t.Error("a number was encoded")
	}
	if err := c.Unmarshal(mem.BufferSlice{}, 7); err == nil {
		t.Error("a number was decoded")
	}
}
