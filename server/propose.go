package server

import (
	"context"
	"fmt"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/raft"
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
	// ProposeAll takes commands that have a Waiter: all, or none with an error.
	ProposeAll(cmds []*raft.Command) error
	// AfterBarrier calls fn, which does not wait, when ReadBarrier would return.
	AfterBarrier(fn func(error))
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
	for round := 1; ; round++ {
		who, err := s.admit(ctx, kind, body, does)
		if err != nil {
			return nil, err
		}
		result, err := s.node.Propose(ctx, kind, who.String(), body)
		if s.stale(err, who) && round < staleRounds {
			continue
		}
		return proposed(kind, result, err)
	}
}

// stale reports whether a command was refused because of what this member has
// learned since.
func (s *Server) stale(err error, who auth.Principal) bool {
	return err == error(api.ErrAuthOldRevision) && !s.auth.tokens.Pinned() || err == error(api.ErrUserEmpty) && !who.Known()
}

// proposed is what became of a command.
func proposed(kind uint8, result any, err error) (*Encoded, error) {
	if err != nil {
		return nil, proposalError(err)
	}
	answer, ok := result.(*Encoded)
	if !ok {
		return nil, fmt.Errorf("command of kind %d ended without an answer (%T)", kind, result)
	}
	return answer, nil
}

// proposal fills in the command of a write that passes every check at once, and
// whose it is. False: one of them refuses it, or would have to wait before it says
// so. Nothing has happened then: write, from the beginning, says which.
func (s *Server) proposal(ctx context.Context, w writer, c *raft.Command, who *auth.Principal) bool {
	kind, body := w.command()
	if !s.hasRoom(w.cost()) || w.check(int(s.cfg.MaxTxnOps)) != nil {
		return false
	}
	if state := s.auth.now.Load(); state.Enabled {
		var err error
		if *who, err = s.auth.caller(ctx, state); err != nil {
			return false
		}
		g := guard{state: state, who: *who, leaseKeys: leaseKeysOf(s.Store())}
		if g.admitCommand(kind) != nil || g.check(w) != nil {
			return false
		}
	}
	c.Kind, c.Principal, c.Body = kind, who.String(), body
	return s.fits(body, *who) == nil
}
