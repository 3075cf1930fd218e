package raft

import (
	"slices"
	"testing"
)

// checkReads: the core works on the barriers that the node knows, and the inbox counts their readers.
func checkReads(t testing.TB, n *Node) {
	t.Helper()
	var ids, known []uint64
	readers := 0
	for _, b := range n.reading {
		known, readers = append(known, b.id), readers+b.readers
	}
	for _, r := range n.core.reads {
		ids = append(ids, r.id)
	}
	if !slices.Equal(ids, known) || n.inbox.mu.reading != readers {
		t.Fatalf("barriers %d in the core, %d in the node; %d readers, %d are counted", ids, known, readers, n.inbox.mu.reading)
	}
}

// TestReadersWakeTheLoop: readers that wait have the loop's token, or so many barriers are
// under way that their end gives it.
func TestReadersWakeTheLoop(t *testing.T) {
	b := newInbox()
	token := func(want bool) {
		t.Helper()
		select {
		case <-b.wake:
			if !want {
				t.Fatal("the loop is woken")
			}
		default:
			if want {
				t.Fatal("nobody wakes the loop")
			}
		}
	}
	join := func(readers int) {
		for range readers {
			if _, err := b.join(0, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	take := func(readers int) {
		t.Helper()
		var in inboxItems
		b.take(&in, &proposals{})
		if got := in.reads; got == nil && readers > 0 || got != nil && got.readers != readers {
			t.Fatalf("taken: %+v, not %d readers", got, readers)
		}
	}
	join(1)
	token(true)
	join(1)
	token(false)
	take(2)
	b.readEnds(2) // nobody waits
	token(false)
	join(fewReaders - 1)
	token(true)
	take(fewReaders - 1)
	join(3) // beside few
	token(true)
	take(3)
	join(5) // beside many
	token(false)
	take(0)
	b.readEnds(2) // they are still many
	token(false)
	take(0)
	b.readEnds(1)
	token(true)
	take(5)
	take(0)
	b.readEnds(5 + fewReaders - 1)
	token(false)
	join(1)
	token(true)
}
