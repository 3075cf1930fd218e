package server

import (
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/raft"
)

func TestRequestSize(t *testing.T) {
	s := newSolo(t, func(c *Config) { c.MaxRequestBytes = 1000 })
	ctx := callContext(t)
	key := []byte("key")
	fits := 1000 - envelopeBytes - proto.Size(&pb.PutRequest{Key: key, Value: make([]byte, 900)}) + 900
	if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: key, Value: make([]byte, fits)}); err != nil {
		t.Errorf("a put of the largest size: %v", err)
	}
	large := &pb.PutRequest{Key: key, Value: make([]byte, fits+1)}
	for name, err := range map[string]error{
		"put":    second(s.kv.Put(ctx, large)),
		"txn":    second(s.kv.Txn(ctx, &pb.TxnRequest{Success: ops(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: large}})})),
		"delete": second(s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: make([]byte, 1000)})),
	} {
		if status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != "etcdserver: request is too large" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.store.Revision() != 2 {
		t.Errorf("a refused request left revision %d", s.store.Revision())
	}
	tooLarge := &pb.PutRequest{Key: key, Value: make([]byte, 1000+api.RequestOverheadBytes)}
	if _, err := s.kv.Put(ctx, tooLarge); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("beyond what is received at all: %v", err)
	}
}

func second[R any](_ R, err error) error { return err }

// watch opens a watch of key k.
func (s *solo) watch(ctx context.Context, t testing.TB) pb.Watch_WatchClient {
	t.Helper()
	w := askWatch(ctx, t, s.conn)
	if _, err := w.Recv(); err != nil {
		t.Fatal(err)
	}
	return w
}

// askWatch asks for a watch of key k. If that was refused already, Recv says why.
func askWatch(ctx context.Context, t testing.TB, conn *grpc.ClientConn) pb.Watch_WatchClient {
	t.Helper()
	w, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte("k")}
	if err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return w
}

func isNoLeader(err error) bool {
	return status.Code(err) == codes.Unavailable && status.Convert(err).Message() == "etcdserver: no leader"
}

