package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// commands are the commands that do something, by their paths.
func commands(t testing.TB) (root *cobra.Command, all map[string]bool) {
	t.Helper()
	a := newApp(world{})
	root = a.root()
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	all = map[string]bool{}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if !c.HasSubCommands() {
			all[c.CommandPath()] = true
		}
	}
	walk(root)
	if len(all) < 65 {
		t.Fatalf("found %d commands only", len(all))
	}
	return root, all
}

// called is a call of kvctl in a text, up to what ends it in a shell.
var called = regexp.MustCompile(`\bkvctl +([^|&;)\n'` + "`" + `]*)`)

// resolve finds the command that a call's words name.
func resolve(root *cobra.Command, call string) string {
	c, _, err := root.Find(strings.Fields(call))
	if err != nil {
		return ""
	}
	return c.CommandPath()
}

// TestEveryVerbHasAScript: a verb without a line in testdata that runs it with
// success, or until it is interrupted, is not tested.
func TestEveryVerbHasAScript(t *testing.T) {
	root, all := commands(t)
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) < 10 {
		t.Fatal(scripts, err)
	}
	ran := map[string]bool{}
	for _, name := range scripts {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		script, _, _ := strings.Cut(string(text), "\n-- ")
		for line := range strings.Lines(script) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "!") && !strings.HasSuffix(line, "&") {
				continue
			}
			for _, call := range called.FindAllStringSubmatch(line, -1) {
				ran[resolve(root, call[1])] = true
			}
		}
	}
	for path := range all {
		if !ran[path] {
			t.Errorf("no script runs %q", path)
		}
	}
}

// TestEveryVerbIsExplained: each has a short text and an example that names it.
func TestEveryVerbIsExplained(t *testing.T) {
	root, all := commands(t)
	for path := range all {
		c, _, err := root.Find(strings.Fields(path)[1:])
		if err != nil {
			t.Fatal(err)
		}
		if path == "kvctl help" || strings.HasPrefix(path, "kvctl completion") { // cobra's
			continue
		}
		if c.Short == "" || !strings.Contains(c.Example, path) {
			if resolves := called.FindStringSubmatch(c.Example); resolves == nil || resolve(root, resolves[1]) != path {
				t.Errorf("%s: short text %q, example %q", path, c.Short, c.Example)
			}
		}
	}
}

// TestDocumentedCommandsExist: the calls that the documents show are commands.
func TestDocumentedCommandsExist(t *testing.T) {
	root, all := commands(t)
	names, err := filepath.Glob("../../docs/operators/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range append(names, "../../README.md", "../../docs/kvctl.md", "../../docs/client.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			call := shown.FindStringSubmatch(line)
			if call == nil {
				continue
			}
			found++
			if path := resolve(root, call[1]); !all[path] {
				t.Errorf("%s: %q is no command (%q)", name, call[1], path)
			}
		}
	}
	if found < 20 {
		t.Errorf("found %d calls only", found)
	}
}

// shown is a call in a block of code: at its beginning, or after a prompt.
var shown = regexp.MustCompile(`^(?:    )+(?:\$ )?kvctl +([^|&;)\n#]*)`)

// TestTableOfJobs: what docs/kvctl.md gives for each job of etcdctl is a command.
func TestTableOfJobs(t *testing.T) {
	root, _ := commands(t)
	text, err := os.ReadFile("../../docs/kvctl.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## From etcdctl")
	rows := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.ReplaceAll(line, `\|`, "¦"), "|")
		if len(cells) < 4 || !strings.Contains(line, "`") {
			continue
		}
		theirs, ours := cells[1], cells[2]
		if strings.TrimSpace(ours) == "the same" {
			ours = theirs
		}
		for _, code := range inCode.FindAllStringSubmatch(ours, -1) {
			for _, call := range alternatives(strings.TrimPrefix(code[1], "kvctl ")) {
				words := named.FindString(call)
				c, _, err := root.Find(strings.Fields(words))
				if words != "" && (err != nil || c.CommandPath() != "kvctl "+words) {
					t.Errorf("%s: %q is no command", strings.TrimSpace(line), words)
				}
			}
		}
		rows++
	}
	if rows < 30 {
		t.Errorf("found %d rows only", rows)
	}
}

var (
	inCode = regexp.MustCompile("`([^`]+)`")
	named  = regexp.MustCompile(`^[a-z][a-z-]*( [a-z][a-z-]*)*`) // the words before the first placeholder or flag
)

// alternatives are the calls that one with a choice of words stands for.
func alternatives(call string) (out []string) {
	words := strings.Fields(call)
	for i, w := range words {
		if strings.Contains(w, "¦") && !strings.HasPrefix(w, "[") {
			for one := range strings.SplitSeq(w, "¦") {
				out = append(out, strings.Join(append(append(append([]string{}, words[:i]...), one), words[i+1:]...), " "))
			}
			return out
		}
	}
	return []string{call}
}
