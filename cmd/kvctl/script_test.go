package main

import (
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
// else of one. $ENDPOINT is the first member's, $ENDPOINTS all.
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
			e.Setenv("ENDPOINT", first)
			e.Setenv("ENDPOINTS", all)
			e.Setenv("KVCTL_ENDPOINTS", first)
			return nil
		},
	})
}