func TestNoLeader(t *testing.T) {
	s := newSolo(t)
	ctx := metadata.AppendToOutgoingContext(callContext(t), "hasleader", "true")
	if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k")}); err != nil {
		t.Fatalf("with a leader: %v", err)
	}
	keepAlive, err := s.lease.LeaseKeepAlive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	watch, indifferent := s.watch(ctx, t), s.watch(callContext(t), t)
	s.log.elect(0)
	for name, err := range map[string]error{
		"put":   second(s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k")})),
		"range": second(s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true})),
	} {
		if !isNoLeader(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	late := askWatch(ctx, t, s.conn)
	ended := make(chan error, 3)
	go func() { ended <- second(watch.Recv()) }()
	go func() { ended <- second(keepAlive.Recv()) }()
	go func() { ended <- second(late.Recv()) }()
	for range noLeaderTimeouts - 1 {
		s.clock.Advance(s.cfg.ElectionTimeout)
	}
	select {
	case err := <-ended:
		t.Fatalf("cut too early: %v", err)
	default:
	}
	for range cap(ended) {
		if err := s.inTime(t, ended); !isNoLeader(err) {
			t.Errorf("an open stream ends with %v", err)
		}
	}
	if _, err := askWatch(ctx, t, s.conn).Recv(); !isNoLeader(err) { // without more time
		t.Errorf("a stream that is opened after that: %v", err)
	}
	s.log.elect(soloMember)
	s.put(t, "k", 0)
	if resp, err := indifferent.Recv(); err != nil || len(resp.Events) != 1 {
		t.Errorf("a stream that asked for no leader: %v, %v", resp, err)
	}
	s.watch(ctx, t) // although nobody has looked for the leader since
}

// TestStreamAwaitsLeader: what demands a leader and is opened during an election is
// served after it, also where there was none for long before.
func TestStreamAwaitsLeader(t *testing.T) {
	s := newSolo(t)
	ctx := metadata.AppendToOutgoingContext(callContext(t), "hasleader", "true")
	for _, leader := range []api.MemberID{0, soloMember} {
		s.log.elect(leader)
		waitFor(t, "enough looks", func() bool {
			s.clock.Advance(s.cfg.ElectionTimeout)
			return s.led.leaderless.Load() == (leader == 0)
		})
	}
	s.log.elect(0)
	watches := []pb.Watch_WatchClient{askWatch(ctx, t, s.conn), askWatch(ctx, t, s.plain)}
	waitFor(t, "the streams", func() bool {
		s.led.mu.Lock()
		defer s.led.mu.Unlock()
		return len(s.led.mu.open) == len(watches)
	})
	s.log.elect(soloMember)
	for _, w := range watches {
		if resp, err := w.Recv(); err != nil || !resp.Created {
			t.Errorf("opened before the leader came: %v, %v", resp, err)
		}
	}
}

// TestStoppedAwaitingLeader: a member that stops does not wait for a leader.
func TestStoppedAwaitingLeader(t *testing.T) {
	s := newSolo(t)
	s.log.elect(0)
	w := askWatch(metadata.AppendToOutgoingContext(callContext(t), "hasleader", "true"), t, s.conn)
	ended := make(chan error, 1)
	go func() { ended <- second(w.Recv()) }()
	waitFor(t, "the end", func() bool {
		s.led.cutAll(false) // again and again, until the stream has come
		return len(ended) == 1
	})
	if err := <-ended; status.Convert(err).Message() != api.ErrStopped.Text {
		t.Errorf("the stream ends with %v", err)
	}
}

func TestLearnerServesLittle(t *testing.T) {
	s := newSolo(t)
	s.log.mu.Lock()
	s.log.mu.learner = true
	s.log.mu.Unlock()
	ctx := callContext(t)
	if _, err := s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true}); err != nil {
		t.Errorf("serializable range: %v", err)
	}
	stream := func(r *pb.RangeRequest) error {
		_, _, err := s.stream(ctx, t, r)
		return err
	}
	for name, err := range map[string]error{
		"range":  second(s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")})),
		"put":    second(s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k")})),
		"grant":  second(s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 5})),
		"stream": stream(&pb.RangeRequest{Key: []byte("k"), Serializable: true}),
	} {
		if status.Code(err) != codes.FailedPrecondition || status.Convert(err).Message() != "etcdserver: rpc not supported for learner" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsAtTheEdge(t *testing.T) {
	for _, c := range []struct {
		in   error
		code codes.Code
		text string
	}{
		{api.ErrTimeout, codes.Unavailable, "etcdserver: request timed out"},
		{errors.Join(errors.New("read"), mvcc.ErrCompacted), codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{raft.ErrTooManyRequests, codes.ResourceExhausted, "etcdserver: too many requests"},
		{context.Canceled, codes.Canceled, "context canceled"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "context deadline exceeded"},
		{mvcc.ErrCorrupt, codes.DataLoss, "etcdserver: corrupt cluster"},
		{mvcc.ErrClosed, codes.Unavailable, "etcdserver: server stopped"},
		{errStreamSorted, codes.Unimplemented, "RangeStream does not support custom sort orders"},
		{io.ErrUnexpectedEOF, codes.Unknown, "unexpected EOF"},
		{proposalError(context.Canceled), codes.Canceled, "etcdserver: request canceled"},
		{proposalError(context.DeadlineExceeded), codes.Unavailable, "etcdserver: request timed out"},
	} {
		if err := rpcError(c.in); status.Code(err) != c.code || status.Convert(err).Message() != c.text {
			t.Errorf("%v became %v", c.in, err)
		}
	}
	if rpcError(nil) != nil {
		t.Error("no error became one")
	}
}

// TestMalformedRequests: bytes that are no request end in an error and nothing else.
func TestMalformedRequests(t *testing.T) {
	s := newSolo(t)
	ctx := callContext(t)
	for _, method := range []string{"KV/Range", "KV/Put", "KV/DeleteRange", "KV/Txn", "KV/Compact",
		"Lease/LeaseGrant", "Lease/LeaseRevoke", "Lease/LeaseTimeToLive", "Lease/LeaseLeases"} {
		for _, b := range [][]byte{{0xff}, {0x0a, 0x7f}, protowire.AppendTag(nil, 1, protowire.EndGroupType)} {
			in, out := rawMessage(b), rawMessage(nil)
			err := s.conn.Invoke(ctx, "/etcdserverpb."+method, &in, &out, rawCodecOption)
			if status.Code(err) != codes.Internal {
				t.Errorf("%s of %x: %v", method, b, err)
			}
		}
	}
	if s.store.Revision() != 1 {
		t.Error("a malformed request changed the store")
	}
	for kind := range uint8(32) {
		if c := s.log.replay(kind, []byte{0xff}); c.Err == nil && kind != commandLeaseExpire {
			t.Errorf("a malformed command of kind %d was applied", kind)
		}
	}
}
