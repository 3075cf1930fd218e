package ctl

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keelson-io/keelson/compat/cluster"
)

// TestSameOutput compares etcdctl's output for three members of etcd with that
// for three members of the store named by STORE (kvd by default), and that for
// one member over TLS, with users. ALL=1 runs all steps against both.
func TestSameOutput(t *testing.T) {
	for _, w := range []struct {
		name    string
		members int
		tls     bool
		steps   []step
	}{{"3members", 3, false, clusterSteps()}, {"TLS", 1, true, secureSteps()}} {
		t.Run(w.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
			defer cancel()
			opt := cluster.Options{Members: w.members, NoSync: true, Args: []string{"--bcrypt-cost=4"}}
			if w.tls {
				certs, err := cluster.NewCerts(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				opt.Certs = certs
			}
			pair := startPair(ctx, t, opt)
			steps := w.steps
			if os.Getenv("ALL") != "" {
				steps = slices.Concat(clusterSteps(), clientSteps(), snapshotSteps(), authSteps())
			}
			done, diffs, err := Compare(ctx, pair[0], pair[1], Mode{opt.Certs}, t.TempDir(), steps)
			if err != nil {
				t.Fatal(err)
			}
			if done != len(steps) {
				t.Errorf("%d of %d steps ran", done, len(steps))
			}
			for _, d := range diffs {
				t.Error(d)
			}
		})
	}
}

func startPair(ctx context.Context, t *testing.T, opt cluster.Options) (pair [2]*cluster.Cluster) {
	t.Helper()
	systems, err := cluster.Pair()
	if err != nil {
		t.Fatal(err)
	}
	for i, sys := range systems {
		opt.Dir = t.TempDir()
		c, err := cluster.Start(ctx, sys, opt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		pair[i] = c
	}
	return pair
}

// TestEveryCommand walks through the help of both tools: each command is in the
// script, or it is said why not.
func TestEveryCommand(t *testing.T) {
	ran := map[string]bool{}
	for _, s := range slices.Concat(clusterSteps(), secureSteps()) {
		words := append([]string{"etcdctl"}, s.words()...)
		if s.tool != "" {
			words[0] = s.tool
		}
		for i := range words {
			ran[strings.Join(words[:i+1], " ")] = true
		}
	}
	found := 0
	for _, tool := range []string{"etcdctl", "etcdutl"} {
		path, err := cluster.BinaryPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range leaves(t, path, nil) {
			name := strings.Join(append([]string{tool}, c...), " ")
			if reason := elsewhere[name]; ran[name] == (reason != "") {
				t.Errorf("%s: in the script %v, elsewhere: %q", name, ran[name], reason)
			}
			found++
		}
	}
	if found < 55 {
		t.Errorf("only %d commands found in the tools' help", found)
	}
}

// commandLine is a command in a list of commands.
var commandLine = regexp.MustCompile(`^  ([a-z][a-z-]*) +\S`)

// leaves are the commands below one that have none below themselves.
func leaves(t *testing.T, path string, above []string) (out [][]string) {
	text, err := exec.Command(path, append(above, "--help")...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v", above, err)
	}
	listed := false
	for line := range strings.Lines(string(text)) {
		if m := commandLine.FindStringSubmatch(line); listed && m != nil && (len(above) == 0 || above[0] != m[1]) {
			out = append(out, leaves(t, path, append(append([]string{}, above...), m[1]))...)
		}
		if !strings.HasPrefix(line, " ") {
			listed = strings.HasSuffix(strings.TrimRight(line, ":\n "), "ommands")
		}
	}
	if len(out) == 0 {
		return [][]string{above}
	}
	return out
}
