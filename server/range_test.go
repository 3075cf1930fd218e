package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
)

// fill writes keys k0000, k0001, ... with values of the given size.
func (s *solo) fill(t testing.TB, keys, size int) {
	t.Helper()
	value := bytes.Repeat([]byte("x"), size)
	for i := range keys {
		body, err := proto.Marshal(&pb.PutRequest{Key: fmt.Appendf(nil, "k%04d", i), Value: value})
		if err != nil {
			t.Fatal(err)
		}
		if c := s.log.replay(commandPut, body); c.Err != nil {
			t.Fatal(c.Err)
		}
	}
}

// stream collects a RangeStream into one answer and checks its form: only the
// last message has header, count and more, and only an empty answer's has no keys.
func (s *solo) stream(ctx context.Context, t testing.TB, r *pb.RangeRequest) (*pb.RangeResponse, int, error) {
	t.Helper()
	stream, err := s.kv.RangeStream(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	all := &pb.RangeResponse{}
	for messages := 0; ; messages++ {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, messages, nil
		}
		if err != nil {
			return nil, messages, err
		}
		chunk := resp.RangeResponse
		if all.Header != nil {
			t.Fatalf("a message after the last: %v", chunk)
		}
		if chunk.Header == nil && (chunk.Count != 0 || chunk.More || len(chunk.Kvs) == 0) {
			t.Fatalf("message %d is not of the right form: count %d, more %v, %d keys", messages, chunk.Count, chunk.More, len(chunk.Kvs))
		}
		if chunk.Header != nil && messages > 0 && len(chunk.Kvs) == 0 {
			t.Fatalf("the last of %d messages brings no keys", messages+1)
		}
		all.Kvs = append(all.Kvs, chunk.Kvs...)
		all.Header, all.Count, all.More = chunk.Header, chunk.Count, chunk.More
	}
}

// TestStreamEqualsRange: a stream's messages put together are Range's answer.
func TestStreamEqualsRange(t *testing.T) {
	s := newSolo(t)
	s.fill(t, 300, 20<<10)
	if _, err := s.kv.DeleteRange(callContext(t), &pb.DeleteRangeRequest{Key: []byte("k0100"), RangeEnd: []byte("k0120")}); err != nil {
		t.Fatal(err)
	}
	ctx := callContext(t)
	for _, r := range []*pb.RangeRequest{
		{Key: []byte("k"), RangeEnd: []byte("l")},
		{Key: []byte("k0250"), RangeEnd: []byte{0}},
		{Key: []byte{0}, RangeEnd: []byte{0}, KeysOnly: true},
		{Key: []byte("k"), RangeEnd: []byte("l"), Limit: 1},
		{Key: []byte("k"), RangeEnd: []byte("l"), Limit: 100},
		{Key: []byte("k"), RangeEnd: []byte("l"), Limit: 280},
		{Key: []byte("k"), RangeEnd: []byte("l"), Limit: 281},
		{Key: []byte("k"), RangeEnd: []byte("l"), Limit: -1},
		{Key: []byte("k"), RangeEnd: []byte("l"), Revision: 150},
		{Key: []byte("k"), RangeEnd: []byte("l"), Revision: 150, Limit: 120},
		{Key: []byte("k"), RangeEnd: []byte("l"), Revision: -1, Serializable: true},
		{Key: []byte("k"), RangeEnd: []byte("l"), CountOnly: true, Limit: 3},
		{Key: []byte("k"), RangeEnd: []byte("l"), CountOnly: true, Revision: 9},
		{Key: []byte("k0005")},
		{Key: []byte("k0005"), KeysOnly: true},
		{Key: []byte("k0005"), CountOnly: true},
		{Key: []byte("absent")},
		{Key: []byte("x"), RangeEnd: []byte("y")},
		{Key: []byte("l"), RangeEnd: []byte("k")},
	} {
		want, err := s.kv.Range(ctx, r)
		if err != nil {
			t.Fatalf("%v: %v", r, err)
		}
		got, messages, err := s.stream(ctx, t, r)
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("%v in %d messages: count %d more %v %d keys, %v; Range has count %d more %v %d keys",
				r, messages, got.GetCount(), got.GetMore(), len(got.GetKvs()), err, want.Count, want.More, len(want.Kvs))
		}
		if proto.Size(want) > 3*api.RangeChunkBytes && messages < 3 {
			t.Errorf("%v: %d bytes came in %d messages", r, proto.Size(want), messages)
		}
	}
	for _, in := range s.inFlight(t) {
		t.Error(in)
	}
}

// inFlight waits until every chunk was given back.
func (s *solo) inFlight(t testing.TB) []string {
	t.Helper()
	waitFor(t, "all chunks to come back", func() bool { return s.answers.inFlight.Load() == 0 })
	if len(s.answers.building) != 0 {
		return []string{"somebody still builds a large answer"}
	}
	return nil
}

