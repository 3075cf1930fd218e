package raft

import (
	"strings"
	"testing"
	"testing/cryptotest"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// TestReadProof: a follower's word is enough for a read where it and the leader are a
// majority, and in no other case.
func TestReadProof(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(c *core, m *raftpb.Message)
		enough bool
	}{
		{"two of three", func(*core, *raftpb.Message) {}, true},
		{"two of two", func(c *core, _ *raftpb.Message) { c.conf = &raftpb.ConfState{Voters: []uint64{1, 2}} }, true},
		{"it asked in an earlier term", func(_ *core, m *raftpb.Message) { m.LogTerm = proto.Uint64(1) }, true},
		{"it is in a later term", func(_ *core, m *raftpb.Message) { m.LogTerm = proto.Uint64(3) }, false},
		{"it does not say in which", func(_ *core, m *raftpb.Message) { m.LogTerm = nil }, false},
		{"two of four", func(c *core, _ *raftpb.Message) { c.conf = &raftpb.ConfState{Voters: []uint64{1, 2, 3, 4}} }, false},
		{"a learner", func(c *core, _ *raftpb.Message) {
			c.conf = &raftpb.ConfState{Voters: []uint64{1, 3}, Learners: []uint64{2}}
		}, false},
		{"voters are being replaced", func(c *core, _ *raftpb.Message) {
			c.conf = &raftpb.ConfState{Voters: []uint64{1, 2, 3}, VotersOutgoing: []uint64{1, 3, 4}}
		}, false},
		{"the leader is no voter", func(c *core, _ *raftpb.Message) { c.conf = &raftpb.ConfState{Voters: []uint64{2, 3}} }, false},
		{"nothing of the leader's term is committed", func(c *core, _ *raftpb.Message) { c.handedTerm-- }, false},
		{"no request", func(_ *core, m *raftpb.Message) { m.Entries = nil }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, 1)
			s := &script{t: t}
			s.step(strings.Fields("new 3 leader=1 quietly"))
			leader := s.members[1].node.core
			m := &raftpb.Message{
				Type: raftpb.MsgReadIndex.Enum(), From: proto.Uint64(2), To: proto.Uint64(1),
				LogTerm: proto.Uint64(leader.term), Entries: []*raftpb.Entry{{Data: []byte("a reader")}},
			}
			c.change(leader, m)
			if got := leader.answerVouched(m); got != c.enough {
				t.Fatalf("answered: %v, %v", got, leader.fx.sends)
			}
			if !c.enough {
				if len(leader.fx.sends) > 0 {
					t.Fatalf("sent %v", leader.fx.sends)
				}
				return
			}
			answer := leader.fx.sends[0]
			if answer.GetType() != raftpb.MsgReadIndexResp || answer.GetTo() != 2 || answer.GetTerm() != leader.term ||
				answer.GetIndex() != leader.committed || string(answer.GetEntries()[0].GetData()) != "a reader" {
				t.Errorf("answered %v", answer)
			}
		})
	}
}

// TestTwoOfFive: a leader that three of five have left for another, and the one
// follower that still hears it, show nobody what is old.
func TestTwoOfFive(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	s := &script{t: t}
	do := func(line string) { s.step(strings.Fields(line + " quietly")) }
	do("new 5 leader=1")
	among := func(ids ...string) {
		for range 20 {
			for _, a := range ids {
				for _, b := range ids {
					if a != b {
						do("deliver " + a + " " + b)
					}
				}
				do("write " + a)
				do("apply " + a)
			}
		}
	}
	do("tick 3 25")
	do("tick 4 10")
	do("tick 5 10")
	do("campaign 3")
	among("3", "4", "5")
	do("propose 3 new")
	among("3", "4", "5")
	if leader := s.members[3].node.core; leader.role != etcdraft.StateLeader || s.members[3].node.Status().Applied < 8 {
		t.Fatalf("%v of term %d, applied %d", leader.role, leader.term, s.members[3].node.Status().Applied)
	}
	do("read 2")
	reader := s.members[2].node.reading[0]
	among("1", "2")
	select {
	case <-reader.done:
		t.Errorf("member 2 has applied %d, member 3 %d, and a read on 2 has ended", s.members[2].node.Status().Applied, s.members[3].node.Status().Applied)
	default:
	}
}

// TestAnswersOfAnotherLife: what a member numbered its reads with before it restarted
// is not used again: an answer that comes late would show what is old.
func TestAnswersOfAnotherLife(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	s := &script{t: t}
	do := func(line string) { s.step(strings.Fields(line + " quietly")) }
	do("new 3 leader=1")
	before := s.members[2].node.readID
	do("crash 2")
	do("start 2")
	if after := s.members[2].node.readID; before == 0 || after == before {
		t.Errorf("reads are numbered from %d, and after a restart from %d", before, after)
	}
}
