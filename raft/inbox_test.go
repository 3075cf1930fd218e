package raft

import "testing"

// TestReadersWakeTheLoop: readers that wait have the loop's token, or a barrier is under way
// whose end gives it.
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
	join := func() {
		if _, err := b.join(0, nil); err != nil {
			t.Fatal(err)
		}
	}
	take := func(reads, want bool) {
		t.Helper()
		var in inboxItems
		if b.take(&in, &proposals{}, reads); (in.reads != nil) != want {
			t.Fatalf("readers were taken: %v", in.reads != nil)
		}
	}
	join()
	token(true)
	join()
	token(false)
	take(true, true)
	b.readEnds() // nobody waits
	token(false)
	join()
	token(true)
	take(true, true)
	join() // while one is under way
	token(false)
	take(false, false)
	b.readEnds()
	token(true)
	take(true, true)
	join()
	take(true, true) // the one that was under way was given up
	take(true, false)
	join()
	token(true)
}
