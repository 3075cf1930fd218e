package resource

import (
	"slices"
	"testing"
)

func (b *bell) isRung() bool { return len(b.rung) > 0 }

// TestWhoLeads: of a crowd's bells the leader's alone is listed, and who follows it looks
// for what it did not send.
func TestWhoLeads(t *testing.T) {
	coll := newCollection(&Kind{}, 0, nil, func() {})
	crowd := &crowd{}
	var all []*watcher
	for range 3 {
		w := &watcher{coll: coll, bell: coll.listen()}
		all = append(all, w)
		crowd.join(w)
	}
	listed := func(want ...*watcher) {
		t.Helper()
		for _, w := range all {
			if slices.Contains(coll.mu.bells, w.bell) != slices.Contains(want, w) {
				t.Errorf("watch %d: listed %v", slices.Index(all, w), !slices.Contains(want, w))
			}
		}
	}
	listed(all[0])
	crowd.leaveLocked(all[0])
	next := crowd.members[0]
	if listed(all[0], next); !next.bell.isRung() {
		t.Error("who leads now was not told")
	}
	other := crowd.members[1]
	crowd.leaveLocked(other)
	crowd.leaveLocked(other)
	if listed(all...); other.bell.isRung() {
		t.Error("nothing has changed for who left")
	}
}

// TestStepStops where a watch must go on by itself: it ends, or is not where the others are.
func TestStepStops(t *testing.T) {
	layer := &Layer{feed: newFeed(nil, nil, nil)}
	w := &watcher{call: &call{layer: layer}, coll: newCollection(&Kind{}, 0, nil, func() {}), at: 5}
	same := look{taken: true, at: 5, applied: 9, ok: true}
	if !w.step(&same) || w.at != 9 {
		t.Errorf("nothing to send: the watch is at %d, want 9", w.at)
	}
	lost, gone, behind := same, same, same
	lost.at, gone.at = 9, 9
	lost.losses, gone.ended = 1, true
	for name, seen := range map[string]*look{"lost": &lost, "gone": &gone, "elsewhere": &behind} {
		if w.step(seen) { // its own collection is not loaded
			t.Errorf("%s: the watch went on", name)
		}
	}
	pair := look{taken: true, at: 9, applied: 12, ok: true, changes: []*change{{rev: 11}, {rev: 11}}}
	if w.step(&pair) || w.at != 9 {
		t.Errorf("a revision of two changes: the watch is at %d", w.at)
	}
}
