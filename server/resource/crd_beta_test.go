package resource

import (
	"testing"

	"github.com/keelson-io/keelson/server/resource/object"
)

// TestModernDefinition: a definition as a kube-apiserver stores it defines what it
// would if it were of v1.
func TestModernDefinition(t *testing.T) {
	stored := `{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1beta1","metadata":{"name":"widgets.demo.io"},
		"spec":{"group":"demo.io","version":"v1","names":{"plural":"widgets","kind":"Widget"},"scope":"Namespaced","preserveUnknownFields":false,
		"validation":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object"}}}},"subresources":{"status":{}},
		"additionalPrinterColumns":[{"name":"Size","type":"integer","JSONPath":".spec.size"}],
		"versions":[{"name":"v1","served":true,"storage":true}],"conversion":{"strategy":"None"}}}`
	got, err := storedJSON([]byte(stored))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"widgets.demo.io"},` +
		`"spec":{"conversion":{"strategy":"None"},"group":"demo.io","names":{"kind":"Widget","plural":"widgets"},"scope":"Namespaced",` +
		`"versions":[{"additionalPrinterColumns":[{"jsonPath":".spec.size","name":"Size","type":"integer"}],"name":"v1",` +
		`"schema":{"openAPIV3Schema":{"properties":{"spec":{"type":"object"}},"type":"object"}},"served":true,"storage":true,"subresources":{"status":{}}}]}}`
	if string(got) != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	crd, _, err := object.Decode(got)
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := definedKinds(crd)
	if err != nil || len(kinds) != 1 || kinds[0].Schema == nil || !kinds[0].Status {
		t.Errorf("%v, %v: want a kind with a schema and a status", kinds, err)
	}
	modern := []byte(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","spec":{}}`)
	if got, err := storedJSON(modern); err != nil || string(got) != string(modern) {
		t.Errorf("%s, %v", got, err)
	}
}

// TestModernAutoscaler: an autoscaler that was stored as v1 is read as it would be of v2.
func TestModernAutoscaler(t *testing.T) {
	stored := `{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v1","metadata":{"name":"a","annotations":{"autoscaling.alpha.kubernetes.io/conditions":` +
		`"[{\"type\":\"AbleToScale\",\"status\":\"True\",\"lastTransitionTime\":null}]"}},` +
		`"spec":{"scaleTargetRef":{"kind":"Deployment","name":"web"},"maxReplicas":5,"targetCPUUtilizationPercentage":70},"status":{"currentReplicas":1,"desiredReplicas":2}}`
	want := `{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"a"},"spec":{"maxReplicas":5,` +
		`"metrics":[{"resource":{"name":"cpu","target":{"averageUtilization":70,"type":"Utilization"}},"type":"Resource"}],"scaleTargetRef":{"kind":"Deployment","name":"web"}},` +
		`"status":{"conditions":[{"lastTransitionTime":null,"status":"True","type":"AbleToScale"}],"currentMetrics":null,"currentReplicas":1,"desiredReplicas":2}}`
	if got, err := storedJSON([]byte(stored)); err != nil || string(got) != want {
		t.Errorf("%s, %v, want\n%s", got, err, want)
	}
	for _, other := range []string{want, `{"apiVersion":"autoscaling/v1","kind":"Other","metadata":{}}`} {
		if got, err := storedJSON([]byte(other)); err != nil || string(got) != other {
			t.Errorf("%s, %v", got, err)
		}
	}
}

// TestServedVersion: an object is shown in the version that was asked for, whatever
// version it was stored in.
func TestServedVersion(t *testing.T) {
	apps := &Kind{Group: "apps", Version: "v1"}
	for in, want := range map[string]string{
		`{"apiVersion":"apps/v1","kind":"D"}`:      `{"apiVersion":"apps/v1","kind":"D"}`,
		`{"apiVersion":"apps/v1beta1","kind":"D"}`: `{"apiVersion":"apps/v1","kind":"D"}`,
		`{"kind":"D","apiVersion":"apps/v1"}`:      `{"kind":"D","apiVersion":"apps/v1"}`,
	} {
		if got := apps.versioned([]byte(in)); string(got) != want {
			t.Errorf("%s is shown as %s, want %s", in, got, want)
		}
	}
	if core := (&Kind{Version: "v1"}); !core.names([]byte(`{"apiVersion":"v1","kind":"P"}`)) || core.names([]byte(`{"apiVersion":"v1beta1"`)) {
		t.Error("the group without a name")
	}
}
