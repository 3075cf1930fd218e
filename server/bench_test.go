package server

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/api/keelsonpb"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/raft"
)

// The apply benchmarks are what a command costs the one goroutine that applies:
// decode, evaluate, seal, publish, and encode the answer if somebody waits.

func benchmarkApply(b *testing.B, kind uint8, wanted bool, body func(i int) []byte) {
	s := newSolo(b)
	s.fill(b, 1000, 256)
	bodies := make([][]byte, 1024)
	for i := range bodies {
		bodies[i] = body(i)
	}
	machine, index := s.log.machine, api.Index(10_000)
	const batch = 16 // commands that share an entry
	b.ReportAllocs()
	for i := 0; b.Loop(); {
		cmds := make([]*raft.Command, batch)
		for j := range cmds {
			cmds[j] = &raft.Command{Kind: kind, Body: bodies[i%len(bodies)], Wanted: wanted}
			i++
		}
		index++
		machine.Apply([]raft.Entry{{Index: index, Term: 1, Commands: cmds}})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/command")
}

func encode(b testing.TB, m proto.Message) []byte {
	b.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	return body
}

func BenchmarkApplyPut(b *testing.B) {
	for _, wanted := range []bool{true, false} {
		b.Run(fmt.Sprintf("wanted=%v", wanted), func(b *testing.B) {
			benchmarkApply(b, commandPut, wanted, func(i int) []byte {
				return encode(b, &pb.PutRequest{Key: fmt.Appendf(nil, "k%04d", i%1000), Value: make([]byte, 256)})
			})
		})
	}
}

// BenchmarkApplyCreate is the transaction that a control plane creates with.
func BenchmarkApplyCreate(b *testing.B) {
	benchmarkApply(b, commandTxn, true, func(i int) []byte {
		key := fmt.Appendf(nil, "k%04d", i%1000)
		return encode(b, &pb.TxnRequest{
			Compare: []*pb.Compare{{Target: pb.Compare_MOD, Result: pb.Compare_GREATER, Key: key, TargetUnion: &pb.Compare_ModRevision{}}},
			Success: ops(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: make([]byte, 1024)}}}),
			Failure: ops(rangeOp(&pb.RangeRequest{Key: key})),
		})
	})
}

func BenchmarkDecodeTxn(b *testing.B) {
	key := []byte("/registry/pods/default/some-pod-with-a-name")
	body := encode(b, &pb.TxnRequest{
		Compare: []*pb.Compare{{Target: pb.Compare_MOD, Key: key, TargetUnion: &pb.Compare_ModRevision{ModRevision: 12345}}},
		Success: ops(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: make([]byte, 1024)}}}),
		Failure: ops(rangeOp(&pb.RangeRequest{Key: key})),
	})
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := new(txnRequest).decode(body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("protobuf", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := proto.Unmarshal(body, new(pb.TxnRequest)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkGet(b *testing.B) {
	s := newSolo(b)
	s.fill(b, 1000, 256)
	r := &rangeRequest{key: []byte("k0500")}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Range(context.Background(), r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkList builds the answer to an unpaged list; what gRPC and the socket
// add is not in it.
func BenchmarkList(b *testing.B) {
	s := newSolo(b)
	s.fill(b, 10_000, 4096)
	if err := s.store.Flush(); err != nil {
		b.Fatal(err)
	}
	for name, r := range map[string]*rangeRequest{
		"all":   {key: []byte("k"), end: []byte("l")},
		"page":  {key: []byte("k"), end: []byte("l"), limit: 500},
		"count": {key: []byte("k"), end: []byte("l"), countOnly: true},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m, err := s.Range(context.Background(), r)
				if err != nil {
					b.Fatal(err)
				}
				m.Buffers.Free()
			}
		})
	}
}

// BenchmarkPut is the whole path of a put over gRPC in memory, the log aside.
func BenchmarkPut(b *testing.B) {
	s := newSolo(b)
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 256)}); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkPipeline is the same in messages of 100 puts on one stream.
func BenchmarkPipeline(b *testing.B) {
	s := newSolo(b)
	p := openPiper(context.Background(), b, s.conn)
	var bodies [][]byte
	for i := range 100 {
		bodies = append(bodies, encode(b, &pb.PutRequest{Key: fmt.Appendf(nil, "k%02d", i), Value: make([]byte, 256)}))
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := p.send(p.message(keelsonpb.Put, bodies...)); err != nil {
			b.Fatal(err)
		}
		for n := 0; n < len(bodies); {
			if _, err := p.receive(func(keelsonpb.Answer) { n++ }); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/put")
}

var _ keyspace = (*mvcc.ReadTxn)(nil)
