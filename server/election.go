package server

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
)

// electionService is v3electionpb.Election; see lockService for its messages.
var electionService = grpc.ServiceDesc{
	ServiceName: "v3electionpb.Election",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		unary("v3electionpb.Election", "Campaign", (*Server).Campaign),
		unary("v3electionpb.Election", "Proclaim", (*Server).Proclaim),
		unary("v3electionpb.Election", "Leader", (*Server).Leader),
		unary("v3electionpb.Election", "Resign", (*Server).Resign),
	},
	Streams: []grpc.StreamDesc{{
		StreamName:    "Observe",
		ServerStreams: true,
		Handler: func(srv any, stream grpc.ServerStream) error {
			r := new(leaderRequest)
			if err := stream.RecvMsg(r); err != nil {
				return err
			}
			o := observer{server: srv.(*Server), stream: stream, prefix: string(r.name) + "/"}
			return recipeError(stream.Context(), o.run(stream.Context()))
		},
	}},
	Metadata: electionFile,
}

// Field numbers of the election messages.
const (
	fieldElectionName = 1 // of CampaignRequest and LeaderRequest
	fieldCampaignID   = 2
	fieldCampaignWith = 3

	fieldHeldBy       = 1 // LeaderKey in ProclaimRequest and ResignRequest
	fieldProclaimWith = 2

	fieldElected  = 2 // LeaderKey in CampaignResponse
	fieldLeaderKV = 2 // KeyValue in LeaderResponse

	fieldKeyName  = 1 // of LeaderKey
	fieldKeyKey   = 2
	fieldKeyRev   = 3
	fieldKeyLease = 4
)

// The texts are etcd's.
var (
	errNotLeader        = errors.New("election: not leader")
	errNobodyLeads      = errors.New("election: no leader")
	errMissingLeaderKey = errors.New(`"leader" field must be provided`)
)

// leaderKey is v3electionpb.LeaderKey: proof of an election won. Its rev is the
// create revision of its key, the fencing token.
type leaderKey struct {
	name, key  []byte
	rev, lease int64
}

func (k *leaderKey) merge(body []byte) error {
	return eachField(body, func(f field) {
		switch {
		case f.message(fieldKeyName):
			k.name = f.bytes
		case f.message(fieldKeyKey):
			k.key = f.bytes
		case f.varint(fieldKeyRev):
			k.rev = int64(f.num)
		case f.varint(fieldKeyLease):
			k.lease = int64(f.num)
		}
	})
}

func (k *leaderKey) append(b []byte) []byte {
	if len(k.name) > 0 {
		b = appendBytes(b, fieldKeyName, k.name)
	}
	b = appendBytes(b, fieldKeyKey, k.key)
	b = appendInt(b, fieldKeyRev, k.rev)
	return appendInt(b, fieldKeyLease, k.lease)
}

// campaignRequest is v3electionpb.CampaignRequest.
type campaignRequest struct {
	name, value []byte
	lease       int64
}

func (r *campaignRequest) decode(body []byte) error {
	return eachField(body, func(f field) {
		switch {
		case f.message(fieldElectionName):
			r.name = f.bytes
		case f.varint(fieldCampaignID):
			r.lease = int64(f.num)
		case f.message(fieldCampaignWith):
			r.value = f.bytes
		}
	})
}

// leaderRequest is v3electionpb.LeaderRequest.
type leaderRequest struct{ name []byte }

func (r *leaderRequest) decode(body []byte) error {
	return eachField(body, func(f field) {
		if f.message(fieldElectionName) {
			r.name = f.bytes
		}
	})
}

// proclaimRequest is v3electionpb.ProclaimRequest, and ResignRequest, which has
// no value.
type proclaimRequest struct {
	leader *leaderKey
	value  []byte
}

func (r *proclaimRequest) decode(body []byte) (err error) {
	malformed := eachField(body, func(f field) {
		switch {
		case f.message(fieldHeldBy):
			if r.leader == nil {
				r.leader = &leaderKey{}
			}
			err = errors.Join(err, r.leader.merge(f.bytes))
		case f.message(fieldProclaimWith):
			r.value = f.bytes
		}
	})
	return errors.Join(err, malformed)
}

