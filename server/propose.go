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
	commandClusterVersion  uint8 = 26 // membershippb.ClusterVersionSetRequest
	commandDowngrade       uint8 = 27 // membershippb.DowngradeInfoSetRequest
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

// propose replicates a client's command and returns the answer that the apply
// step encoded.
func (s *Server) propose(ctx context.Context, kind uint8, body []byte) (*Encoded, error) {
	if err := s.admit(kind, body); err != nil {
		return nil, err
	}
	result, err := s.node.Propose(ctx, kind, "", body)
	if err != nil {
		return nil, proposalError(err)
	}
	answer, ok := result.(*Encoded)
	if !ok {
		return nil, fmt.Errorf("command of kind %d ended without an answer (%T)", kind, result)
	}
	return answer, nil
}
