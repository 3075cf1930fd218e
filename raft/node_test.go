package raft

import (
	"context"
	"fmt"
	"slices"
	"testing"
)

func TestOneMember(t *testing.T) {
	c := newCluster(t, 1, nil).startAll()
	m := c.leader()
	for i := range 20 {
		c.mustPropose(m, fmt.Sprint(i))
	}
	if err := m.node.ReadBarrier(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := len(m.toy.list()); got != 20 {
		t.Fatalf("%d commands applied", got)
	}
	m.kill(true)
	m.start()
	c.leader()
	if err := m.node.ReadBarrier(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := m.toy.list(); len(got) != 20 || !slices.Contains(got, "19") {
		t.Fatalf("after the crash: %v", got)
	}
}

func TestThreeMembers(t *testing.T) {
	c := newCluster(t, 3, nil).startAll()
	c.leader()
	for i := range 30 {
		c.mustPropose(c.members[c.peers[i%3].ID], fmt.Sprint(i))
	}
	if got := c.settle(); len(got) != 30 {
		t.Fatalf("%d commands", len(got))
	}
}
