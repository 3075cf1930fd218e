package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/server/admission"
	"github.com/keelson-io/keelson/server/certtest"
)

// decoded gives a message as its handler sees it.
func decoded[R any, P interface {
	*R
	request
}](t *testing.T, m proto.Message) P {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r := P(new(R))
	if err := r.decode(b); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestClasses(t *testing.T) {
	s := newSolo(t)
	s.fill(t, 500, 900)
	all := &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}
	page := &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Limit: 10}
	sorted := &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Limit: 10, SortOrder: pb.RangeRequest_DESCEND}
	count := &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), CountOnly: true}
	txn := func(puts ...*pb.PutRequest) *pb.TxnRequest {
		r := &pb.TxnRequest{}
		for _, p := range puts {
			r.Success = append(r.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}})
		}
		return r
	}
	key := func(k string, lease int64) *pb.PutRequest { return &pb.PutRequest{Key: []byte(k), Lease: lease} }
	for name, c := range map[string]struct {
		req  request
		want admission.Class
	}{
		"grant":             {decoded[grantRequest](t, &pb.LeaseGrantRequest{TTL: 5}), admission.Lease},
		"revoke":            {decoded[revokeRequest](t, &pb.LeaseRevokeRequest{ID: 5}), admission.Lease},
		"put":               {decoded[putRequest](t, key("k", 0)), admission.Write},
		"delete":            {decoded[deleteRequest](t, &pb.DeleteRangeRequest{Key: []byte("k")}), admission.Write},
		"compact":           {decoded[compactRequest](t, &pb.CompactionRequest{Revision: 1}), admission.Write},
		"physical compact":  {decoded[compactRequest](t, &pb.CompactionRequest{Revision: 1, Physical: true}), admission.None},
		"txn":               {decoded[txnRequest](t, txn(key("/registry/pods/a/b", 0))), admission.Write},
		"Lease object":      {decoded[txnRequest](t, txn(key("/registry/leases/kube-system/scheduler", 0))), admission.Election},
		"API server":        {decoded[txnRequest](t, txn(key("/k/masterleases/10.0.0.1", 7))), admission.Election},
		"lookalike":         {decoded[txnRequest](t, txn(key("/a/b/leases/c", 0))), admission.Write},
		"lock":              {decoded[txnRequest](t, txn(key("lock/2a", 0x2a))), admission.Election},
		"event of a lease":  {decoded[txnRequest](t, txn(key("/registry/events/a/2b", 0x2a))), admission.Write},
		"many with a lease": {decoded[txnRequest](t, txn(key("lock/2a", 0x2a), key("x", 0), key("y", 0))), admission.Write},
		"get":               {decoded[rangeRequest](t, &pb.RangeRequest{Key: []byte("k")}), admission.Read},
		"count":             {decoded[rangeRequest](t, count), admission.Read},
		"page":              {decoded[rangeRequest](t, page), admission.Read},
		"sorted page":       {decoded[rangeRequest](t, sorted), admission.List},
		"list":              {decoded[rangeRequest](t, all), admission.List},
		"txn that lists":    {decoded[txnRequest](t, &pb.TxnRequest{Success: ops(rangeOp(page), rangeOp(all))}), admission.List},
		"txn that reads":    {decoded[txnRequest](t, &pb.TxnRequest{Success: ops(rangeOp(page))}), admission.Read},
		"authenticate":      {decoded[message[pb.AuthenticateRequest]](t, &pb.AuthenticateRequest{}), admission.None},
	} {
		if got := s.load.classify(c.req); got.Class != c.want || got.Class != admission.None && got.Cost <= 0 {
			t.Errorf("%s: class %v, cost %d, want %v", name, got.Class, got.Cost, c.want)
		}
	}
	if _, err := s.kv.Range(callContext(t), all); err != nil {
		t.Fatal(err)
	}
	if got := s.load.keyBytes.Load(); got >= 1<<10 || got < 900 {
		t.Errorf("after a list of values of 900 bytes a key is thought to have %d", got)
	}
}

// TestRefusal: a client that is refused gets etcd's error, and a hint.
func TestRefusal(t *testing.T) {
	s := newSolo(t)
	s.load.gate = admission.NewGate(s.clock, false, func(admission.Class) admission.Bounds {
		return admission.Bounds{Slots: 1, Heavy: 1, Quantum: 1}
	})
	ctx := callContext(t)
	pass, err := s.load.gate.Enter(ctx, &admission.Flow{}, admission.Request{Class: admission.Write, Cost: 1}, s.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	var trailer metadata.MD
	_, err = s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k")}, grpc.Trailer(&trailer))
	if status.Code(err) != codes.ResourceExhausted || status.Convert(err).Message() != "etcdserver: too many requests" {
		t.Errorf("a put without a slot: %v", err)
	}
	if known := rpctypes.Error(err); known != rpctypes.ErrTooManyRequests { // as etcd's client sees it
		t.Errorf("etcd's client makes %v of it", known)
	}
	if v := trailer.Get(retryHeader); len(v) != 1 {
		t.Errorf("the trailer is %v", trailer)
	} else if ms, err := strconv.Atoi(v[0]); err != nil || ms <= 0 {
		t.Errorf("the hint is %q", v[0])
	}
	if _, err := s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")}); err != nil {
		t.Errorf("a read waits for writes: %v", err)
	}
	s.load.gate.Leave(pass, s.clock.Now(), true)
	s.put(t, "k", 0)
}

