package kube

import (
	"context"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// TestKvctl: what kvctl prints of an object is what kubectl prints, to the byte,
// for every kind that is stored in a version that is served, but for what is
// known to differ.
func TestKvctl(t *testing.T) {
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
	for _, s := range all.Stubs {
		gv, err := schema.ParseGroupVersion(s.APIVersion())
		if err != nil {
			t.Fatal(err)
		}
		if refused[s.Key] != nil || unknown[s.APIVersion()] != "" || gv != s.GroupVersion() {
			continue // TestObjects looks at these
		}
		t.Run(strings.TrimPrefix(s.Key, "/registry/"), func(t *testing.T) {
			resource := s.Resource
			if gv.Group != "" {
				resource = strings.Join([]string{s.Resource, gv.Version, gv.Group}, ".")
			}
			for _, form := range []string{"json", "yaml", "name", "jsonpath={.metadata.uid} {.metadata.resourceVersion}"} {
				w.samePrinted(ctx, t, []string{"get", resource, s.Object.GetName(), "-n", all.Namespace, "-o", form}, []string{"get", s.Key, "-o", form})
			}
		})
	}
}

// samePrinted runs both until what they print is equal: kube-apiserver still
// changes some objects after they were made.
func (w *world) samePrinted(ctx context.Context, t *testing.T, kubectl, kvctl []string) {
	t.Helper()
	var theirs, ours Printed
	for try := 0; try < 5; try++ {
		var err error
		if theirs, err = w.kubectl.Run(ctx, "", kubectl...); err != nil {
			t.Fatal(err)
		}
		if ours, err = w.kvctl.Run(ctx, kvctl...); err != nil {
			t.Fatal(err)
		}
		ours.Stderr, theirs.Stderr = "", "" // kubectl passes warnings on
		if ours == theirs {
			return
		}
	}
	left, err := yaml.YAMLToJSON([]byte(ours.Stdout))
	if err != nil {
		t.Fatal(err)
	}
	right, err := yaml.YAMLToJSON([]byte(theirs.Stdout))
	if err != nil {
		t.Fatal(err)
	}
	if wrong, err := unexpected(string(left), string(right)); err == nil && len(wrong) == 0 {
		return
	}
	t.Errorf("%s\nours   %d %s\ntheirs %d %s", strings.Join(kvctl, " "), ours.Code, ours.Stdout, theirs.Code, theirs.Stdout)
}

// unexpected are the differences between two objects that are not known.
func unexpected(left, right string) ([]Difference, error) {
	a, err := Parse(left)
	if err != nil {
		return nil, err
	}
	b, err := Parse(right)
	if err != nil {
		return nil, err
	}
	line := compared{}
	line.kind, _ = a["kind"].(string)
	line.judge(Differences(a, b), false)
	return line.wrong, nil
}
