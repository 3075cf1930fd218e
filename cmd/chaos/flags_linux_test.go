package main

import (
	"strings"
	"testing"
)

// TestFlagsThatMeanNothing are refused, with what they may be.
func TestFlagsThatMeanNothing(t *testing.T) {
	for _, c := range []struct {
		run        func([]string) error
		args, want string
	}{
		{failCalls, "-world nowhere", "there are alone, three, rotten"},
		{failCalls, "-step 0", "at least 1"},
		{manyClients, "-rate 0", "at least 1"},
		{manyClients, "-conns 0", "at least 1"},
		{realProcesses, "-hold -1s", "more than 0"},
		{realProcesses, "-hold 1s -rate 0", "-rate 2000"},
		{realProcesses, "-hold 1s -every 0s", "at least 1s"},
		{realProcesses, "-rotation today", "is a day, as in -rotation 20"},
	} {
		if err := c.run(strings.Fields(c.args)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
}
