package server

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

var testSchema = newSchema()

// recipes calls Lock and Election through gRPC, with messages made from our
// description of them.
type recipes struct {
	t *testing.T
	*solo
}

// msg fills a message: names and values, one after the other.
func (r recipes) msg(name protoreflect.FullName, fields ...any) *dynamicpb.Message {
	m := dynamicpb.NewMessage(testSchema.messageType(name))
	for i := 0; i < len(fields); i += 2 {
		d := m.Descriptor().Fields().ByName(protoreflect.Name(fields[i].(string)))
		switch v := fields[i+1].(type) {
		case string:
			m.Set(d, protoreflect.ValueOfBytes([]byte(v)))
		default:
			m.Set(d, protoreflect.ValueOf(v))
		}
	}
	return m
}

func (r recipes) call(ctx context.Context, method string, req *dynamicpb.Message, answer protoreflect.FullName) (*dynamicpb.Message, error) {
	resp := r.msg(answer)
	return resp, r.conn.Invoke(ctx, method, req, resp)
}

func (r recipes) lock(ctx context.Context, name string, lease int64) (key string, token int64, err error) {
	resp, err := r.call(ctx, "/v3lockpb.Lock/Lock", r.msg("v3lockpb.LockRequest", "name", name, "lease", lease), "v3lockpb.LockResponse")
	return string(resp.Get(field1(resp, "key")).Bytes()), resp.Get(field1(resp, "token")).Int(), err
}

func field1(m *dynamicpb.Message, name protoreflect.Name) protoreflect.FieldDescriptor {
	return m.Descriptor().Fields().ByName(name)
}

func (r recipes) grant(id int64) int64 {
	r.t.Helper()
	if _, err := r.solo.lease.LeaseGrant(callContext(r.t), &pb.LeaseGrantRequest{ID: id, TTL: 600}); err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r recipes) keys(prefix string) int64 {
	r.t.Helper()
	resp, err := r.kv.Range(callContext(r.t), &pb.RangeRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix), CountOnly: true})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.Count
}

// queued waits until n keys stand in a queue.
func (r recipes) queued(prefix string, n int64) {
	r.t.Helper()
	waitFor(r.t, "the queue", func() bool { return r.keys(prefix) == n })
}

type locked struct {
	key   string
	token int64
	err   error
}

func (r recipes) lockLater(ctx context.Context, name string, lease int64) <-chan locked {
	c := make(chan locked, 1)
	go func() {
		key, token, err := r.lock(ctx, name, lease)
		c <- locked{key, token, err}
	}()
	return c
}

// TestLockExcludes: one holder at a time, in the order of arrival, with rising
// tokens; and the key is etcd's.
func TestLockExcludes(t *testing.T) {
	r := recipes{t, newSolo(t)}
	ctx := callContext(t)
	key, token, err := r.lock(ctx, "l", r.grant(0xabc))
	if err != nil || key != "l/abc" || token == 0 {
		t.Fatal(key, token, err)
	}
	if again, same, err := r.lock(ctx, "l", 0xabc); err != nil || again != key || same != token {
		t.Fatal("the holder locks again:", again, same, err)
	}
	second := r.lockLater(ctx, "l", r.grant(0xdef))
	r.queued("l/", 2)
	third := r.lockLater(ctx, "l", 0) // a lease of its own
	r.queued("l/", 3)
	last := token
	for _, next := range []<-chan locked{second, third} {
		select {
		case l := <-next:
			t.Fatal("two hold the lock", l)
		default:
		}
		unlock := r.msg("v3lockpb.UnlockRequest", "key", key)
		if _, err := r.call(ctx, "/v3lockpb.Lock/Unlock", unlock, "v3lockpb.UnlockResponse"); err != nil {
			t.Fatal(err)
		}
		l := <-next
		if l.err != nil || l.token <= last {
			t.Fatal(l, last)
		}
		key, last = l.key, l.token
	}
}

// TestLockLeaves: who stops waiting leaves the queue, and with it its own lease.
func TestLockLeaves(t *testing.T) {
	for name, lease := range map[string]int64{"own lease": 0, "the caller's lease": 0xdef} {
		t.Run(name, func(t *testing.T) {
			r := recipes{t, newSolo(t)}
			if _, _, err := r.lock(callContext(t), "l", r.grant(0xabc)); err != nil {
				t.Fatal(err)
			}
			if lease != 0 {
				r.grant(lease)
			}
			before := len(r.store.Leases())
			ctx, cancel := context.WithCancel(callContext(t))
			waiting := r.lockLater(ctx, "l", lease)
			r.queued("l/", 2)
			cancel()
			if l := <-waiting; status.Code(l.err) != codes.Canceled {
				t.Fatal(l)
			}
			r.queued("l/", 1)
			waitFor(t, "the lease to go", func() bool { return len(r.store.Leases()) == before })
		})
	}
}

