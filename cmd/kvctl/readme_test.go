package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// tourOutput is what a reader of the README's tour sees, in this order.
var tourOutput = []string{
	`NAME +ENDPOINT +ROLE`, `leader`, `OK\ngreeting\nhello\nOK\n`, `PUT\ngreeting\nhello\nPUT\ngreeting\nhello again\n`,
	`PUT at \d+, version 1\nhello\nPUT at \d+, version 2\nhello again\n`, `SUCCESS\n\nOK\n`, `OK\nfound 1 leases\n[0-9a-f]{16}\n`,
	`held with fencing token \d+`, `Snapshot saved at backup.db`, `HASH +REVISION`, `verified`, `Restored \d+ keys and 1 leases at revision \d+ into restored.kvd`,
	`OK`, `NAMESPACE +NAME +KIND +READY +STATUS +RESTARTS +AGE\ndefault +web +Pod`, `apiVersion: v1\nkind: Pod\n`,
}

// TestReadmeTour runs the tour as the README prints it, against three members at
// other ports.
func TestReadmeTour(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, tour, _ := strings.Cut(string(text), "## Try it")
	tour, _, _ = strings.Cut(tour, "\n## ")
	var script strings.Builder
	for line := range strings.Lines(tour) {
		if code, ok := strings.CutPrefix(line, "    "); ok {
			script.WriteString(code)
		}
	}
	_, all := endpoints(t, plan(t, 3, t.TempDir()))
	members := strings.Split(all, ",")
	commands := strings.NewReplacer("127.0.0.1:2379", members[0], "127.0.0.1:22379", members[1], "127.0.0.1:32379", members[2]).Replace(script.String())
	cmd := exec.Command("sh", "-ec", commands)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), "GORACE=atexit_sleep_ms=0", "KVCTL_CONFIG=none")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rest := string(out)
	for _, want := range tourOutput {
		at := regexp.MustCompile(want).FindStringIndex(rest)
		if at == nil {
			t.Fatalf("no %q in\n%s\nof\n%s", want, rest, out)
		}
		rest = rest[at[1]:]
	}
}
