package ctl

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/keelson-io/keelson/compat/cluster"
)

// TestEveryJobIsDocumented: each command of etcdctl and etcdutl is in the first
// column of the table in docs/kvctl.md. That the second column names commands of
// kvctl is a test of kvctl's.
func TestEveryJobIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/kvctl.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## From etcdctl")
	documented := map[string]bool{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.ReplaceAll(line, `\|`, "¦"), "|")
		if len(cells) < 3 {
			continue
		}
		for _, code := range inCode.FindAllStringSubmatch(cells[1], -1) {
			for _, name := range jobs(code[1]) {
				documented[name] = true
			}
		}
	}
	for _, tool := range []string{"etcdctl", "etcdutl"} {
		path, err := cluster.BinaryPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		for _, words := range leaves(t, path, nil) {
			found := false
			for i := range words {
				found = found || documented[strings.Join(append([]string{tool}, words[:i+1]...), " ")]
			}
			if !found {
				t.Errorf("docs/kvctl.md has no line for %s %s", tool, strings.Join(words, " "))
			}
		}
	}
}

var (
	inCode = regexp.MustCompile("`([^`]+)`")
	named  = regexp.MustCompile(`^[a-z-]*[a-z]( [a-z][a-z¦-]*)*`) // before the first placeholder or flag
)

// jobs are the commands that a cell of the table stands for.
func jobs(code string) (out []string) {
	if !strings.HasPrefix(code, "etcdutl ") {
		code = "etcdctl " + code
	}
	words := strings.Fields(named.FindString(code))
	last := words[len(words)-1]
	for one := range strings.SplitSeq(last, "¦") {
		out = append(out, strings.Join(append(append([]string{}, words[:len(words)-1]...), one), " "))
	}
	return out
}
