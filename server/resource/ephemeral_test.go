package resource_test

import (
	"strings"
	"testing"

	"github.com/keelson-io/keelson/server/resource/object"
)

// TestEphemeralContainers join a pod through their subresource, and stay.
func TestEphemeralContainers(t *testing.T) {
	m := newMember(t)
	m.must("POST", pods, `{"metadata":{"name":"p"},`+podSpec+`}`)
	const path = pods + "/p/ephemeralcontainers"
	add := func(c string) answer {
		return m.do("PATCH", path, `{"spec":{"nodeName":"other","ephemeralContainers":[`+c+`]}}`, "Content-Type", "application/strategic-merge-patch+json")
	}
	a := add(`{"name":"debug","image":"busybox","stdin":true,"targetContainerName":"c"}`)
	if a.code != 200 || a.str("spec", "nodeName") != "" || len(object.List(a.body, "spec", "ephemeralContainers")) != 1 {
		t.Fatalf("%d %s", a.code, a.raw)
	}
	if n, _ := object.Int(a.body, "metadata", "generation"); n != 2 || !strings.Contains(string(a.raw), `"imagePullPolicy":"Always"`) {
		t.Errorf("%s", a.raw)
	}
	for c, want := range map[string]string{
		`{"name":"debug","image":"other"}`:                              `existing ephemeral containers "debug" may not be changed`,
		`{"name":"c","image":"i"}`:                                      "Duplicate value",
		`{"name":"d","image":"i","targetContainerName":"none"}`:         "Not found",
		`{"name":"d","image":"i","ports":[{"containerPort":1}]}`:        "cannot be set for an Ephemeral Container",
		`{"name":"d","image":"i"},{"$patch":"delete","name":"debug"}`:   "may not be removed",
		`{"name":"d","image":"i","resources":{"requests":{"cpu":"1"}}}`: "cannot be set for an Ephemeral Container",
		`{"name":"d"}`: "Required value",
	} {
		if a := add(c); a.code != 422 || !strings.Contains(a.str("message"), want) {
			t.Errorf("%s: %d %s", c, a.code, a.raw)
		}
	}
	m.refused(422, "Invalid", "POST", pods, `{"metadata":{"name":"q"},"spec":{"containers":[{"name":"c","image":"i"}],"ephemeralContainers":[{"name":"d","image":"i"}]}}`)
	if got := m.must("GET", path, nil); len(object.List(got.body, "spec", "ephemeralContainers")) != 1 {
		t.Errorf("%s", got.raw)
	}
}
