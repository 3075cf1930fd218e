package server

import (
	"context"
	"errors"
	"io"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/planted"
)

// leaseService is etcdserverpb.Lease.
var leaseService = grpc.ServiceDesc{
	ServiceName: "etcdserverpb.Lease",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		unary("etcdserverpb.Lease", "LeaseGrant", (*Server).LeaseGrant),
		unary("etcdserverpb.Lease", "LeaseRevoke", (*Server).LeaseRevoke),
		unary("etcdserverpb.Lease", "LeaseTimeToLive", (*Server).LeaseTimeToLive),
		unary("etcdserverpb.Lease", "LeaseLeases", (*Server).LeaseLeases),
	},
	Streams: []grpc.StreamDesc{{
		StreamName:    "LeaseKeepAlive",
		ServerStreams: true,
		ClientStreams: true,
		Handler: func(srv any, stream grpc.ServerStream) error {
			return rpcError(srv.(*Server).leaseKeepAlive(stream))
		},
	}},
	Metadata: "rpc.proto",
}

// Field numbers of the lease messages.
const (
	fieldGrantID  = 2
	fieldGrantTTL = 3

	fieldTTLID      = 2
	fieldTTL        = 3
	fieldTTLGranted = 4
	fieldTTLKeys    = 5

	fieldLeases  = 2
	fieldLeaseID = 1
)

// grantRequest is etcdserverpb.LeaseGrantRequest.
type grantRequest struct{ pb.LeaseGrantRequest }

func (r *grantRequest) decode(body []byte) error { return proto.Unmarshal(body, &r.LeaseGrantRequest) }

// LeaseGrant proposes a lease. What is not fixed by the client is fixed here,
// before the command is replicated: the id, and the least TTL, which depends on
// this member's election timeout.
func (s *Server) LeaseGrant(ctx context.Context, r *grantRequest) (*Encoded, error) {
	if err := s.admitCost(ctx, leaseOverhead); err != nil {
		return nil, err
	}
	for r.ID == 0 {
		r.ID = int64(s.ids.next() & math.MaxInt64)
	}
	r.TTL = max(r.TTL, s.minLeaseTTL())
	body, err := proto.Marshal(&r.LeaseGrantRequest)
	if err != nil {
		return nil, err
	}
	return s.propose(ctx, commandLeaseGrant, body, nil)
}

// minLeaseTTL is etcd's: one and a half election timeouts, in whole seconds, so
// that a lease outlives an election.
func (s *Server) minLeaseTTL() int64 {
	least := time.Duration(3*s.cfg.electionTicks()/2) * s.cfg.HeartbeatInterval
	return int64(math.Ceil(least.Seconds()))
}

// revokeRequest is etcdserverpb.LeaseRevokeRequest.
type revokeRequest struct {
	body []byte
	id   api.LeaseID
}

func (r *revokeRequest) decode(body []byte) error {
	var m pb.LeaseRevokeRequest
	err := proto.Unmarshal(body, &m)
	r.body, r.id = body, api.LeaseID(m.ID)
	return err
}

// LeaseRevoke proposes the end of a lease and of its keys.
func (s *Server) LeaseRevoke(ctx context.Context, r *revokeRequest) (*Encoded, error) {
	return s.propose(ctx, commandLeaseRevoke, r.body, leaseAccess{useLease, r.id})
}

// ttlRequest is etcdserverpb.LeaseTimeToLiveRequest.
type ttlRequest struct{ pb.LeaseTimeToLiveRequest }

func (r *ttlRequest) decode(body []byte) error {
	return proto.Unmarshal(body, &r.LeaseTimeToLiveRequest)
}

// LeaseTimeToLive asks the leader, whose clock alone counts. An absent lease is
// no error: its TTL is -1.
//
// Keys are shown to those only who may read all of them. The leader's answer is
// checked, not what this member knew of the lease before.
func (s *Server) LeaseTimeToLive(ctx context.Context, r *ttlRequest) (*Encoded, error) {
	who, err := s.permit(ctx, (*auth.State).MustBeKnown)
	if err != nil {
		return nil, err
	}
	state, err := s.askLeader(ctx, leaseQuestion{id: api.LeaseID(r.ID), keys: r.Keys})
	if errors.Is(err, api.ErrLeaseNotFound) {
		state, err = leaseState{ttl: -1}, nil
	}
	if err != nil {
		return nil, err
	}
	if r.Keys {
		if err := s.showLeaseKeys(who, state.keys); err != nil {
			return nil, err
		}
	}
	b := appendInt(nil, fieldTTLID, r.ID)
	b = appendInt(b, fieldTTL, state.ttl)
	b = appendInt(b, fieldTTLGranted, state.granted)
	for _, key := range state.keys {
		b = appendBytes(b, fieldTTLKeys, key)
	}
	return s.answer(b, s.Store().Revision(), s.node.Status().Term), nil
}

