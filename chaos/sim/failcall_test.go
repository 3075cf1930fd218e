package sim

import (
	"slices"
	"strings"
	"testing"
)

// TestFailCalls is the short form of `chaos failcalls`: some of the calls of a
// member that is alone, and one each in a cluster.
func TestFailCalls(t *testing.T) {
	tell := func(s string) { t.Log(s) }
	n := NewWorld(1).FailCalls(Ways, 97, 0, tell)
	n.Add(NewWorld(3).FailCalls([]Way{NoPower}, 301, 0, tell))
	for _, f := range n.Failures {
		t.Error(f)
	}
	for _, way := range Ways {
		if n.Ways[way] == 0 {
			t.Errorf("no call: %s", way)
		}
	}
	for _, name := range n.Names() {
		if _, point, _ := strings.Cut(name, ": "); !slices.Contains(Points, point) {
			t.Errorf("Points lacks %q", point)
		}
	}
	if n.Stopped == 0 {
		t.Error("no process ended by a failed call")
	}
}