// TestLockLost: a lease that ends while its owner waits gives no lock.
func TestLockLost(t *testing.T) {
	r := recipes{t, newSolo(t)}
	ctx := callContext(t)
	key, _, err := r.lock(ctx, "l", r.grant(1))
	if err != nil {
		t.Fatal(err)
	}
	waiting := r.lockLater(ctx, "l", r.grant(2))
	r.queued("l/", 2)
	if _, err := r.solo.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(key)}); err != nil {
		t.Fatal(err)
	}
	if l := <-waiting; status.Convert(l.err).Message() != errSessionExpired.Error() {
		t.Fatal(l)
	}
}

// TestElection: campaign, observe, proclaim, resign.
func TestElection(t *testing.T) {
	r := recipes{t, newSolo(t)}
	ctx, cancel := context.WithCancel(callContext(t))
	defer cancel()
	name := r.msg("v3electionpb.LeaderRequest", "name", "e")
	if _, err := r.call(ctx, "/v3electionpb.Election/Leader", name, "v3electionpb.LeaderResponse"); status.Convert(err).Message() != errNobodyLeads.Error() {
		t.Fatal(err)
	}
	observed := r.observe(ctx, name)
	campaign := func(lease int64, value string) (*dynamicpb.Message, error) {
		req := r.msg("v3electionpb.CampaignRequest", "name", "e", "lease", lease, "value", value)
		return r.call(ctx, "/v3electionpb.Election/Campaign", req, "v3electionpb.CampaignResponse")
	}
	won, err := campaign(r.grant(1), "one")
	if err != nil {
		t.Fatal(err)
	}
	leader := won.Get(field1(won, "leader")).Message()
	told := func(want string) {
		t.Helper()
		if got := <-observed; got != want {
			t.Fatalf("observed %q, want %q", got, want)
		}
	}
	told("one") // an observer whose first look is late would not see it
	type result struct {
		m   *dynamicpb.Message
		err error
	}
	second := make(chan result, 1)
	r.grant(2)
	go func() {
		m, err := campaign(2, "two")
		second <- result{m, err}
	}()
	r.queued("e/", 2)
	held := protoreflect.ValueOfMessage(leader).Message()
	proclaim := func() error {
		req := r.msg("v3electionpb.ProclaimRequest", "value", "uno")
		req.Set(field1(req, "leader"), protoreflect.ValueOfMessage(held))
		_, err := r.call(ctx, "/v3electionpb.Election/Proclaim", req, "v3electionpb.ProclaimResponse")
		return err
	}
	if err := proclaim(); err != nil {
		t.Fatal(err)
	}
	resign := r.msg("v3electionpb.ResignRequest")
	resign.Set(field1(resign, "leader"), protoreflect.ValueOfMessage(held))
	told("uno")
	if _, err := r.call(ctx, "/v3electionpb.Election/Resign", resign, "v3electionpb.ResignResponse"); err != nil {
		t.Fatal(err)
	}
	if s := <-second; s.err != nil {
		t.Fatal(s.err)
	}
	told("two")
	if err := proclaim(); status.Convert(err).Message() != errNotLeader.Error() {
		t.Fatal("a leader of the past speaks:", err)
	}
	req := r.msg("v3electionpb.ResignRequest")
	if _, err := r.call(ctx, "/v3electionpb.Election/Resign", req, "v3electionpb.ResignResponse"); status.Convert(err).Message() != errMissingLeaderKey.Error() {
		t.Fatal(err)
	}
}

// observe returns the values that an observer is told.
func (r recipes) observe(ctx context.Context, name *dynamicpb.Message) <-chan string {
	s, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/v3electionpb.Election/Observe")
	if err == nil {
		err = s.SendMsg(name)
	}
	if err == nil {
		err = s.CloseSend()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	out := make(chan string, 10)
	go func() {
		defer close(out)
		for {
			m := r.msg("v3electionpb.LeaderResponse")
			if s.RecvMsg(m) != nil {
				return
			}
			kv := m.Get(field1(m, "kv")).Message()
			out <- string(kv.Get(kv.Descriptor().Fields().ByName("value")).Bytes())
		}
	}()
	return out
}

// TestReflection: the services and the messages of all of them can be asked for.
func TestReflection(t *testing.T) {
	s := newSolo(t)
	stream, err := reflectionpb.NewServerReflectionClient(s.conn).ServerReflectionInfo(callContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, symbol := range []string{"etcdserverpb.KV", "v3lockpb.Lock", "v3electionpb.LeaderKey", "keelsonpb.Pipeline"} {
		if err := stream.Send(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol},
		}); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil || len(resp.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
			t.Errorf("%s: %v, %v", symbol, proto.MarshalOptions{}.Size(resp), err)
		}
	}
}