// Campaign answers when the caller's lease leads.
func (s *Server) Campaign(ctx context.Context, r *campaignRequest) (*Encoded, error) {
	ctx, cancel := s.until(ctx)
	defer cancel()
	answer, err := s.campaign(ctx, r)
	return answer, recipeError(ctx, err)
}

func (s *Server) campaign(ctx context.Context, r *campaignRequest) (*Encoded, error) {
	candidate, err := s.openSession(ctx, r.lease)
	if err != nil {
		return nil, err
	}
	prefix := string(r.name) + "/"
	key := candidate.key(prefix)
	k := &leaderKey{name: r.name, key: []byte(key), lease: candidate.lease}
	resign := func(ctx context.Context) error {
		_, err := s.resign(ctx, k)
		return err
	}
	header, err := s.stand(ctx, k, r.value)
	if err == nil {
		err = s.waitForTurn(ctx, prefix, k.rev-1)
	}
	if err == nil && candidate.own {
		err = ctx.Err() // nobody will learn of the lease
	}
	if err != nil {
		// As in etcd, a candidate whose wait failed for another reason keeps its
		// place: the caller may campaign again with the same lease.
		if candidate.own || ctx.Err() != nil && k.rev > 0 {
			s.abandon(ctx, candidate, resign)
		}
		return nil, err
	}
	b, err := appendMessage(nil, fieldHeader, header)
	if err != nil {
		return nil, err
	}
	b, mark := openMessage(b, fieldElected)
	return encodeBytes(closeMessage(k.append(b), mark)), nil
}

// stand makes the caller a candidate, or finds that it is one, and gives its
// key the value. It fills in k.rev.
func (s *Server) stand(ctx context.Context, k *leaderKey, value []byte) (*pb.ResponseHeader, error) {
	resp, err := s.transact(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(string(k.key), 0)},
		Success: []*pb.RequestOp{opPut(string(k.key), value, k.lease)},
		Failure: []*pb.RequestOp{opGet(&pb.RangeRequest{Key: k.key})},
	})
	if err != nil {
		return nil, err
	}
	k.rev = resp.Header.Revision
	if resp.Succeeded {
		return resp.Header, nil
	}
	kv := resp.Responses[0].GetResponseRange().Kvs[0]
	k.rev = kv.CreateRevision
	if string(kv.Value) == string(value) {
		return resp.Header, nil
	}
	if _, err := s.proclaim(ctx, k, value); err != nil {
		if _, undone := s.resign(ctx, k); undone != nil {
			s.log.Debug("cannot withdraw a candidate", "error", undone)
		}
		return nil, err
	}
	return resp.Header, nil
}

// Proclaim changes the leader's value.
func (s *Server) Proclaim(ctx context.Context, r *proclaimRequest) (*Encoded, error) {
	if r.leader == nil {
		return nil, errMissingLeaderKey
	}
	if r.leader.lease == 0 { // as in etcd, the key moves to a lease of its own
		owner, err := s.openSession(ctx, 0)
		if err != nil {
			return nil, recipeError(ctx, err)
		}
		r.leader.lease = owner.lease
	}
	return electionAnswer(ctx, func() (*pb.ResponseHeader, error) { return s.proclaim(ctx, r.leader, r.value) })
}

func (s *Server) proclaim(ctx context.Context, k *leaderKey, value []byte) (*pb.ResponseHeader, error) {
	resp, err := s.transact(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(string(k.key), k.rev)},
		Success: []*pb.RequestOp{opPut(string(k.key), value, k.lease)},
	})
	if err != nil {
		return nil, err
	}
	if !resp.Succeeded {
		return nil, errNotLeader
	}
	return resp.Header, nil
}

