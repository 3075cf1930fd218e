package server

import (
	"context"
	"errors"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
)

// The Lock and Election services are recipes over the other services of this
// member, the same that etcd's client library plays from outside, over the same
// keys: holders of either kind queue up with each other.
//
//	<name>/<lease in hex>     one key for each that waits, attached to its lease
//
// Who has the key with the lowest create revision holds the lock, or leads. All
// others wait for the youngest of the keys before their own to be deleted, and
// look again. A create revision never returns and rises from holder to holder:
// it is the fencing token.
//
// Every step is taken with the caller's context, so it is permitted to do what
// the caller may do, and no more.

// sessionTTL is what a lease lives, in seconds, that a caller did not bring.
const sessionTTL = 60

// session is what attaches a recipe's key to somebody's life.
type session struct {
	lease int64
	own   bool // granted here: nobody else knows it
}

// openSession takes the caller's lease, or grants one.
func (s *Server) openSession(ctx context.Context, lease int64) (session, error) {
	if lease != 0 {
		return session{lease: lease}, nil
	}
	r := &grantRequest{}
	r.TTL = sessionTTL
	answer, err := s.LeaseGrant(ctx, r)
	if err != nil {
		return session{}, err
	}
	var granted pb.LeaseGrantResponse
	if err := readAnswer(answer, &granted); err != nil {
		return session{}, err
	}
	return session{lease: granted.ID, own: true}, nil
}

// key is the session's key below a name.
func (e session) key(prefix string) string {
	// As Go prints a signed number in hex, which etcd's library does.
	return prefix + strconv.FormatInt(e.lease, 16)
}

// abandon removes what a caller leaves behind that will not come back: its
// lease with all keys, if nobody else knows it; otherwise the key, by undo. The
// caller's context is over; what may be done with it still holds.
func (s *Server) abandon(ctx context.Context, e session, undo func(ctx context.Context) error) {
	ctx, cancel := s.withTimeout(context.WithoutCancel(ctx), s.requestTimeout())
	defer cancel()
	var err error
	if e.own {
		var body []byte
		if body, err = proto.Marshal(&pb.LeaseRevokeRequest{ID: e.lease}); err == nil {
			_, err = s.LeaseRevoke(ctx, &revokeRequest{body: body})
		}
	} else {
		err = undo(ctx)
	}
	if err != nil {
		// The lease's end will do it.
		s.log.Warn("cannot remove the key of a caller that left", "lease", e.lease, "error", err)
	}
}

// until derives a context that also ends when the member stops.
func (s *Server) until(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	remove := s.led.add(&openStream{cut: cancel})
	return ctx, func() {
		remove()
		cancel(nil)
	}
}

// waitForTurn waits until no key of the prefix is left that was created at max
// or before.
func (s *Server) waitForTurn(ctx context.Context, prefix string, max int64) error {
	if max <= 0 {
		return nil // 0 would mean no bound
	}
	for {
		r := firstOf(prefix, pb.RangeRequest_DESCEND)
		r.maxCreate = max
		resp, err := s.get1(ctx, r)
		if err != nil {
			return err
		}
		if len(resp.Kvs) == 0 {
			return nil
		}
		if err := s.waitForDelete(ctx, resp.Kvs[0].Key, api.Revision(resp.Header.Revision)); err != nil {
			return err
		}
	}
}

// waitForDelete waits until key is deleted at from or later.
func (s *Server) waitForDelete(ctx context.Context, key []byte, from api.Revision) error {
	return s.follow(ctx, mvcc.WatchRequest{Key: key, Start: from, NoPut: true}, func(*mvcc.Event, api.Revision) (bool, error) {
		return true, nil
	})
}

// follow watches on behalf of a caller until fn says that it has seen enough.
func (s *Server) follow(ctx context.Context, q mvcc.WatchRequest, fn func(e *mvcc.Event, rev api.Revision) (done bool, err error)) error {
	access := watchAccess{s}
	if err := access.WatchPermitted(ctx, q.Key, q.End); err != nil {
		return err
	}
	watches := access.NewWatchStream()
	defer watches.Close()
	if _, err := watches.Watch(q); err != nil {
		return err
	}
	for {
		d, err := watches.Next(ctx)
		if err != nil {
			return err
		}
		switch d.Kind {
		case mvcc.DeliverCompacted:
			return api.ErrCompacted
		case mvcc.DeliverEvents:
			for _, e := range d.Batch.Events {
				if done, err := fn(e, d.Revision); done || err != nil {
					return err
				}
			}
		}
	}
}

// firstOf reads the first key of a prefix by create revision: the oldest when
// the order is ascending.
func firstOf(prefix string, order pb.RangeRequest_SortOrder) *rangeRequest {
	return &rangeRequest{
		key: []byte(prefix), end: prefixEnd(prefix), limit: 1,
		sortOrder: int32(order), sortTarget: int32(pb.RangeRequest_CREATE),
	}
}

// prefixEnd is the end of the range of all keys with a prefix. The prefix of a
// recipe ends with a slash, which has a successor.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++
	return end
}

// get1 reads as a client does.
func (s *Server) get1(ctx context.Context, r *rangeRequest) (*pb.RangeResponse, error) {
	answer, err := s.Range(ctx, r)
	if err != nil {
		return nil, err
	}
	var resp pb.RangeResponse
	return &resp, readAnswer(answer, &resp)
}

// transact runs a transaction as a client does.
func (s *Server) transact(ctx context.Context, t *pb.TxnRequest) (*pb.TxnResponse, error) {
	body, err := proto.Marshal(t)
	if err != nil {
		return nil, err
	}
	r := &txnRequest{}
	if err := r.decode(body); err != nil {
		return nil, err
	}
	answer, err := s.Txn(ctx, r)
	if err != nil {
		return nil, err
	}
	var resp pb.TxnResponse
	return &resp, readAnswer(answer, &resp)
}

// remove deletes one key as a client does.
func (s *Server) remove(ctx context.Context, key string) (*pb.ResponseHeader, error) {
	body, err := proto.Marshal(&pb.DeleteRangeRequest{Key: []byte(key)})
	if err != nil {
		return nil, err
	}
	r := &deleteRequest{}
	if err := r.decode(body); err != nil {
		return nil, err
	}
	answer, err := s.DeleteRange(ctx, r)
	if err != nil {
		return nil, err
	}
	var resp pb.DeleteRangeResponse
	if err := readAnswer(answer, &resp); err != nil {
		return nil, err
	}
	return resp.Header, nil
}

// readAnswer decodes an answer that was meant for the wire.
func readAnswer(answer *Encoded, into proto.Message) error {
	b := answer.Buffers.Materialize()
	answer.Buffers.Free()
	return proto.Unmarshal(b, into)
}

// createdAt compares a key's create revision; 0 means that the key is absent.
func createdAt(key string, rev int64) *pb.Compare {
	return &pb.Compare{
		Key: []byte(key), Result: pb.Compare_EQUAL, Target: pb.Compare_CREATE,
		TargetUnion: &pb.Compare_CreateRevision{CreateRevision: rev},
	}
}

func opPut(key string, value []byte, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value, Lease: lease}}}
}

func opGet(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func opDelete(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}

// recipeError gives a recipe's failure the code that etcd gives it: there, the
// client library stands between, and its errors reach the wire by their texts.
func recipeError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var refusal *api.Error
	if cause := context.Cause(ctx); errors.As(cause, &refusal) {
		return refusal // the member stops
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	if errors.As(err, &refusal) {
		return status.Error(codes.Unknown, refusal.Text)
	}
	return rpcError(err)
}
