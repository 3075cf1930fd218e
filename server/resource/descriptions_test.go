package resource

import (
	"strings"
	"testing"

	"github.com/keelson-io/keelson/api/kinds"
)

func TestDescriptions(t *testing.T) {
	policy := descriptions()["io.k8s.api.core.v1.PodSpec restartPolicy"]
	if !strings.HasPrefix(policy.text, "Restart policy for all containers") || len(policy.values) != 3 || policy.required {
		t.Errorf("%+v", policy)
	}
	if !descriptions()["io.k8s.api.core.v1.PodSpec containers"].required {
		t.Error("a pod needs no containers")
	}
	for _, k := range builtinKinds() {
		if k.Layout != nil && descriptions()[k.Layout.Name].text == "" && k.Layout != kinds.Lookup("apiregistration.k8s.io/v1", "APIService") {
			t.Errorf("nothing is said of %s", k.Layout.Name)
		}
	}
	for _, k := range builtinKinds() {
		for _, c := range k.columns() {
			if c.Description == "" && k.Name != "APIService" && k.Name != "RuntimeClass" {
				t.Errorf("nothing is said of the column %s of %s", c.Name, k.Name)
			}
		}
	}
	for _, bad := range []string{"text \"a", "message io.a 7", "text \"a\"\nmessage io.a 0\nf 0 a", "text \"a\"\nf x"} {
		if d, err := readDescriptions(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read as %v", bad, d)
		}
	}
}
