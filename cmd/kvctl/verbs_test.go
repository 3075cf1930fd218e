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
		if strings.HasPrefix(path, "kvctl completion") { // cobra's
			continue
		}
		if c.Short == "" || !strings.Contains(c.Example, path) {
			if resolves := called.FindStringSubmatch(c.Example); resolves == nil || resolve(root, resolves[1]) != path {
				t.Errorf("%s: short text %q, example %q", path, c.Short, c.Example)
			}
		}
	}
}

// TestDocumentedCommandsExist: what the table in docs/kvctl.md gives for each job
// of etcdctl, and the calls in the README, are commands.
func TestDocumentedCommandsExist(t *testing.T) {
	root, all := commands(t)
	for _, name := range []string{"../../README.md", "../../docs/kvctl.md", "../../docs/operators/maintenance.md", "../../docs/operators/backup.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "    kvctl ") {
				continue
			}
			found++
			call := called.FindStringSubmatch(line)[1]
			if path := resolve(root, call); !all[path] {
				t.Errorf("%s: %q is no command (%q)", name, call, path)
			}
		}
		t.Logf("%s: %d calls", name, found)
	}
}
