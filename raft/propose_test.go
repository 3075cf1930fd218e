package raft

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-io/keelson/api"
)

// waiters counts how often each command's end was told.
type waiters struct {
	mu    sync.Mutex
	ended map[*Command][]error
}

func (w *waiters) Ended(c *Command, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended[c] = append(w.ended[c], err)
}

func (w *waiters) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ended)
}

func (w *waiters) commands(n int, name string) (out []*Command) {
	for i := range n {
		out = append(out, &Command{Kind: 1, Body: fmt.Appendf(nil, "%s-%d", name, i), Waiter: w})
	}
	return out
}

// TestProposeAll: the end of each command is told once, or never when it was
// abandoned, although the node stops in between.
func TestProposeAll(t *testing.T) {
	c := newCluster(t, 3, nil).startAll()
	c.leader()
	w := &waiters{ended: map[*Command][]error{}}
	var all []*Command
	abandoned := map[*Command]bool{}
	var follower *member
	for round := range 20 {
		m := c.members[c.peers[round%3].ID]
		if m.node.Status().Role != Leader {
			follower = m
		}
		cmds := w.commands(30, fmt.Sprint(round))
		if err := m.node.ProposeAll(cmds); err != nil {
			t.Fatal(err)
		}
		for i, cmd := range cmds {
			if i%7 == 0 && cmd.Abandon() {
				abandoned[cmd] = true
			}
		}
		all = append(all, cmds...)
	}
	deadline := time.Now().Add(testTimeout)
	for w.count() < len(all)-len(abandoned) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d commands have ended", w.count(), len(all)-len(abandoned))
		}
		time.Sleep(time.Millisecond)
	}
	last := w.commands(10, "last")
	if err := follower.node.ProposeAll(last); err != nil {
		t.Fatal(err)
	}
	node := follower.node
	follower.kill(true)
	for _, cmd := range last {
		if cmd.Abandon() {
			t.Error("a command has not ended although its member has")
		}
	}
	if err := node.ProposeAll(w.commands(1, "late")); !errors.Is(err, ErrStopped) {
		t.Errorf("a node that has stopped: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, cmd := range all {
		told := w.ended[cmd]
		if want := 1; abandoned[cmd] && len(told) != 0 || !abandoned[cmd] && len(told) != want {
			t.Errorf("%s: told %v, abandoned: %v", cmd.Body, told, abandoned[cmd])
		}
		if len(told) == 1 && told[0] == nil && cmd.Err != nil {
			t.Errorf("%s: %v", cmd.Body, cmd.Err)
		}
	}
}

// TestProposeAllIsBounded: a batch that is one too many is not taken at all.
func TestProposeAllIsBounded(t *testing.T) {
	b := newInbox()
	var w atomic.Int64
	cmds := make([]*Command, api.MaxQueuedCommands)
	for i := range cmds {
		cmds[i] = &Command{ID: uint64(w.Add(1))}
	}
	if err := b.propose(cmds[1:]...); err != nil {
		t.Fatal(err)
	}
	if err := b.propose(cmds[0], &Command{}); !errors.Is(err, ErrTooManyRequests) {
		t.Errorf("one too many: %v", err)
	}
	if err := b.propose(cmds[0]); err != nil || len(b.mu.commands) != len(cmds) {
		t.Errorf("%v, %d commands", err, len(b.mu.commands))
	}
	if !slices.Contains(b.mu.commands, cmds[0]) {
		t.Error("the last one is not there")
	}
}
