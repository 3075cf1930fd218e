package server

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/version"

	"github.com/keelson-io/keelson/api"
)

// The versions that this member reports. Clients decide by them what they may
// use, so they name the level of etcd's API that is served, not our release.
// kube-apiserver needs a semantic version of at least 3.4.31 from every member,
// else it goes without consistent reads from its cache.
const (
	clusterVersion = "3.7.0" // what all members of a cluster can do
	storageVersion = "3.7.0" // the schema of the store's buckets
)

// apiVersion is the release of etcd whose messages we are built with.
var apiVersion = version.Version

// maintenanceService answers etcdserverpb.Maintenance.
type maintenanceService struct {
	pb.UnimplementedMaintenanceServer
	view *view
}

// Status describes this member. It reads no log and waits for nobody.
func (s *maintenanceService) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	v := s.view
	// The store first: raft's applied index is then never behind it.
	rev, stats := v.store().Revision(), v.store().Stats()
	now := v.node.Status()
	resp := &pb.StatusResponse{
		Header:           v.header(rev),
		Version:          apiVersion,
		Leader:           uint64(now.Leader),
		RaftIndex:        uint64(now.Committed),
		RaftAppliedIndex: uint64(now.Applied),
		RaftTerm:         uint64(now.Term),
		DbSize:           stats.Engine.Allocated,
		DbSizeInUse:      stats.Engine.InUse,
		DbSizeQuota:      v.quota(),
		IsLearner:        now.Learner,
		StorageVersion:   v.versions().storage,
		DowngradeInfo:    v.versions().info(),
	}
	if now.Leader == 0 {
		resp.Errors = append(resp.Errors, api.ErrNoLeader.Error())
	}
	for _, m := range v.alarms() {
		resp.Errors = append(resp.Errors, m.String())
	}
	return resp, nil
}

// quota is the size the store may reach.
func (v *view) quota() int64 {
	if v.cfg.QuotaBytes == 0 {
		return DefaultQuotaBytes
	}
	return v.cfg.QuotaBytes
}

// versions are those of the cluster, as far as this member knows.
func (v *view) versions() *versionSet {
	if v.upkeep == nil {
		return initialVersions()
	}
	return v.upkeep.versions.current.Load()
}

func (s *versionSet) info() *pb.DowngradeInfo {
	return &pb.DowngradeInfo{Enabled: s.downgrade.Enabled, TargetVersion: s.downgrade.Target}
}

// alarms are all that are raised, by type and member.
func (v *view) alarms() []*pb.AlarmMember {
	if v.upkeep == nil {
		return nil
	}
	return v.upkeep.alarms.current.Load().list
}

// divergent is the first revision in which this member, leading, found others to
// have applied something else; 0 when it found none.
func (v *view) divergent() int64 {
	if v.upkeep == nil {
		return 0
	}
	return v.upkeep.checks.divergent.Load()
}
