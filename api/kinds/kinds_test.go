package kinds

import (
	"testing"
)

func TestResourcesAreKinds(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Resources() {
		if Lookup(r.APIVersion(), r.Kind) == nil {
			t.Errorf("%s: the table has no %s %s", r.Name, r.APIVersion(), r.Kind)
		}
		if ByKind(r.APIVersion(), r.Kind) != r || ByName(r.Group, r.Name) != r {
			t.Errorf("%s of %q stands twice", r.Name, r.Group)
		}
		if seen[r.Prefix] && r.Group != "events.k8s.io" && r.Prefix != "" {
			t.Errorf("two resources are stored below %s", r.Prefix)
		}
		seen[r.Prefix] = true
	}
	if r := ByPrefix("services/specs"); r == nil || r.Kind != "Service" || r.Key("/registry", "a", "b") != "/registry/services/specs/a/b" {
		t.Errorf("services/specs: %+v", r)
	}
}

func TestTable(t *testing.T) {
	pod := Lookup("v1", "Pod")
	containers := pod.Field("spec").Message.Field("containers")
	if containers.PatchStrategy != "merge" || containers.MergeKey != "name" || containers.Merge != "map" || containers.MapKeys[0] != "name" {
		t.Errorf("containers: %+v", containers)
	}
	if f := pod.Field("spec").Message.Field("volumes").Message.Field("hostPath"); f == nil || f.Message == nil {
		t.Errorf("an inlined field cannot be found: %+v", f)
	}
	if Lookup("apps/v1", "DeleteOptions") == nil || Lookup("v1", "Widget") != nil {
		t.Error("kinds of every group")
	}
}
