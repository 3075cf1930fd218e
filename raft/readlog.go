package raft

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
)

// ReadEntry tells what an entry of a member's log asks the state machine for, to
// those who read the logs of stopped members. Changes of the membership come
// without commands and without Conf.
func ReadEntry(e *raftpb.Entry) (Entry, error) {
	out := Entry{Index: api.Index(e.GetIndex()), Term: api.Term(e.GetTerm())}
	if e.GetType() != raftpb.EntryNormal || len(e.GetData()) == 0 {
		return out, nil
	}
	f, err := decodeFrame(e.GetData())
	if err != nil {
		return out, fmt.Errorf("entry %d: %w", out.Index, err)
	}
	out.Commands = f.commands
	return out, nil
}
