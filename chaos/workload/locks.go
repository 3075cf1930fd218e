package workload

import (
	"fmt"
	"math/rand/v2"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
)

const (
	locks     = 3 // that all fight for
	lockTTL   = 2 // seconds
	lockTurns = 8 // of a holder, before it gives up the lock
	lockNaps  = 300
)

// Locks takes a lease, with it a lock, and writes while it holds the lock, each
// write guarded by the lock's token. Now and then it sleeps beyond the lease, and
// writes all the same, as if nothing had happened: that must be refused.
type Locks struct {
	tagger
	id    int64  // of the lease; 0: it has none
	lock  string // name of the lock that is tried, or held
	token int64  // the revision that created the lock; 0: it is not held
	turns int
	naps  int
}

// NewLocks makes a client's part.
func NewLocks(client int, r *rand.Rand) *Locks {
	return &Locks{tagger: tagger{client: client, r: r}}
}

// Next takes the next step.
func (l *Locks) Next() (string, proto.Message) {
	switch {
	case l.naps > 0:
		l.naps--
		return "", nil
	case l.id == 0:
		return methodGrant, &pb.LeaseGrantRequest{ID: l.lease(), TTL: lockTTL}
	case l.token == 0:
		l.lock = fmt.Sprintf("lock/%d", l.r.IntN(locks))
		return methodTxn, &pb.TxnRequest{
			Compare: []*pb.Compare{createdAt(l.lock, 0)},
			Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: []byte(l.lock), Value: l.value(), Lease: l.id})},
			Failure: []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: []byte(l.lock)})},
		}
	}
	l.turns++
	switch {
	case l.turns > lockTurns:
		return l.giveUp()
	case l.r.IntN(3) == 0:
		return methodKeepAlive, &pb.LeaseKeepAliveRequest{ID: l.id}
	}
	if l.r.IntN(40) == 0 {
		l.naps = 1 + l.r.IntN(lockNaps)
	}
	return methodTxn, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(l.lock, l.token)},
		Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: []byte(oracle.FencePrefix + l.lock), Value: fmt.Appendf(nil, "%d %s", l.token, l.tag())})},
		Failure: []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: []byte(oracle.FencePrefix + l.lock)})},
	}
}

// giveUp deletes the lock, or revokes the lease, which does that too.
func (l *Locks) giveUp() (string, proto.Message) {
	if l.r.IntN(2) == 0 {
		return methodRevoke, &pb.LeaseRevokeRequest{ID: l.id}
	}
	return methodTxn, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(l.lock, l.token)},
		Success: []*pb.RequestOp{deleteOp(&pb.DeleteRangeRequest{Key: []byte(l.lock)})},
	}
}

// Learn follows what became of the step. After an unknown outcome, and when the
// lease is gone, it begins anew.
func (l *Locks) Learn(op *history.Op) {
	if op.Outcome != history.OK {
		l.forget()
		return
	}
	switch r := op.Response.(type) {
	case *pb.LeaseGrantResponse:
		l.id = r.ID
	case *pb.LeaseRevokeResponse:
		l.forget()
	case *pb.LeaseKeepAliveResponse:
		if r.TTL == 0 {
			l.forget()
		}
	case *pb.TxnResponse:
		q := op.Request.(*pb.TxnRequest)
		switch {
		case !r.Succeeded && l.token == 0: // somebody else has it
			l.naps = 1 + l.r.IntN(20)
		case !r.Succeeded, q.Success[0].GetRequestDeleteRange() != nil:
			l.token, l.turns = 0, 0
		case l.token == 0:
			l.token = r.Header.Revision
		}
	}
}

func (l *Locks) forget() { l.id, l.token, l.turns, l.naps = 0, 0, 0, 0 }
