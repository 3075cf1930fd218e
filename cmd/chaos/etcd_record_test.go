package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keelson-io/keelson/planted"
)

// TestEtcdBugs: every scenario is a test that exists, every planted bug is one.
func TestEtcdBugs(t *testing.T) {
	for _, b := range etcdBugs {
		pkg, name, _ := strings.Cut(b.test, " ")
		files, err := filepath.Glob(filepath.Join("../..", pkg, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(files, func(file string) bool {
			src, err := os.ReadFile(file)
			return err == nil && strings.Contains(string(src), "\nfunc "+name+"(t *testing.T)")
		}) {
			t.Errorf("etcd #%d: there is no %s", b.issue, b.test)
		}
		if b.planted != "" && !slices.ContainsFunc(planted.Bugs, func(p planted.Bug) bool { return p.Name == b.planted }) {
			t.Errorf("etcd #%d: no bug %q is planted", b.issue, b.planted)
		}
	}
	if len(etcdBugs) != 17 {
		t.Errorf("%d of etcd's 17 bugs have a scenario", len(etcdBugs))
	}
}
