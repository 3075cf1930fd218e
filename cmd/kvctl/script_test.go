package main

import (
	"encoding/base64"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kvctl": main})
}

// TestScripts runs testdata/*.txtar, each against a cluster of its own: of three
// members if the name begins with "three", of none if it begins with "offline",
// else of one. Scripts whose name begins with "objects" find Kubernetes objects
// there. $ENDPOINT is the first member's, $ENDPOINTS all.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else every kvctl sleeps a second before it exits
			tb := e.T().(testing.TB)
			name := tb.Name()[strings.LastIndexByte(tb.Name(), '/')+1:]
			n := 1
			switch {
			case strings.HasPrefix(name, "three"):
				n = 3
			case strings.HasPrefix(name, "offline"):
				return nil
			}
			_, all := endpoints(tb, plan(tb, n, tb.TempDir()))
			first, _, _ := strings.Cut(all, ",")
			if strings.HasPrefix(name, "objects") {
				putObjects(tb, first)
			}
			e.Setenv("ENDPOINT", first)
			e.Setenv("ENDPOINTS", all)
			e.Setenv("KVCTL_ENDPOINTS", first)
			return nil
		},
	})
}

// putObjects writes the objects that the tests of api/kinds have, as a
// kube-apiserver does.
func putObjects(t testing.TB, endpoint string) {
	t.Helper()
	text, err := os.ReadFile("../../api/kinds/testdata/registry.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		b, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		if out := kvctl(t, string(b), "--endpoints", endpoint, "put", key); out.code != exitOK {
			t.Fatalf("%s: %s", key, out.errs)
		}
	}
}
