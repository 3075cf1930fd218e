package transport

import (
	"context"
	"io"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
)

// Peer is a member as the transport needs it.
type Peer struct {
	ID   api.MemberID
	URLs []string // peer URLs, tried in turn
	// Incarnation is the mark of the member's data directory, 0 while it is not
	// known. A member that shows another one has lost what it had promised.
	Incarnation uint64
}

// SnapshotMeta says which state a snapshot holds.
type SnapshotMeta struct {
	Index     api.Index // last applied entry in it
	Term      api.Term  // term of that entry
	ConfState *raftpb.ConfState
}

// Snapshot is a store's state, ready to be written out once.
type Snapshot interface {
	Meta() SnapshotMeta
	Size() int64
	io.WriterTo
	Release()
}

// Transport sends to the other members. Its methods may be called by several
// goroutines.
type Transport interface {
	// Start begins to deliver to h. It is called once, before anything else.
	Start(h Handler) error
	// SetPeers replaces the set of peers (this member excluded); streams to
	// those that left the set end. They may still speak to this member.
	SetPeers(peers []Peer)
	// Refuse never lets these members, which were removed, speak again.
	Refuse(ids ...api.MemberID)
	// ActiveSince is since when the peer has been connected; zero when it is not.
	ActiveSince(id api.MemberID) time.Time
	// Send queues messages, whose To is `to`. When the queue is full they are
	// dropped and Handler.Unreachable is called.
	Send(to api.MemberID, msgs []*raftpb.Message)
	// Forward queues a batch of proposals for the leader of the given term. It
	// reports false when the batch was surely not sent.
	Forward(to api.MemberID, term api.Term, batch []byte) bool
	// SendSnapshot streams the snapshot, in a goroutine of its own, with msg (a
	// MsgSnap) as its envelope; Handler.SnapshotSent tells how it ended. The
	// transport releases s.
	SendSnapshot(to api.MemberID, msg *raftpb.Message, s Snapshot)
	// Call asks a peer's Handler.Call and waits for its answer.
	Call(ctx context.Context, to api.MemberID, kind uint8, payload []byte) ([]byte, error)
	// Close ends all streams and waits for the transport's goroutines.
	Close() error
}

// Handler receives from the other members. Its methods are called by the
// transport's goroutines, must not block for long, and may be called at once.
type Handler interface {
	// Message takes ownership of m.
	Message(m *raftpb.Message)
	// Forwarded hands over proposals that `from` meant for the leader of term.
	Forwarded(from api.MemberID, term api.Term, batch []byte)
	// Unreachable: messages to id were dropped.
	Unreachable(id api.MemberID)
	// PeerDown: the streams with id broke and a new connection was refused at
	// once; the process is gone, as far as this machine can tell.
	PeerDown(id api.MemberID)
	// PeerUp: the streams with id work (again).
	PeerUp(id api.MemberID)
	// Refused: the peer does not talk with this member, for one of the reasons
	// of the handshake (ErrRemoved, ErrForgotten and so on).
	Refused(by api.MemberID, err error)
	// SnapshotSent: the snapshot to id was taken (verified and stored) or not.
	SnapshotSent(to api.MemberID, ok bool)
	// SnapshotReceived hands over a verified, synced file. The handler removes
	// or renames it. It returns once the envelope is queued for Raft.
	SnapshotReceived(m *raftpb.Message, meta SnapshotMeta, path string)
	// Call answers a peer's Transport.Call.
	Call(ctx context.Context, from api.MemberID, kind uint8, payload []byte) ([]byte, error)
}
