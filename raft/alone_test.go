package raft

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/keelson-io/keelson/api"
)

// TestStandAlone: two of three members are lost. The third goes on with all that
// it knew to be committed, and nobody else counts any more.
func TestStandAlone(t *testing.T) {
	for _, durable := range []bool{true, false} {
		t.Run(fmt.Sprint("durable=", durable), func(t *testing.T) {
			c := newCluster(t, 3, nil).startAll()
			for i := range 20 {
				c.mustPropose(c.leader(), fmt.Sprint("before", i))
			}
			kept := c.settle()
			survivor := c.members[2]
			if durable {
				survivor.toy.Flush()
			}
			for _, m := range c.members {
				m.kill(false)
			}
			delete(c.members, 1)
			delete(c.members, 3)
			c.tune = func(cfg *Config) { cfg.Alone = true }
			for round := range 3 { // the flag stays: it must not harm
				survivor.start()
				c.wait("a leader alone", func() bool { return survivor.node.Status().Role == Leader })
				c.mustPropose(survivor, fmt.Sprint("alone", round))
				survivor.toy.Flush()
				survivor.kill(true)
			}
			c.tune = nil
			survivor.start()
			c.wait("a leader without the flag", func() bool { return survivor.node.Status().Role == Leader })
			c.mustPropose(survivor, "after")
			got := survivor.toy.list()
			want := append(kept, "alone0", "alone1", "alone2", "after")
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the state is %v, want %v", got, want)
			}
			progress, err := survivor.node.Progress(context.Background())
			if err != nil || len(progress) != 1 {
				t.Errorf("members are %+v, %v", progress, err)
			}
		})
	}
}

func TestStandAloneNeedsALog(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.Bootstrap, cfg.Alone = false, true })
	m := c.members[1]
	if err := errors.Join(m.disk.MkdirAll("wal", 0o700), m.disk.MkdirAll("snap", 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(m.config()); err == nil {
		t.Fatal("a member without a log stands alone")
	}
}

// TestJudge: a change that the judge refuses is not made on any member, and its
// proposer learns why.
func TestJudge(t *testing.T) {
	refused := errors.New("no")
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.Judge = func(op ConfOp, member api.MemberID, _ []byte) error {
			if op == ConfAddVoter && member > 3 {
				return refused
			}
			return nil
		}
	}).startAll()
	c.leader()
	for _, m := range c.members {
		result, err := m.node.ProposeConfChange(context.Background(), ConfAddVoter, 9, nil)
		if !errors.Is(err, refused) {
			t.Errorf("member %s: %v, %v", m.id, result, err)
		}
	}
	if _, err := c.leader().node.ProposeConfChange(context.Background(), ConfAddLearner, 9, nil); err != nil {
		t.Errorf("a good change after a refused one: %v", err)
	}
	progress, err := c.leader().node.Progress(context.Background())
	if err != nil || len(progress) != 4 || !progress[3].Learner && !progress[0].Learner && !progress[1].Learner && !progress[2].Learner {
		t.Errorf("members are %+v, %v", progress, err)
	}
}