// TestWhoseRequests: by user, by certificate, by connection.
func TestWhoseRequests(t *testing.T) {
	o := newOverload(&Config{Clock: clock.System()}, nil)
	alice := certtest.New(t, "ca").Issue("alice")
	pair, err := tls.X509KeyPair(alice.Cert, alice.Key)
	if err != nil {
		t.Fatal(err)
	}
	info := credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{pair.Leaf}}}
	on := func(auth credentials.AuthInfo, port int) context.Context {
		addr := newClientAddr(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: port})
		return peer.NewContext(context.Background(), &peer.Peer{Addr: addr, AuthInfo: auth})
	}
	one, other := on(nil, 1), on(nil, 2)
	if again := o.flow(one); o.flow(one) != again || again == o.flow(other) || o.flow(one).Name != "10.0.0.1:1" {
		t.Errorf("connections are %q and %q", o.flow(one).Name, o.flow(other).Name)
	}
	o.known(one, "bob")
	o.known(other, "bob")
	if o.flow(one) != o.flow(other) || o.flow(one).Name != "user bob" {
		t.Errorf("a user's connections are %q and %q", o.flow(one).Name, o.flow(other).Name)
	}
	o.known(one, "bo")
	if o.flow(one).Name != "user bo" {
		t.Errorf("a connection that changed hands is %q", o.flow(one).Name)
	}
	first, second := on(info, 3), on(info, 4)
	if o.flow(first) != o.flow(second) || o.flow(first).Name != "certificate alice" {
		t.Errorf("a certificate's connections are %q and %q", o.flow(first).Name, o.flow(second).Name)
	}
	if o.flow(context.Background()) == nil {
		t.Error("a call without a connection is nobody's")
	}
}

// TestBrokenConnectionGivesBack: a client that leaves in the middle of a large
// answer takes nothing of the budget of answers with it.
func TestBrokenConnectionGivesBack(t *testing.T) {
	s := newSolo(t)
	s.fill(t, 60, 100_000)
	inner := bufconn.Listen(64 << 10)
	gate := newGate(inner, "client", clock.System(), s.cfg.Logger)
	gate.http = nil
	g := grpc.NewServer(grpc.Creds(newGateCredentials()), grpc.ForceServerCodecV2(Codec()))
	g.RegisterService(&kvService, s.Server)
	served := make(chan error, 1)
	go func() { served <- g.Serve(gate) }()
	defer func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	for round := range 3 {
		conn, err := grpc.NewClient("passthrough:///solo", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return inner.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		// As a stream nobody reads, the answer stays where it is.
		stream, err := conn.NewStream(callContext(t), &grpc.StreamDesc{ServerStreams: true}, pb.KV_Range_FullMethodName)
		if err == nil {
			err = errors.Join(stream.SendMsg(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}), stream.CloseSend())
		}
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, "an answer to wait in the connection", func() bool {
			return s.answers.inFlight.Load() > 2*smallAnswer && len(s.answers.building) == 0
		})
		conn.Close()
		waitFor(t, fmt.Sprintf("the budget to be whole again, round %d", round), func() bool { return s.answers.inFlight.Load() == 0 })
	}
}

// TestPacedAnswers: nothing that is built and sent waits while nobody suffers:
// the clock stands still, so a pause would never end.
func TestPacedAnswers(t *testing.T) {
	c := newClientAddr(&net.TCPAddr{})
	still := clock.NewFake(time.Unix(0, 0))
	pool := newAnswers(still, newOverload(&Config{Clock: still, PaceHeavyClients: true}, nil).gate)
	c.load.lend(pool, 2*smallAnswer)
	for range 4 {
		c.load.paceSending(64 << 10)
	}
	c.load.giveBack(2 * smallAnswer)
	c.load.leave()
	c.load.lend(pool, 1000) // a handler that has not noticed yet
	c.load.giveBack(1000)
	if n := pool.inFlight.Load(); n != 0 {
		t.Errorf("%d bytes are counted for nobody", n)
	}
}

// BenchmarkEnter is all that admission costs a put that does not wait.
func BenchmarkEnter(b *testing.B) {
	o := newOverload(&Config{Clock: clock.System(), PaceHeavyClients: true}, nil)
	ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: newClientAddr(&net.TCPAddr{})})
	req, now := &putRequest{body: make([]byte, 300)}, time.Now()
	b.ReportAllocs()
	for b.Loop() {
		pass, err := o.enter(ctx, req, now)
		if err != nil {
			b.Fatal(err)
		}
		o.gate.Leave(pass, now, true)
	}
}
