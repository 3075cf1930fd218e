package main

import (
	"compress/flate"
	"encoding/json"
	"fmt"
	"go/build"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/keelson-io/keelson/api/kinds"
)

const committed = "../../api/kinds/table.deflate"

func TestCommittedTableIsGenerated(t *testing.T) {
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(committed)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	have, err := io.ReadAll(flate.NewReader(f))
	if err != nil {
		t.Fatal(err)
	}
	if string(have) == want {
		return
	}
	a, b := strings.Split(string(have), "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("line %d is %q, the types say %q: `make kinds` writes the table anew", i+1, a[i], b[i])
		}
	}
	t.Fatalf("%d lines, the types make %d: `make kinds` writes the table anew", len(a), len(b))
}

func TestCommittedObjectsAreGenerated(t *testing.T) {
	have, err := os.ReadFile("../../api/kinds/testdata/registry.txt")
	if err != nil {
		t.Fatal(err)
	}
	want, err := stored()
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Error("testdata/registry.yaml gives other objects: `make kinds` writes them anew")
	}
}

func moduleDir(t *testing.T, pkg string) string {
	t.Helper()
	p, err := build.Import(pkg, ".", build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	return p.Dir
}

func TestEveryPackageIsRegistered(t *testing.T) {
	source, err := os.ReadFile("scheme.go")
	if err != nil {
		t.Fatal(err)
	}
	api := filepath.Dir(filepath.Dir(moduleDir(t, "k8s.io/api/core/v1")))
	found, err := filepath.Glob(api + "/*/v*/register.go")
	if err != nil || len(found) < 50 {
		t.Fatal(len(found), err)
	}
	for _, name := range found {
		rel, _ := filepath.Rel(api, filepath.Dir(name))
		if pkg := "k8s.io/api/" + filepath.ToSlash(rel); !strings.Contains(string(source), fmt.Sprintf("%q", pkg)) {
			t.Errorf("scheme.go lacks %s", pkg)
		}
	}
}

// TestGolden decodes Kubernetes' own example of each kind, all fields set, and
// compares it with the JSON beside it.
func TestGolden(t *testing.T) {
	dir := filepath.Dir(filepath.Dir(moduleDir(t, "k8s.io/api/core/v1"))) + "/testdata/HEAD/"
	names, err := filepath.Glob(dir + "*.pb")
	if err != nil || len(names) < 150 {
		t.Fatal(len(names), err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "/core.v1.WatchEvent.pb") {
			continue // a frame of a watch, whose envelope names no kind
		}
		t.Run(strings.TrimSuffix(filepath.Base(name), ".pb"), func(t *testing.T) {
			value, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(strings.TrimSuffix(name, ".pb") + ".json")
			if err != nil {
				t.Fatal(err)
			}
			same(t, value, text)
		})
	}
}

// same fails unless a stored value decodes to what the JSON says.
func same(t *testing.T, value, text []byte) {
	t.Helper()
	o, err := kinds.Decode(value)
	if err != nil {
		t.Fatal(err)
	}
	have, err := json.Marshal(o.Fields)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Unknown) > 0 {
		t.Errorf("unknown: %v", o.Unknown)
	}
	var a, b any
	if err := json.Unmarshal(have, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	for _, d := range differences("", a, b, nil) {
		t.Error(d)
	}
}

// differences names the paths at which two JSON values are not the same.
func differences(path string, a, b any, out []string) []string {
	am, aok := a.(map[string]any)
	bm, bok := b.(map[string]any)
	if aok && bok {
		for k := range am {
			if _, ok := bm[k]; !ok {
				out = append(out, fmt.Sprintf("%s.%s: ours alone, %v", path, k, am[k]))
			}
		}
		for k := range bm {
			if _, ok := am[k]; !ok {
				out = append(out, fmt.Sprintf("%s.%s: theirs alone, %v", path, k, bm[k]))
				continue
			}
			out = differences(path+"."+k, am[k], bm[k], out)
		}
		return out
	}
	al, aok := a.([]any)
	bl, bok := b.([]any)
	if aok && bok && len(al) == len(bl) {
		for i := range al {
			out = differences(fmt.Sprintf("%s[%d]", path, i), al[i], bl[i], out)
		}
		return out
	}
	if !reflect.DeepEqual(a, b) {
		out = append(out, fmt.Sprintf("%s: ours %v, theirs %v", path, a, b))
	}
	return out
}
