package server

import (
	"context"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/api/keelsonpb"
	"github.com/keelson-io/keelson/auth"
)

// need is what a caller needs while authentication is on.
type need uint8

const (
	needNothing need = iota + 1
	needUser         // to be somebody
	needRoot         // the role root
	needAlarm        // to be somebody for the list, the role root for a change
	// The next three are asked by the handler, which knows the request.
	needKeys  // rights to the keys that the request reads and writes, see accessor
	needLease // to be somebody, and rights to the keys that are attached
	needSelf  // to be the user asked about, or to have the role asked about, or the role root
)

// rpcNeeds is the whole truth about who may call what. An RPC that is not here
// is refused to everybody; a test holds the table against the protocol.
var rpcNeeds = map[string]need{
	"/etcdserverpb.KV/Range":       needKeys,
	"/etcdserverpb.KV/RangeStream": needKeys,
	"/etcdserverpb.KV/Put":         needKeys,
	"/etcdserverpb.KV/DeleteRange": needKeys,
	"/etcdserverpb.KV/Txn":         needKeys,
	"/etcdserverpb.KV/Compact":     needRoot,

	"/etcdserverpb.Watch/Watch": needKeys,

	"/etcdserverpb.Lease/LeaseGrant":      needUser,
	"/etcdserverpb.Lease/LeaseRevoke":     needLease,
	"/etcdserverpb.Lease/LeaseKeepAlive":  needLease,
	"/etcdserverpb.Lease/LeaseTimeToLive": needLease,
	"/etcdserverpb.Lease/LeaseLeases":     needLease,

	"/etcdserverpb.Cluster/MemberAdd":     needRoot,
	"/etcdserverpb.Cluster/MemberRemove":  needRoot,
	"/etcdserverpb.Cluster/MemberUpdate":  needRoot,
	"/etcdserverpb.Cluster/MemberPromote": needRoot,
	"/etcdserverpb.Cluster/MemberList":    needUser,

	"/etcdserverpb.Maintenance/Alarm":      needAlarm,
	"/etcdserverpb.Maintenance/Status":     needUser,
	"/etcdserverpb.Maintenance/Defragment": needRoot,
	"/etcdserverpb.Maintenance/Hash":       needRoot,
	"/etcdserverpb.Maintenance/HashKV":     needRoot,
	"/etcdserverpb.Maintenance/Snapshot":   needRoot,
	"/etcdserverpb.Maintenance/MoveLeader": needRoot,
	"/etcdserverpb.Maintenance/Downgrade":  needRoot,

	"/etcdserverpb.Auth/Authenticate":         needNothing,
	"/etcdserverpb.Auth/AuthStatus":           needNothing,
	"/etcdserverpb.Auth/AuthEnable":           needRoot,
	"/etcdserverpb.Auth/AuthDisable":          needRoot,
	"/etcdserverpb.Auth/UserAdd":              needRoot,
	"/etcdserverpb.Auth/UserGet":              needSelf,
	"/etcdserverpb.Auth/UserList":             needRoot,
	"/etcdserverpb.Auth/UserDelete":           needRoot,
	"/etcdserverpb.Auth/UserChangePassword":   needRoot,
	"/etcdserverpb.Auth/UserGrantRole":        needRoot,
	"/etcdserverpb.Auth/UserRevokeRole":       needRoot,
	"/etcdserverpb.Auth/RoleAdd":              needRoot,
	"/etcdserverpb.Auth/RoleGet":              needSelf,
	"/etcdserverpb.Auth/RoleList":             needRoot,
	"/etcdserverpb.Auth/RoleDelete":           needRoot,
	"/etcdserverpb.Auth/RoleGrantPermission":  needRoot,
	"/etcdserverpb.Auth/RoleRevokePermission": needRoot,

	// These are made of the services above, which ask for the rights to keys.
	"/v3lockpb.Lock/Lock":             needKeys,
	"/v3lockpb.Lock/Unlock":           needKeys,
	"/v3electionpb.Election/Campaign": needKeys,
	"/v3electionpb.Election/Proclaim": needKeys,
	"/v3electionpb.Election/Leader":   needKeys,
	"/v3electionpb.Election/Observe":  needKeys,
	"/v3electionpb.Election/Resign":   needKeys,

	keelsonpb.PipelineCalls: needKeys, // asked for each call, which passes all that a call by itself does

	"/grpc.health.v1.Health/Check": needNothing,
	"/grpc.health.v1.Health/Watch": needNothing,
	"/grpc.health.v1.Health/List":  needNothing,

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      needUser,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": needUser,
}

// admitRPC refuses an RPC whose caller lacks what the table says. What depends on
// keys is left to the handler. A member that a majority has named as different
// does not show its keys and leases to anybody.
func (s *Server) admitRPC(ctx context.Context, method string, req any) error {
	if s.upkeep.alarms.current.Load().differs(s.id) && (rpcNeeds[method] == needKeys || strings.HasPrefix(method, "/etcdserverpb.Lease/")) {
		return api.ErrCorrupt
	}
	if !s.auth.now.Load().Enabled {
		return nil
	}
	n := rpcNeeds[method]
	if n == needAlarm {
		n = needRoot
		if r, ok := req.(*pb.AlarmRequest); ok && r.GetAction() == pb.AlarmRequest_GET {
			n = needUser
		}
	}
	switch n {
	case needNothing, needKeys, needLease, needSelf:
		return nil
	case needUser:
		_, err := s.permit(ctx, (*auth.State).MustBeKnown)
		return err
	case needRoot:
		_, err := s.permit(ctx, (*auth.State).MayAdminister)
		return err
	}
	return api.ErrPermissionDenied
}

// byMember marks commands that members propose by themselves. What a client had
// to be permitted for them was asked at admission.
const byMember need = 100

// commandNeeds says what is asked when a command is applied. The answer is the
// same on all members: it depends on the log alone.
var commandNeeds = map[uint8]need{
	commandPut:             needKeys,
	commandDelete:          needKeys,
	commandTxn:             needKeys,
	commandCompact:         byMember, // also proposed by automatic compaction
	commandLeaseGrant:      needUser,
	commandLeaseRevoke:     needLease,
	commandLeaseExpire:     byMember,
	commandLeaseCheckpoint: byMember,
	commandAttributes:      byMember,
	commandAlarm:           byMember,
	commandQuotaAlarm:      byMember,
	commandDivergent:       byMember,
	commandClusterVersion:  byMember,
	commandDowngrade:       byMember,

	commandAuthEnable:           needRoot,
	commandAuthDisable:          needRoot,
	commandAuthSecret:           byMember,
	commandUserAdd:              needRoot,
	commandUserDelete:           needRoot,
	commandUserChangePassword:   needRoot,
	commandUserGrantRole:        needRoot,
	commandUserRevokeRole:       needRoot,
	commandRoleAdd:              needRoot,
	commandRoleDelete:           needRoot,
	commandRoleGrantPermission:  needRoot,
	commandRoleRevokePermission: needRoot,
}

// admitCommand refuses a command before it is evaluated. Rights to keys are asked
// once the request is decoded.
func (g *guard) admitCommand(kind uint8) error {
	if !g.state.Enabled {
		return nil
	}
	switch commandNeeds[kind] {
	case byMember, needKeys, needLease:
		return nil
	case needUser:
		return g.state.MustBeKnown(g.who)
	case needRoot:
		return g.state.MayAdminister(g.who)
	}
	return api.ErrPermissionDenied
}
