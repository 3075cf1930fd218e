package server

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// rawMessage is a message of any bytes, for bad input.
type rawMessage []byte

// rawCodec sends and receives rawMessages under protobuf's name.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*rawMessage))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*rawMessage) = data.Materialize()
	return nil
}

var rawCodecOption = grpc.ForceCodecV2(encoding.CodecV2(rawCodec{}))

// FuzzTxn sends any bytes that are a transaction through checks and evaluation.
// Whatever they ask for, the answer can be decoded and the store stays whole.
func FuzzTxn(f *testing.F) {
	for _, seed := range decoderSeeds() {
		f.Add(seed)
	}
	s := newSolo(f)
	s.fill(f, 10, 5)
	f.Fuzz(func(t *testing.T, body []byte) {
		r := new(txnRequest)
		if r.decode(body) != nil {
			return
		}
		m, err := s.Txn(callContext(t), r)
		if err != nil {
			return
		}
		var resp pb.TxnResponse
		if err := proto.Unmarshal(m.Buffers.Materialize(), &resp); err != nil {
			t.Fatalf("the answer to %v cannot be decoded: %v", r.message(), err)
		}
		if want := len(r.branch(resp.Succeeded)); len(resp.Responses) != want {
			t.Fatalf("%d answers to %d operations", len(resp.Responses), want)
		}
		if resp.Header.GetRevision() != int64(s.store.Revision()) {
			t.Fatalf("the header says revision %v, the store %d", resp.Header, s.store.Revision())
		}
	})
}

// FuzzRange does the same for ranges.
func FuzzRange(f *testing.F) {
	for _, seed := range decoderSeeds() {
		f.Add(seed)
	}
	s := newSolo(f)
	s.fill(f, 10, 5)
	f.Fuzz(func(t *testing.T, body []byte) {
		r := new(rangeRequest)
		if r.decode(body) != nil {
			return
		}
		m, err := s.Range(callContext(t), r)
		if err != nil {
			return
		}
		var resp pb.RangeResponse
		if err := proto.Unmarshal(m.Buffers.Materialize(), &resp); err != nil {
			t.Fatalf("the answer to %v cannot be decoded: %v", r.message(), err)
		}
		m.Buffers.Free()
		if resp.Count < int64(len(resp.Kvs)) || resp.More && r.limit != int64(len(resp.Kvs)) {
			t.Fatalf("%v: %d keys, count %d, more %v", r.message(), len(resp.Kvs), resp.Count, resp.More)
		}
	})
}
