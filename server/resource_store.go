package server

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/mvcc"
)

// resourceStore is the member as the resource layer sees it.
type resourceStore struct{ s *Server }

// Barrier implements resource.Store.
func (r resourceStore) Barrier(ctx context.Context) error { return r.s.node.ReadBarrier(ctx) }

// Read implements resource.Store.
func (r resourceStore) Read(rev api.Revision) (*mvcc.ReadTxn, error) { return r.s.Store().Read(rev) }

// Watch implements resource.Store.
func (r resourceStore) Watch() *mvcc.WatchStream { return r.s.Store().NewWatchStream() }

// Leads implements resource.Store.
func (r resourceStore) Leads() bool { return r.s.node.Status().Leader == r.s.id }

// Commit implements resource.Store.
func (r resourceStore) Commit(ctx context.Context, txn *pb.TxnRequest) (*pb.TxnResponse, error) {
	body, err := proto.Marshal(txn)
	if err != nil {
		return nil, err
	}
	var q txnRequest
	if err := q.decode(body); err != nil {
		return nil, err
	}
	if err := r.s.admitCost(ctx, txnCost(&q)); err != nil {
		return nil, err
	}
	var answer pb.TxnResponse
	return &answer, r.propose(ctx, commandTxn, body, &answer)
}

// Grant implements resource.Store.
func (r resourceStore) Grant(ctx context.Context, seconds int64) (api.LeaseID, error) {
	req := &pb.LeaseGrantRequest{ID: int64(r.s.ids.next() >> 1), TTL: max(seconds, r.s.minLeaseTTL())}
	body, err := proto.Marshal(req)
	if err != nil {
		return 0, err
	}
	var answer pb.LeaseGrantResponse
	err = r.propose(ctx, commandLeaseGrant, body, &answer)
	return api.LeaseID(req.ID), err
}

// rootUser is etcd's administrator, in whose name the layer writes: it has asked
// for rights to objects itself.
const rootUser = "root"

// propose replicates a command of the layer and reads its answer.
func (r resourceStore) propose(ctx context.Context, kind uint8, body []byte, answer proto.Message) error {
	if r.s.node.Status().Learner {
		return api.ErrNotSupportedForLearner
	}
	for round := 1; ; round++ {
		var who auth.Principal
		if state := r.s.auth.now.Load(); state.Enabled {
			who = auth.Principal{Name: rootUser, Revision: state.Revision}
		}
		if err := r.s.fits(body, who); err != nil {
			return err
		}
		result, err := r.s.node.Propose(ctx, kind, who.String(), body)
		stale := err == error(api.ErrAuthOldRevision) || err == error(api.ErrUserEmpty)
		if stale && round < staleRounds {
			continue
		}
		if err != nil {
			return proposalError(err)
		}
		encoded, ok := result.(*Encoded)
		if !ok {
			return fmt.Errorf("command of kind %d ended without an answer (%T)", kind, result)
		}
		flat := encoded.Buffers.Materialize()
		encoded.Buffers.Free()
		return proto.Unmarshal(flat, answer)
	}
}
