package kube

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// outcome is what a step printed on both sides, masked.
type outcome struct {
	step        Step
	left, right string
}

// TestScript runs one script of kubectl's against a kube-apiserver over etcd and
// against kvd's resource layer (RIGHT=kvd: against a kube-apiserver over kvd),
// and compares what each command prints and how it ends.
func TestScript(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Minute)
	defer cancel()
	name, err := otherSide()
	if err != nil {
		t.Fatal(err)
	}
	steps, err := ReadScript("testdata/script/script.txt")
	if err != nil {
		t.Fatal(err)
	}
	starting, started := context.WithTimeout(ctx, startLimit)
	defer started()
	left, right := startSide(starting, t, "etcd", "testdata/script"), startSide(starting, t, name, "testdata/script")
	var outcomes []outcome
	differ := 0
	for _, s := range steps {
		if only := os.Getenv("SECTIONS"); only != "" && !strings.Contains(only, s.Section) {
			continue
		}
		o := outcome{step: s}
		var wg sync.WaitGroup
		wg.Go(func() { o.left = MaskStep(s, left.shell.Run(ctx, s)) })
		wg.Go(func() { o.right = MaskStep(s, right.shell.Run(ctx, s)) })
		wg.Wait()
		if ctx.Err() != nil {
			t.Fatalf("%s: %v", s.Line, ctx.Err())
		}
		outcomes = append(outcomes, o)
		if o.left != o.right {
			differ++
			t.Errorf("%s: kubectl %s\n--- kube-apiserver\n%s\n+++ %s\n%s", s.Section, s.Line, o.left, name, o.right)
		} else if testing.Verbose() {
			t.Logf("%s: kubectl %s\n%s", s.Section, s.Line, o.left)
		}
	}
	t.Logf("%d of %d steps print the same", len(outcomes)-differ, len(outcomes))
	keep(t, left.log, "left.log")
	keep(t, right.log, "right.log")
	if path := os.Getenv("REPORT"); path != "" {
		if err := os.WriteFile(path, []byte(scriptTable(outcomes)), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// keep copies a server's log to the directory LOGS, if one is named.
func keep(t *testing.T, log, name string) {
	t.Helper()
	dir := os.Getenv("LOGS")
	if dir == "" {
		return
	}
	data, err := os.ReadFile(log)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

// scriptTable is the report's: a line for each section, then the steps that
// differ.
func scriptTable(outcomes []outcome) string {
	var sections []string
	same, all := map[string]int{}, map[string]int{}
	var wrong strings.Builder
	for _, o := range outcomes {
		name := o.step.Section
		if all[name] == 0 {
			sections = append(sections, name)
		}
		all[name]++
		if o.left == o.right {
			same[name]++
		} else {
			fmt.Fprintf(&wrong, "* %s: `kubectl %s`\n", name, o.step.Line)
		}
	}
	var b strings.Builder
	b.WriteString("| section | steps | same |\n|---|--:|--:|\n")
	for _, name := range sections {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", name, all[name], same[name])
	}
	return b.String() + "\nDifferent:\n\n" + wrong.String()
}

func TestParseStep(t *testing.T) {
	s, err := parseStep(`A='b c' @alice & get pods -l 'x in (y)' ''`)
	want := Step{Line: s.Line, words: []string{"get", "pods", "-l", "x in (y)", ""}, env: []string{"A=b c"}, user: "alice", beside: true}
	if err != nil || !reflect.DeepEqual(s, want) {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"get 'pods", "@alice", "A=b"} {
		if _, err := parseStep(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
