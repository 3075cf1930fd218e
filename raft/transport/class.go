package transport

import "go.etcd.io/raft/v3/raftpb"

// class separates what must never wait from what may be large.
type class uint8

const (
	// control carries heartbeats, votes, read indexes, acknowledgements: small
	// messages that elections and commit latency hang on.
	control class = iota
	// bulk carries log entries and forwarded proposals.
	bulk
	classes
)

func (c class) String() string {
	if c == control {
		return "control"
	}
	return "bulk"
}

// classOf keeps acknowledgements (MsgAppResp) out of the way of forwarded
// proposals: an acknowledgement that waits delays a commit.
func classOf(m *raftpb.Message) class {
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgProp, raftpb.MsgSnap:
		return bulk
	}
	return control
}
