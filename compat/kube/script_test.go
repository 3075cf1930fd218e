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
	known, err := readKnown("testdata/script/known.txt")
	if err != nil {
		t.Fatal(err)
	}
	if name != "resource" {
		known = nil // kube-apiserver differs from itself in nothing
	}
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
		reason, isKnown := known[s.Line]
		texts := fmt.Sprintf("%s: kubectl %s\n--- kube-apiserver\n%s\n+++ %s\n%s", s.Section, s.Line, o.left, name, o.right)
		switch {
		case o.left != o.right && !isKnown:
			differ++
			t.Error(texts)
		case o.left != o.right:
			differ++
			t.Logf("known: %s\n%s", reason, texts)
		case isKnown:
			t.Errorf("%s: kubectl %s: the two agree, testdata/script/known.txt says that they differ", s.Section, s.Line)
		case testing.Verbose():
			t.Logf("%s: kubectl %s\n%s", s.Section, s.Line, o.left)
		}
	}
	t.Logf("%d of %d steps print the same", len(outcomes)-differ, len(outcomes))
	keep(t, left.log, "left.log")
	keep(t, right.log, "right.log")
	if path := os.Getenv("REPORT"); path != "" {
		if err := os.WriteFile(path, []byte(scriptReport(name, outcomes, known)), 0o644); err != nil {
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

// TestEveryCommand: the script has each command, and each form of it, that users of
// a cluster live by.
func TestEveryCommand(t *testing.T) {
	text, err := os.ReadFile("testdata/script/script.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"get pods -l 'tier in", "get pods -l 'tier notin", "get pods -l '!canary'", "--field-selector", "-o wide", "-o json\n", "-o yaml", "jsonpath=", "custom-columns",
		"go-template", "& get configmaps -w", "describe ", "create -f", "apply -f web.yaml\n", "--server-side\n", "--force-conflicts", "edit deployment", "diff -f", "--type=json ", "--type=merge ",
		"patch configmap settings '-p", "label pod", "annotate pod", "scale deployment", "autoscale", "rollout status", "rollout history", "rollout undo", "rollout restart deployment/web", "rollout pause",
		"--cascade=orphan", "--cascade=background", "--cascade=foreground", "explain ", "auth can-i", "api-resources\n", "wait --for=condition", "wait --for=delete", "replace ", "expose ", "set image", "taint ", "cordon ", "create token"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the script has no %q", want)
		}
	}
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
