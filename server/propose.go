package server

import (
	"context"
	"fmt"

	"github.com/keelson-io/keelson/api"
)

// Kinds of commands. They are written to the log: a number is never given
// another meaning.
const (
	commandPut             uint8 = 1  // etcdserverpb.PutRequest
	commandDelete          uint8 = 2  // etcdserverpb.DeleteRangeRequest
	commandTxn             uint8 = 3  // etcdserverpb.TxnRequest
	commandCompact         uint8 = 4  // etcdserverpb.CompactionRequest
	commandLeaseGrant      uint8 = 5  // etcdserverpb.LeaseGrantRequest, with the id and TTL that are granted
	commandLeaseRevoke     uint8 = 6  // etcdserverpb.LeaseRevokeRequest
	commandLeaseExpire     uint8 = 7  // leaseBatch: a leader saw these leases expire
	commandLeaseCheckpoint uint8 = 8  // leaseBatch: what remains of these leases
	commandAttributes      uint8 = 16 // publication, in JSON
	commandAlarm           uint8 = 24 // etcdserverpb.AlarmRequest of a person or a check
	commandQuotaAlarm      uint8 = 25 // etcdserverpb.AlarmRequest of a member's quota
	commandDivergent       uint8 = 28 // etcdserverpb.AlarmRequest: a majority names a member that differs
	commandClusterVersion  uint8 = 26 // membershippb.ClusterVersionSetRequest
	commandDowngrade       uint8 = 27 // membershippb.DowngradeInfoSetRequest

	// 32 to 47: users, roles and permissions. Bodies are etcd's requests of these
	// names, with a hash in place of the password.
	commandAuthEnable           uint8 = 32 // the secret of simple tokens
	commandAuthDisable          uint8 = 33
	commandAuthSecret           uint8 = 34 // the secret, for a cluster that has none
	commandUserAdd              uint8 = 35
	commandUserDelete           uint8 = 36
	commandUserChangePassword   uint8 = 37
	commandUserGrantRole        uint8 = 38
	commandUserRevokeRole       uint8 = 39
	commandRoleAdd              uint8 = 40
	commandRoleDelete           uint8 = 41
	commandRoleGrantPermission  uint8 = 42
	commandRoleRevokePermission uint8 = 43
)

// replica is the part of raft.Node that the services of clients use. Tests put
// a log of one member in its place.
type replica interface {
	consensus
	// Propose returns what this member's state machine made of the command. It
	// keeps body.
	Propose(ctx context.Context, kind uint8, principal string, body []byte) (any, error)
	// Call asks the leader (to 0) or another member.
	Call(ctx context.Context, to api.MemberID, kind uint8, payload []byte) ([]byte, error)
}

// staleRounds bounds how often a command is proposed again because users or
// roles changed while it was on its way.
const staleRounds = 3

// propose replicates a client's command and returns the answer that the apply
// step encoded. does tells what the command does with keys; nil: nothing.
//
// A command that was refused for its old auth revision had no effect, and this
// member has seen the change by then: the caller is established anew and the
// command proposed again, unless the caller's token itself names the revision.
// So it is when this member took the command in without a name, because it had
// not yet heard that authentication was switched on.
func (s *Server) propose(ctx context.Context, kind uint8, body []byte, does accessor) (*Encoded, error) {
	var result any
	for round := 1; ; round++ {
		who, err := s.admit(ctx, kind, body, does)
		if err != nil {
			return nil, err
		}
		result, err = s.node.Propose(ctx, kind, who.String(), body)
		stale := err == error(api.ErrAuthOldRevision) && !s.auth.tokens.Pinned() || err == error(api.ErrUserEmpty) && !who.Known()
		if stale && round < staleRounds {
			continue
		}
		if err != nil {
			return nil, proposalError(err)
		}
		break
	}
	answer, ok := result.(*Encoded)
	if !ok {
		return nil, fmt.Errorf("command of kind %d ended without an answer (%T)", kind, result)
	}
	return answer, nil
}