func TestStreamErrors(t *testing.T) {
	s := newSolo(t)
	s.fill(t, 20, 10)
	if _, err := s.kv.Compact(callContext(t), &pb.CompactionRequest{Revision: 10}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		r    *pb.RangeRequest
		code codes.Code
		text string
	}{
		{&pb.RangeRequest{}, codes.InvalidArgument, "etcdserver: key is not provided"},
		{&pb.RangeRequest{Key: []byte("k"), SortOrder: 9}, codes.InvalidArgument, "etcdserver: invalid sort option"},
		{&pb.RangeRequest{Key: []byte("k"), SortOrder: pb.RangeRequest_DESCEND}, codes.Unimplemented, "RangeStream does not support custom sort orders"},
		{&pb.RangeRequest{Key: []byte("k"), MinModRevision: 1}, codes.Unimplemented, "RangeStream does not support revision filters"},
		{&pb.RangeRequest{Key: []byte("k"), Revision: 9}, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{&pb.RangeRequest{Key: []byte("k"), Revision: 22}, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
	} {
		if _, _, err := s.stream(callContext(t), t, c.r); status.Code(err) != c.code || status.Convert(err).Message() != c.text {
			t.Errorf("%v: %v", c.r, err)
		}
	}
}

// TestStreamReadsOneRevision: writes during a stream do not show in it, and a
// compaction that overtakes it ends it with etcd's error.
func TestStreamReadsOneRevision(t *testing.T) {
	s := newSolo(t)
	s.fill(t, 400, 20<<10)
	ctx := callContext(t)
	tx, err := s.store.Read(0)
	if err != nil {
		t.Fatal(err)
	}
	tx.Release()
	c := streamCursor{s: s.Server, r: rangeRequest{key: []byte("k"), end: []byte("l")}, next: []byte("k")}
	seen := 0
	for !c.done {
		m, err := c.message(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var resp pb.RangeStreamResponse
		if err := proto.Unmarshal(m.Buffers.Materialize(), &resp); err != nil {
			t.Fatal(err)
		}
		m.Buffers.Free()
		for _, kv := range resp.RangeResponse.Kvs {
			if kv.ModRevision > 401 {
				t.Fatalf("the stream shows a write of revision %d", kv.ModRevision)
			}
		}
		seen += len(resp.RangeResponse.Kvs)
		if c.done && (resp.RangeResponse.Header.Revision != 401 || resp.RangeResponse.Count != 400) {
			t.Errorf("last message: %v", resp.RangeResponse.Header)
		}
		s.put(t, "k0399", 0) // also the last key
		s.put(t, "k9999", 0)
	}
	if seen != 400 {
		t.Errorf("%d keys came, want 400", seen)
	}
	late := streamCursor{s: s.Server, r: rangeRequest{key: []byte("k"), end: []byte("l")}, next: []byte("k")}
	if m, err := late.message(ctx); err != nil {
		t.Fatal(err)
	} else {
		m.Buffers.Free()
	}
	s.put(t, "k0000", 0)
	if _, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: int64(s.store.Revision())}); err != nil {
		t.Fatal(err)
	}
	if _, err := late.message(ctx); rpcError(err) != error(api.ErrCompacted) {
		t.Errorf("after a compaction: %v", err)
	}
}

func TestSerializableReadsNeedNoQuorum(t *testing.T) {
	s := newSolo(t)
	s.fill(t, 3, 10)
	s.log.setFailure(api.ErrTimeoutLeaderFail)
	defer s.log.setFailure(nil)
	ctx := callContext(t)
	read := func(serializable bool) []error {
		r := &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Serializable: serializable}
		_, single := s.kv.Range(ctx, r)
		_, _, stream := s.stream(ctx, t, r)
		_, txn := s.kv.Txn(ctx, &pb.TxnRequest{Success: ops(rangeOp(r))})
		return []error{single, stream, txn}
	}
	for i, err := range read(true) {
		if err != nil {
			t.Errorf("serializable read %d: %v", i, err)
		}
	}
	for i, err := range read(false) {
		if status.Convert(err).Message() != api.ErrTimeoutLeaderFail.Text {
			t.Errorf("linearizable read %d: %v", i, err)
		}
	}
	mixed := &pb.TxnRequest{
		Success: ops(rangeOp(&pb.RangeRequest{Key: []byte("k"), Serializable: true})),
		Failure: ops(rangeOp(&pb.RangeRequest{Key: []byte("k")})),
	}
	if _, err := s.kv.Txn(ctx, mixed); err == nil {
		t.Error("one linearizable range makes the whole transaction linearizable")
	}
}

