package server

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/raft"
)

// consensus is the part of raft.Node that health, metrics and the services of
// the cluster ask.
type consensus interface {
	Status() raft.Status
	ReadBarrier(ctx context.Context) error
	LeaderChanges() <-chan struct{}
}

// storeState is the part of mvcc.Store that they ask.
type storeState interface {
	Revision() api.Revision
	CompactRevision() api.Revision
	Stats() mvcc.Stats
	WatchStats() mvcc.HubStats
}

// view is what everything beside KV, Watch and Lease sees of a member: Cluster,
// Maintenance, the HTTP endpoints and the metrics. Its fields do not change.
type view struct {
	cfg     *Config
	id      api.MemberID
	cluster api.ClusterID
	node    consensus
	store   func() storeState // a snapshot that is installed brings another store
	members *members
	upkeep  *upkeep
	peers   peerCounts // nil: a network that counts nothing
}

// header is the header of an answer that belongs to no revision of its own.
func (v *view) header(rev api.Revision) *pb.ResponseHeader {
	return &pb.ResponseHeader{
		ClusterId: uint64(v.cluster),
		MemberId:  uint64(v.id),
		Revision:  int64(rev),
		RaftTerm:  uint64(v.node.Status().Term),
	}
}

// clusterService answers etcdserverpb.Cluster. membership.go has its changes.
type clusterService struct {
	pb.UnsafeClusterServer
	view   *view
	change *reconfiguration
}

// MemberList lists the members, by id. A linearizable list waits until this
// member has applied everything that was acknowledged before.
func (s *clusterService) MemberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if r.GetLinearizable() {
		if err := s.view.node.ReadBarrier(ctx); err != nil {
			return nil, err
		}
	}
	list := memberMessages(s.view.members.list())
	return &pb.MemberListResponse{Header: s.view.header(0), Members: list}, nil // etcd's header has no revision either
}

func memberMessages(list []Member) []*pb.Member {
	out := make([]*pb.Member, 0, len(list))
	for _, m := range list {
		out = append(out, &pb.Member{
			ID:         uint64(m.ID),
			Name:       m.Name,
			PeerURLs:   m.PeerURLs,
			ClientURLs: m.ClientURLs,
			IsLearner:  m.Learner,
		})
	}
	return out
}
