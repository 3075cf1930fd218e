package main

import "testing"

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