// TestAnswerPieces builds answers of all sizes around the chunk's.
func TestAnswerPieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pool := newAnswers(clock.System(), newOverload(&Config{Clock: clock.System()}, nil).gate)
	for round := range 60 {
		a := pool.begin(t.Context())
		var want pb.RangeResponse
		for range rng.IntN(40) {
			kv := &mvccpb.KeyValue{Key: []byte("key"), Version: 1, Value: make([]byte, rng.IntN(4000))}
			if rng.IntN(10) == 0 {
				kv.Value = make([]byte, chunkBytes-30+rng.IntN(60))
			}
			rec, err := proto.Marshal(kv)
			if err != nil {
				t.Fatal(err)
			}
			it := &mvcc.Item{Key: kv.Key, Version: 1}
			if rng.IntN(3) == 0 {
				kv.Value, rec = nil, nil
			}
			want.Kvs = append(want.Kvs, kv)
			if err := a.kv(t.Context(), it, rec); err != nil {
				t.Fatal(err)
			}
		}
		size := a.len()
		m := a.done()
		var got pb.RangeResponse
		if err := proto.Unmarshal(m.Buffers.Materialize(), &got); err != nil || !proto.Equal(&got, &want) || m.Buffers.Len() != size {
			t.Fatalf("round %d: %v, %d bytes, said %d", round, err, m.Buffers.Len(), size)
		}
		m.Buffers.Free()
		if n := pool.inFlight.Load(); n != 0 {
			t.Fatalf("round %d: %d bytes are still counted", round, n)
		}
	}
}

// TestPagesAreLent sends pages of all sizes, some of which stand in two answers:
// the messages are the keys in order, the store's bytes stay as they are, and
// nothing is counted once both are sent.
func TestPagesAreLent(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	pool := newAnswers(clock.System(), newOverload(&Config{Clock: clock.System()}, nil).gate)
	for round := range 50 {
		var want pb.RangeResponse
		var pages []mvcc.Page
		for i := range 20 {
			kv := &mvccpb.KeyValue{Key: fmt.Append(nil, i), Value: make([]byte, rng.IntN(2*chunkBytes)>>(rng.IntN(12))), ModRevision: 1}
			b, err := proto.Marshal(&pb.RangeResponse{Kvs: []*mvccpb.KeyValue{kv}})
			if err != nil {
				t.Fatal(err)
			}
			want.Kvs = append(want.Kvs, kv)
			pages = append(pages, mvcc.Page{Bytes: b, Keys: 1})
		}
		kept := make([][]byte, len(pages))
		var answers [2]*Encoded
		for n := range answers {
			a := pool.begin(t.Context())
			for i, p := range pages {
				kept[i] = bytes.Clone(p.Bytes)
				if err := a.page(t.Context(), p); err != nil {
					t.Fatal(err)
				}
			}
			answers[n] = a.done()
		}
		for _, m := range answers {
			var got pb.RangeResponse
			if err := proto.Unmarshal(m.Buffers.Materialize(), &got); err != nil || !proto.Equal(&got, &want) {
				t.Fatalf("round %d: %v, %d keys", round, err, len(got.Kvs))
			}
			m.Buffers.Free()
		}
		for i, p := range pages {
			if !bytes.Equal(p.Bytes, kept[i]) {
				t.Fatalf("round %d: page %d was written to", round, i)
			}
		}
		if n := pool.inFlight.Load(); n != 0 {
			t.Fatalf("round %d: %d bytes are still counted", round, n)
		}
	}
}

// TestLargeAnswersTakeTurns: while readers do not read, large answers wait, but
// not for ever, and small ones not at all.
func TestLargeAnswersTakeTurns(t *testing.T) {
	fake := clock.NewFake(time.Unix(0, 0))
	pool := newAnswers(fake, newOverload(&Config{Clock: fake}, nil).gate)
	rec := make(mvcc.Record, 32<<10)
	build := func(ctx context.Context, bytes int) (*Encoded, error) {
		a := pool.begin(t.Context())
		for a.len() < bytes {
			if err := a.kv(ctx, nil, rec); err != nil {
				a.drop()
				return nil, err
			}
		}
		return a.done(), nil
	}
	unread, err := build(t.Context(), answersInFlight+smallAnswer)
	if err != nil {
		t.Fatal(err)
	}
	small, err := build(t.Context(), smallAnswer/2)
	if err != nil {
		t.Fatal(err)
	}
	small.Buffers.Free()
	done := make(chan *Encoded)
	go func() {
		m, err := build(context.Background(), 2*smallAnswer)
		if err != nil {
			t.Error(err)
		}
		done <- m
	}()
	waitFor(t, "the next answer to wait", func() bool { return len(pool.building) == 1 })
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := build(cancelled, 2*smallAnswer); !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that left gets %v", err)
	}
	select {
	case <-done:
		t.Fatal("the second large answer did not wait")
	default:
	}
	var second *Encoded
	waitFor(t, "patience to end", func() bool {
		fake.Advance(answerPatience)
		select {
		case second = <-done:
			return true
		default:
			return false
		}
	})
	go func() {
		m, err := build(context.Background(), 2*smallAnswer)
		if err != nil {
			t.Error(err)
		}
		done <- m
	}()
	waitFor(t, "the third answer to wait", func() bool { return len(pool.building) == 1 })
	mem.BufferSlice(unread.Buffers).Free()
	third := <-done
	second.Buffers.Free()
	third.Buffers.Free()
	if n := pool.inFlight.Load(); n != 0 || len(pool.building) != 0 {
		t.Errorf("%d bytes and %d builders are left", n, len(pool.building))
	}
}
