package resource

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
)

// Store is what the layer needs of the member that it runs in. All methods may
// be called from any goroutine. The layer is trusted: nobody's rights to keys are
// asked, it asks for rights to objects itself.
type Store interface {
	// Barrier returns once this member has published everything that was
	// acknowledged anywhere before the call.
	Barrier(ctx context.Context) error
	// Read opens the published state at a revision, 0: the latest. It must be
	// released. mvcc.ErrCompacted and mvcc.ErrFutureRevision are wrapped.
	Read(rev api.Revision) (*mvcc.ReadTxn, error)
	// Watch opens a stream of changes. It must be closed.
	Watch() *mvcc.WatchStream
	// Commit replicates a transaction. An error leaves the outcome unknown,
	// unless it is an *api.Error that refuses the request.
	Commit(ctx context.Context, txn *pb.TxnRequest) (*pb.TxnResponse, error)
	// Grant makes a lease; keys attached to it go when it ends.
	Grant(ctx context.Context, seconds int64) (api.LeaseID, error)
	// Leads reports whether this member leads the cluster, as far as it knows.
	Leads() bool
}