// Resign ends a leadership, if it still lasts.
func (s *Server) Resign(ctx context.Context, r *proclaimRequest) (*Encoded, error) {
	if r.leader == nil {
		return nil, errMissingLeaderKey
	}
	return electionAnswer(ctx, func() (*pb.ResponseHeader, error) { return s.resign(ctx, r.leader) })
}

func (s *Server) resign(ctx context.Context, k *leaderKey) (*pb.ResponseHeader, error) {
	resp, err := s.transact(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(string(k.key), k.rev)},
		Success: []*pb.RequestOp{opDelete(string(k.key))},
	})
	if err != nil {
		return nil, err
	}
	return resp.Header, nil
}

// electionAnswer is an answer of a header alone.
func electionAnswer(ctx context.Context, do func() (*pb.ResponseHeader, error)) (*Encoded, error) {
	header, err := do()
	if err != nil {
		return nil, recipeError(ctx, err)
	}
	b, err := appendMessage(nil, fieldHeader, header)
	return encodeBytes(b), err
}

// Leader tells who leads now.
func (s *Server) Leader(ctx context.Context, r *leaderRequest) (*Encoded, error) {
	resp, err := s.get1(ctx, firstOf(string(r.name)+"/", pb.RangeRequest_ASCEND))
	if err == nil && len(resp.Kvs) == 0 {
		err = errNobodyLeads
	}
	if err != nil {
		return nil, recipeError(ctx, err)
	}
	b, err := appendMessage(nil, fieldHeader, resp.Header)
	if err != nil {
		return nil, err
	}
	b, err = appendMessage(b, fieldLeaderKV, resp.Kvs[0])
	return encodeBytes(b), err
}

// observer sends every leader that it sees, and each of the leader's values. It
// may miss leaders that came and went; it never misses the last one.
type observer struct {
	server *Server
	stream grpc.ServerStream
	prefix string
}

func (o *observer) run(ctx context.Context) error {
	s := o.server
	for {
		resp, err := s.get1(ctx, firstOf(o.prefix, pb.RangeRequest_ASCEND))
		if err != nil {
			return err
		}
		var key []byte
		seen := api.Revision(resp.Header.Revision)
		if len(resp.Kvs) == 0 {
			key, seen, err = o.first(ctx, seen)
		} else {
			key = resp.Kvs[0].Key
			var kv []byte
			if kv, err = appendMessage(nil, fieldLeaderKV, resp.Kvs[0]); err == nil {
				err = o.send(seen, kv)
			}
		}
		if err == nil {
			err = o.reign(ctx, key, seen+1)
		}
		// History between a read and its watch may be compacted: look again.
		if err != nil && !errors.Is(err, api.ErrCompacted) {
			return err
		}
	}
}

// first waits for the first candidate and sends it.
func (o *observer) first(ctx context.Context, from api.Revision) (key []byte, at api.Revision, err error) {
	q := mvcc.WatchRequest{Key: []byte(o.prefix), End: prefixEnd(o.prefix), Start: from, NoDelete: true}
	err = o.server.follow(ctx, q, func(e *mvcc.Event, _ api.Revision) (bool, error) {
		key, at = e.Key, e.Rev
		return true, o.send(at, appendBytes(nil, fieldLeaderKV, e.KV))
	})
	return key, at, err
}

// reign sends a leader's values until its key is deleted.
func (o *observer) reign(ctx context.Context, key []byte, from api.Revision) error {
	return o.server.follow(ctx, mvcc.WatchRequest{Key: key, Start: from}, func(e *mvcc.Event, rev api.Revision) (bool, error) {
		if e.Delete {
			return true, nil
		}
		return false, o.send(rev, appendBytes(nil, fieldLeaderKV, e.KV))
	})
}

// send sends a LeaderResponse; kv is its second field, encoded.
func (o *observer) send(rev api.Revision, kv []byte) error {
	b := o.server.appendFullHeader(make([]byte, 0, headerBytes+len(kv)), rev, o.server.node.Status().Term)
	return o.stream.SendMsg(encodeBytes(append(b, kv...)))
}
