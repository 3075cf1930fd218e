package server

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// lockService is v3lockpb.Lock. Its messages are decoded by hand: their
// generated types live in etcd's server module, and a second registration under
// the same names would end programs that link both.
var lockService = grpc.ServiceDesc{
	ServiceName: "v3lockpb.Lock",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		unary("v3lockpb.Lock", "Lock", (*Server).Lock),
		unary("v3lockpb.Lock", "Unlock", (*Server).Unlock),
	},
	Metadata: lockFile,
}

// Field numbers of the lock messages.
const (
	fieldLockName  = 1
	fieldLockLease = 2

	fieldLockedKey = 2
	// fieldLockedToken is ours: the fencing token, which etcd's clients skip.
	fieldLockedToken = 100

	fieldUnlockKey = 1
)

// errSessionExpired is etcd's: the lease ended while its owner waited.
var errSessionExpired = errors.New("mutex: session is expired")

// lockRequest is v3lockpb.LockRequest.
type lockRequest struct {
	name  []byte
	lease int64
}

func (r *lockRequest) decode(body []byte) error {
	return eachField(body, func(f field) {
		switch {
		case f.message(fieldLockName):
			r.name = f.bytes
		case f.varint(fieldLockLease):
			r.lease = int64(f.num)
		}
	})
}

// unlockRequest is v3lockpb.UnlockRequest.
type unlockRequest struct{ key []byte }

func (r *unlockRequest) decode(body []byte) error {
	return eachField(body, func(f field) {
		if f.message(fieldUnlockKey) {
			r.key = f.bytes
		}
	})
}

// eachField calls fn for every field of a message.
func eachField(body []byte, fn func(field)) error {
	for len(body) > 0 {
		f, rest, err := nextField(body)
		if err != nil {
			return err
		}
		fn(f)
		body = rest
	}
	return nil
}

// Lock answers when the caller's lease holds the lock. A caller that leaves
// before gives up its place in the queue.
func (s *Server) Lock(ctx context.Context, r *lockRequest) (*Encoded, error) {
	ctx, cancel := s.until(ctx)
	defer cancel()
	answer, err := s.lock(ctx, r)
	return answer, recipeError(ctx, err)
}

func (s *Server) lock(ctx context.Context, r *lockRequest) (*Encoded, error) {
	owner, err := s.openSession(ctx, r.lease)
	if err != nil {
		return nil, err
	}
	prefix := string(r.name) + "/"
	key := owner.key(prefix)
	header, created, held, err := s.enqueue(ctx, prefix, key, owner)
	undo := func(ctx context.Context) error {
		_, err := s.remove(ctx, key)
		return err
	}
	if err != nil {
		if owner.own {
			s.abandon(ctx, owner, undo) // the key may be there or not
		}
		return nil, err
	}
	if !held {
		if header, err = s.waitForLock(ctx, prefix, key, created); err != nil {
			if !errors.Is(err, errSessionExpired) {
				s.abandon(ctx, owner, undo)
			}
			return nil, err
		}
	}
	if owner.own && ctx.Err() != nil { // nobody will learn of the lease
		s.abandon(ctx, owner, undo)
		return nil, ctx.Err()
	}
	b, err := appendMessage(nil, fieldHeader, header)
	if err != nil {
		return nil, err
	}
	b = appendBytes(b, fieldLockedKey, []byte(key))
	return encodeBytes(appendInt(b, fieldLockedToken, created)), nil
}

// enqueue puts the owner's key behind those that are there, or finds it there,
// and tells whether it is the first.
func (s *Server) enqueue(ctx context.Context, prefix, key string, owner session) (_ *pb.ResponseHeader, created int64, held bool, err error) {
	first := opGet(&pb.RangeRequest{
		Key: []byte(prefix), RangeEnd: prefixEnd(prefix), Limit: 1,
		SortOrder: pb.RangeRequest_ASCEND, SortTarget: pb.RangeRequest_CREATE,
	})
	resp, err := s.transact(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(key, 0)},
		Success: []*pb.RequestOp{opPut(key, nil, owner.lease), first},
		Failure: []*pb.RequestOp{opGet(&pb.RangeRequest{Key: []byte(key)}), first},
	})
	if err != nil {
		return nil, 0, false, err
	}
	created = resp.Header.Revision
	if !resp.Succeeded {
		created = resp.Responses[0].GetResponseRange().Kvs[0].CreateRevision
	}
	holder := resp.Responses[1].GetResponseRange().Kvs
	return resp.Header, created, len(holder) == 0 || holder[0].CreateRevision == created, nil
}

// waitForLock waits for all keys before the caller's to go, and then looks
// whether the caller's is still there: its lease may have ended meanwhile.
func (s *Server) waitForLock(ctx context.Context, prefix, key string, created int64) (*pb.ResponseHeader, error) {
	if err := s.waitForTurn(ctx, prefix, created-1); err != nil {
		return nil, err
	}
	resp, err := s.get1(ctx, &rangeRequest{key: []byte(key)})
	if err != nil {
		return nil, err
	}
	// A key of another creation is somebody's who took the lease up again: the
	// place in the queue is lost, and with it the token.
	if len(resp.Kvs) == 0 || resp.Kvs[0].CreateRevision != created {
		return nil, errSessionExpired
	}
	return resp.Header, nil
}

// Unlock deletes the key that Lock returned.
func (s *Server) Unlock(ctx context.Context, r *unlockRequest) (*Encoded, error) {
	header, err := s.unlock(ctx, r)
	if err != nil {
		return nil, recipeError(ctx, err)
	}
	b, err := appendMessage(nil, fieldHeader, header)
	return encodeBytes(b), err
}

func (s *Server) unlock(ctx context.Context, r *unlockRequest) (*pb.ResponseHeader, error) {
	return s.remove(ctx, string(r.key))
}

// appendMessage appends a nested message.
func appendMessage(b []byte, number protowire.Number, m proto.Message) ([]byte, error) {
	inner, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return appendBytes(b, number, inner), nil
}
