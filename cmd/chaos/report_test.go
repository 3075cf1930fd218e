package main

import (
	"testing"

	"github.com/keelson-io/keelson/chaos/sim"
)

// TestBecame: a seed is explained by the line that names all of it.
func TestBecame(t *testing.T) {
	track := "| O3, seed 0x18a | a | mended in 0123abc | x |\n| O9, seeds 0x17, 0x181 | b | y |\n"
	for seed, want := range map[string]string{
		"0x18a": "mended in 0123abc, see the track record", "0x181": "see the track record", "0x18": "**not explained**", "": "**not explained**",
	} {
		if got := became(seed, track); got != want {
			t.Errorf("%q: %s, want %s", seed, got, want)
		}
	}
}

// TestLost: what the track record calls a mistake of the tools is no loss.
func TestLost(t *testing.T) {
	track := "| O4, seed 0x18a | lost, and mended |\n\nAlarms that were mistakes:\n\n| O4, seed 0x17 | not lost |\n\nThe end.\n\n| O4, seed 0x16 | lost |\n"
	failures := []string{"seed 0x18a: O4 gone", "seed 0x17: O4 gone", "seed 0x16: O4 gone", "seed 0x15: O4 gone", "seed 0x14: O9 late"}
	if got := countLost(failures, track); got != 3 {
		t.Errorf("%d of 3 were lost", got)
	}
}

// TestEveryPointWasReached: a failpoint that no committed result has met proves
// nothing.
func TestEveryPointWasReached(t *testing.T) {
	f := figures{sim: newTotal()}
	if err := f.sim.read("../../docs/results/sim.jsonl"); err != nil {
		t.Fatal(err)
	}
	if err := readResult("../../docs/results/calls.json", &f.calls); err != nil {
		t.Fatal(err)
	}
	for _, p := range sim.Points {
		if len(f.pointPhases(p)) == 0 {
			t.Errorf("nothing was ever cut short at: %s", p)
		}
	}
}
