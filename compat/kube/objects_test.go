package kube

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// everyVersion makes a kube-apiserver serve all that it knows, and store custom
// objects in the JSON that is still the default.
var everyVersion = []string{"--runtime-config", "api/all=true", "--feature-gates", "AllAlpha=true,AllBeta=true,CBORServingAndStorage=false"}

// known are differences that are right as they are: places where kubectl shows
// what the store does not hold, or the table of api/kinds knows a later version
// than the kube-apiserver. Everything else is an error.
var known = map[string]string{
	"PersistentVolumeClaim.status.phase": "defaulting: Pending is filled in by who reads",
	"CSINode.status":                     "a later version: 1.37 has this field, and writes it even if it is empty",
}

// unknown are kinds that the table does not have, by apiVersion.
var unknown = map[string]string{
	"scheduling.k8s.io/v1alpha2": "kind not known: this alpha version is gone in 1.37",
}

// compared is a line of the report.
type compared struct {
	kind, apiVersion, key string
	result                string
	wrong                 []Difference
	columns               string // how kvctl's compare with kubectl's
}

// TestObjects: for an object of every kind, the key is the one that Kubernetes
// expects, and kvctl prints of the stored bytes what kubectl prints.
func TestObjects(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	w := start(ctx, t, everyVersion...)
	all, err := LoadStubs()
	if err != nil {
		t.Fatal(err)
	}
	writer, err := NewWriter(w.server.Target)
	if err != nil {
		t.Fatal(err)
	}
	refused, err := writer.CreateAll(ctx, all)
	if err != nil {
		t.Fatal(err)
	}
	var lines []compared
	for _, s := range all.Stubs {
		t.Run(strings.TrimPrefix(s.Key, "/registry/"), func(t *testing.T) {
			if err := refused[s.Key]; err != nil {
				t.Fatal(err)
			}
			line, err := w.compare(ctx, writer, s, all.Namespace)
			if err != nil {
				t.Fatal(err)
			}
			if line.columns, err = w.compareColumns(ctx, s, all.Namespace); err != nil {
				t.Error(err)
			}
			for _, d := range line.wrong {
				t.Errorf("kvctl and kubectl differ at %v", d)
			}
			lines = append(lines, line)
		})
	}
	if path := os.Getenv("REPORT"); path != "" {
		if err := os.WriteFile(path, []byte(table(lines)), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// compare looks at one object from both sides, in the version it is stored in if
// that is served, until both answers are of the same revision: kube-apiserver
// itself still changes some objects after they were made.
func (w *world) compare(ctx context.Context, writer *Writer, s Stub, namespace string) (compared, error) {
	gv, err := schema.ParseGroupVersion(s.APIVersion())
	if err != nil {
		return compared{}, err
	}
	converted := !writer.Serves(gv.WithResource(s.Resource))
	if converted {
		gv = s.GroupVersion()
	}
	resource := s.Resource // kubectl has no longer word for the group without a name
	if gv.Group != "" {
		resource = strings.Join([]string{s.Resource, gv.Version, gv.Group}, ".")
	}
	line := compared{apiVersion: s.APIVersion(), key: s.Key}
	for {
		shown, right, err := ask(ctx, w.kubectl, "get", resource, s.Object.GetName(), "-n", namespace, "-o", "json", "--show-managed-fields")
		if err != nil {
			return line, err
		}
		line.kind = fmt.Sprint(shown["kind"])
		stored, left, err := ask(ctx, w.kvctl, "get", s.Key, "-o", "json", "--show-managed-fields")
		if err != nil && unknown[s.APIVersion()] != "" {
			line.result = unknown[s.APIVersion()]
			return line, nil
		}
		if err != nil {
			return line, err
		}
		if converted {
			line.result = "this version is not served; in " + gv.Version + ", what is said of the object itself (metadata) is equal"
			stored, shown = part(stored, "metadata"), part(shown, "metadata")
		}
		diffs := Differences(stored, shown)
		if slices.ContainsFunc(diffs, func(d Difference) bool { return d.Path == ".metadata.resourceVersion" }) && ctx.Err() == nil {
			continue
		}
		line.judge(diffs, left == right)
		return line, nil
	}
}

func part(o map[string]any, name string) map[string]any { return map[string]any{name: o[name]} }

// judge sorts differences into those that are known and those that are wrong.
func (l *compared) judge(diffs []Difference, sameText bool) {
	for _, d := range diffs {
		if why := known[l.kind+d.Path]; why == "" {
			l.wrong = append(l.wrong, d)
		} else {
			l.result = "equal but for " + why
		}
	}
	switch {
	case len(l.wrong) > 0:
		l.result = fmt.Sprintf("differs in %d places", len(l.wrong))
	case l.result != "":
	case sameText:
		l.result = "equal, to the byte"
	default:
		l.result = "equal"
	}
}

// tool is kubectl or kvctl.
type tool interface {
	Run(ctx context.Context, stdin string, args ...string) (Printed, error)
}

// warnings are what kubectl says of a version that will go.
var warnings = regexp.MustCompile(`(?m)^Warning: .*\n`)

// ask has a tool print an object.
func ask(ctx context.Context, from tool, args ...string) (map[string]any, string, error) {
	p, err := from.Run(ctx, "", args...)
	if said := warnings.ReplaceAllString(p.Stderr, ""); err == nil && p.Code+len(said) != 0 {
		err = fmt.Errorf("exit code %d: %s", p.Code, p.Stderr)
	}
	var o map[string]any
	if err == nil {
		o, err = Parse(p.Stdout)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return o, p.Stdout, err
}

// table is the report's.
func table(lines []compared) string {
	var b strings.Builder
	b.WriteString("| kind | stored as | key | `-o json` | `-o wide` |\n|---|---|---|---|---|\n")
	for _, l := range lines {
		fmt.Fprintf(&b, "| %s | %s | `%s` | %s | %s |\n", l.kind, l.apiVersion, l.key, l.result, l.columns)
	}
	return b.String()
}