// listRequest is etcdserverpb.LeaseLeasesRequest, which has no fields.
type listRequest struct{}

func (*listRequest) decode(body []byte) error {
	return proto.Unmarshal(body, &pb.LeaseLeasesRequest{})
}

// LeaseLeases lists what this member knows, without asking anybody: on the
// leader the next to expire first, elsewhere by id.
//
// It is all or nothing, as in etcd: whoever may not read a key of one of them is
// refused.
func (s *Server) LeaseLeases(ctx context.Context, _ *listRequest) (*Encoded, error) {
	ids, ok := s.lessor.byExpiry()
	if !ok {
		ids = s.Store().Leases()
	}
	who, err := s.permitRead(ctx, leaseList(ids))
	if err == nil {
		err = s.fresh(who)
	}
	if err != nil {
		return nil, err
	}
	var b []byte
	for _, id := range ids {
		var mark int
		b, mark = openMessage(b, fieldLeases)
		b = closeMessage(appendInt(b, fieldLeaseID, int64(id)), mark)
	}
	return s.answer(b, s.Store().Revision(), s.node.Status().Term), nil
}

// leaseKeepAlive answers the stream's keep-alives one by one. The header is
// taken before the lease is renewed: if the lease is revoked at revision r, no
// answer with a TTL carries a revision of r or later.
func (s *Server) leaseKeepAlive(stream grpc.ServerStream) error {
	ctx := stream.Context()
	ended := make(chan error, 1)
	// The loop may sit in RecvMsg, which ends once this function has returned.
	go func() { ended <- s.keepAliveLoop(ctx, stream) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) keepAliveLoop(ctx context.Context, stream grpc.ServerStream) error {
	for {
		var req pb.LeaseKeepAliveRequest
		if err := stream.RecvMsg(&req); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		b := s.appendFullHeader(make([]byte, 0, headerBytes+24), s.Store().Revision(), s.node.Status().Term)
		if err := s.permitRenew(ctx, api.LeaseID(req.ID)); err != nil {
			return err
		}
		state, err := s.askLeader(ctx, leaseQuestion{id: api.LeaseID(req.ID), renew: true})
		if errors.Is(err, api.ErrLeaseNotFound) {
			state, err = leaseState{}, nil
		}
		if err != nil {
			return err
		}
		b = appendInt(b, fieldTTLID, req.ID)
		b = appendInt(b, fieldTTL, state.ttl)
		if err := stream.SendMsg(encodeBytes(b)); err != nil {
			return err
		}
	}
}

// leaseQuestion is what a member asks the leader about a lease.
type leaseQuestion struct {
	id    api.LeaseID
	renew bool // start its time again; otherwise only look
	keys  bool
}

// leaseState is the leader's answer, in seconds.
type leaseState struct {
	ttl     int64 // renewed: the granted TTL; otherwise what remains
	granted int64
	keys    [][]byte
}

// leaderRetry is how long to wait before the leader is asked again after a
// failed call.
const leaderRetry = 50 * time.Millisecond

// askLeader answers here if this member leads, else at the leader, waiting
// through elections until the request's time is over.
func (s *Server) askLeader(ctx context.Context, q leaseQuestion) (leaseState, error) {
	ctx, cancel := s.withTimeout(ctx, s.requestTimeout())
	defer cancel()
	for {
		changed := s.node.LeaderChanges()
		leader := s.node.Status().Leader
		state, err := s.askMember(ctx, leader, q)
		if err == nil || errors.Is(err, api.ErrLeaseNotFound) {
			return state, err
		}
		timer := s.clock.NewTimer(leaderRetry)
		select {
		case <-changed:
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return leaseState{}, leaderTimeout(ctx, leader)
		}
		timer.Stop()
	}
}

// askMember asks whoever leads, as far as this member knows, once.
func (s *Server) askMember(ctx context.Context, leader api.MemberID, q leaseQuestion) (leaseState, error) {
	switch leader {
	case 0:
		if planted.RenewByAnybody && q.renew {
			if info, ok := s.Store().Lease(q.id); ok {
				return leaseState{ttl: info.TTL, granted: info.TTL}, nil
			}
		}
		return leaseState{}, api.ErrNotLeader
	case s.id:
		return s.lessor.ask(ctx, q)
	}
	return s.callLeader(ctx, leader, q)
}

func leaderTimeout(ctx context.Context, leader api.MemberID) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled) && !errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return api.ErrCanceled
	case leader == 0:
		return api.ErrNoLeader
	}
	return api.ErrTimeout
}

