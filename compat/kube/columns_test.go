package kube

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// ownColumns are kvctl's, which shows many kinds at once and knows the key.
var ownColumns = []string{"NAMESPACE", "KIND", "REVISION", "LEASE"}

// compareColumns looks at one object with -o wide from both sides, and says which
// of kubectl's columns kvctl does not have, or fills otherwise. Age is not
// compared: the two look at different times.
func (w *world) compareColumns(ctx context.Context, s Stub, namespace string) (string, error) {
	resource := strings.TrimSuffix(strings.Join([]string{s.Resource, s.Version, s.Group}, "."), ".")
	if s.Group == "" {
		resource = s.Resource
	}
	shown, err := w.kubectl.Run(ctx, "", "get", resource, s.Object.GetName(), "-n", namespace, "-o", "wide")
	if err != nil {
		return "", err
	}
	stored, err := w.kvctl.Run(ctx, "", "get", s.Key, "-o", "wide")
	if err != nil {
		return "", err
	}
	if shown.Code+stored.Code != 0 {
		return "", fmt.Errorf("%s -o wide: kubectl: %s%s, kvctl: %s%s", s.Key, shown.Stdout, shown.Stderr, stored.Stdout, stored.Stderr)
	}
	theirs, ours := cells(shown.Stdout), cells(stored.Stdout)
	var lacks, differs []string
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		cell, ok := ours[name]
		switch {
		case !ok:
			lacks = append(lacks, name)
		case cell != theirs[name] && name != "AGE":
			differs = append(differs, fmt.Sprintf("%s: %s, kubectl: %s", name, cell, theirs[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if _, ok := theirs[name]; !ok && !slices.Contains(ownColumns, name) {
			differs = append(differs, "has "+name)
		}
	}
	return columnsText(lacks, differs), nil
}

func columnsText(lacks, differs []string) string {
	if len(lacks) > 0 {
		differs = append([]string{"lacks " + strings.Join(lacks, ", ")}, differs...)
	}
	if len(differs) == 0 {
		return "same"
	}
	return strings.Join(differs, "; ")
}

var header = regexp.MustCompile(`\S+( \S+)*`)

// cells are the first row of a table by the names of its columns, which stand
// where the names begin. kvctl writes "-" for nothing, and its own columns last.
func cells(table string) map[string]string {
	lines := strings.SplitN(table, "\n", 3)
	out := map[string]string{}
	if len(lines) < 2 {
		return out
	}
	at := header.FindAllStringIndex(lines[0], -1)
	for i, span := range at {
		end := len(lines[1])
		if i+1 < len(at) {
			end = min(end, at[i+1][0])
		}
		name, cell := lines[0][span[0]:span[1]], strings.TrimSpace(lines[1][min(span[0], end):end])
		if _, twice := out[name]; twice {
			continue
		}
		if cell == "-" {
			cell = ""
		}
		out[name] = cell
	}
	return out
}

func TestCells(t *testing.T) {
	got := cells("NAME   NOMINATED NODE   AGE\na      <none>           1s\nb")
	if want := map[string]string{"NAME": "a", "NOMINATED NODE": "<none>", "AGE": "1s"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if len(cells("")) != 0 {
		t.Error("nothing has cells")
	}
}