// Between members a question is its id and flags, an answer is a kind and what
// it brings; both are protobuf fields, so that later versions can add some.
const (
	callLease uint8 = 1 // kind of call, of raft.Node.Call

	fieldQuestionID    = 1
	fieldQuestionRenew = 2
	fieldQuestionKeys  = 3

	fieldAnswerKind    = 1
	fieldAnswerTTL     = 2
	fieldAnswerGranted = 3
	fieldAnswerKey     = 4

	answerOK       = 1
	answerNotFound = 2
	answerNotHere  = 3 // ask again: not the leader, or not sure of it
)

func (q leaseQuestion) encode() []byte {
	b := appendInt(nil, fieldQuestionID, int64(q.id))
	b = appendBool(b, fieldQuestionRenew, q.renew)
	return appendBool(b, fieldQuestionKeys, q.keys)
}

func decodeLeaseQuestion(b []byte) (q leaseQuestion, err error) {
	for len(b) > 0 {
		var f field
		if f, b, err = nextField(b); err != nil {
			return q, err
		}
		switch {
		case f.varint(fieldQuestionID):
			q.id = api.LeaseID(f.num)
		case f.varint(fieldQuestionRenew):
			q.renew = f.num != 0
		case f.varint(fieldQuestionKeys):
			q.keys = f.num != 0
		}
	}
	return q, nil
}

func (s *Server) callLeader(ctx context.Context, leader api.MemberID, q leaseQuestion) (leaseState, error) {
	b, err := s.node.Call(ctx, leader, callLease, q.encode())
	if err != nil {
		return leaseState{}, err
	}
	return decodeLeaseAnswer(b)
}

func decodeLeaseAnswer(b []byte) (leaseState, error) {
	var state leaseState
	var kind uint64
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return leaseState{}, err
		}
		b = rest
		switch {
		case f.varint(fieldAnswerKind):
			kind = f.num
		case f.varint(fieldAnswerTTL):
			state.ttl = int64(f.num)
		case f.varint(fieldAnswerGranted):
			state.granted = int64(f.num)
		case f.message(fieldAnswerKey):
			state.keys = append(state.keys, f.bytes)
		}
	}
	switch kind {
	case answerOK:
		return state, nil
	case answerNotFound:
		return leaseState{}, api.ErrLeaseNotFound
	}
	return leaseState{}, api.ErrNotLeader
}

// answerLease answers another member's question.
func (s *Server) answerLease(ctx context.Context, _ api.MemberID, payload []byte) ([]byte, error) {
	q, err := decodeLeaseQuestion(payload)
	if err != nil {
		return nil, err
	}
	state, err := s.lessor.ask(ctx, q)
	kind := uint64(answerOK)
	switch {
	case errors.Is(err, api.ErrLeaseNotFound):
		kind = answerNotFound
	case err != nil:
		kind = answerNotHere
	}
	b := appendUint(nil, fieldAnswerKind, kind)
	if err == nil {
		b = appendInt(b, fieldAnswerTTL, state.ttl)
		b = appendInt(b, fieldAnswerGranted, state.granted)
		for _, key := range state.keys {
			b = appendBytes(b, fieldAnswerKey, key)
		}
	}
	return b, nil
}

// leaseBatch is the body of commandLeaseExpire and commandLeaseCheckpoint: what
// the leader of one term says about leases. It is void in any other term.
type leaseBatch struct {
	term   api.Term
	leases []leaseLeft
}

type leaseLeft struct {
	id        api.LeaseID
	remaining int64
}

const (
	fieldBatchTerm      = 1
	fieldBatchLease     = 2
	fieldBatchRemaining = 2 // of a lease; its id is field 1
)

func (t leaseBatch) encode() []byte {
	b := appendUint(nil, fieldBatchTerm, uint64(t.term))
	for _, l := range t.leases {
		var mark int
		b, mark = openMessage(b, fieldBatchLease)
		b = appendInt(b, fieldLeaseID, int64(l.id))
		b = closeMessage(appendInt(b, fieldBatchRemaining, l.remaining), mark)
	}
	return b
}

func decodeLeaseBatch(b []byte) (leaseBatch, error) {
	var t leaseBatch
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return t, err
		}
		b = rest
		switch {
		case f.varint(fieldBatchTerm):
			t.term = api.Term(f.num)
		case f.message(fieldBatchLease):
			var l leaseLeft
			for inner := f.bytes; len(inner) > 0; {
				var g field
				if g, inner, err = nextField(inner); err != nil {
					return t, err
				}
				switch {
				case g.varint(fieldLeaseID):
					l.id = api.LeaseID(g.num)
				case g.varint(fieldBatchRemaining):
					l.remaining = int64(g.num)
				}
			}
			t.leases = append(t.leases, l)
		}
	}
	return t, nil
}
