package resource_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keelson-io/keelson/server/resource/object"
)

// TestApply lets two managers apply to one object, and a third one write to it.
func TestApply(t *testing.T) {
	m := newMember(t)
	path := "/apis/apps/v1/namespaces/default/deployments/web"
	apply := func(manager, query, spec string) answer {
		body := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":` + spec + `}`
		return m.do("PATCH", path+"?fieldManager="+manager+query, typed{"application/apply-patch+yaml", []byte(body)})
	}
	const base = `"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i:1"}]}}`
	made := apply("one", "", `{"replicas":2,`+base+`}`)
	if made.code != 201 {
		t.Fatalf("%d %s", made.code, made.raw)
	}
	if again := apply("one", "", `{"replicas":2,`+base+`}`); again.code != 200 || again.rv() != made.rv() {
		t.Errorf("the same again: %d %s", again.code, again.raw)
	}
	// Another one may add what nobody has, and not change what somebody has.
	if a := apply("two", "", `{"template":{"spec":{"containers":[{"name":"side","image":"s:1"}]}}}`); a.code != 200 || len(object.List(a.body, "spec", "template", "spec", "containers")) != 2 {
		t.Errorf("another container: %d %s", a.code, a.raw)
	}
	a := apply("two", "", `{"replicas":3}`)
	if a.code != 409 || a.reason() != "Conflict" || !strings.Contains(a.str("message"), `conflict with "one": .spec.replicas`) {
		t.Errorf("a conflict: %d %s", a.code, a.raw)
	}
	if a = apply("two", "&force=true", `{"replicas":3}`); a.str2("spec", "replicas") != "3" || len(object.List(a.body, "spec", "template", "spec", "containers")) != 1 {
		t.Errorf("by force, and the container given up: %s", a.raw)
	}
	// Who writes without applying owns what he wrote, too.
	m.must("PATCH", path+"?fieldManager=editor", typed{"application/merge-patch+json", []byte(`{"spec":{"paused":true}}`)})
	if a = apply("one", "", `{"paused":false,`+base+`}`); a.code != 409 || !strings.Contains(a.str("message"), `"editor" using apps/v1`) {
		t.Errorf("against an update: %d %s", a.code, a.raw)
	}
	if a = apply("", "", `{}`); a.code != 422 {
		t.Errorf("without a manager: %d", a.code)
	}
}

// TestApplyAfterClientSide: what kubectl applied on the client, and is still so, is
// no conflict for kubectl; for others it is.
func TestApplyAfterClientSide(t *testing.T) {
	m := newMember(t)
	const path = "/api/v1/namespaces/default/configmaps/a"
	m.must("POST", "/api/v1/namespaces/default/configmaps?fieldManager=kubectl-client-side-apply", `{"metadata":{"name":"a","annotations":{
		"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"},\"data\":{\"x\":\"1\",\"y\":\"1\"}}"}},"data":{"x":"1","y":"1"}}`)
	m.must("PATCH", path+"?fieldManager=editor", typed{"application/merge-patch+json", []byte(`{"data":{"y":"2"}}`)})
	apply := func(manager, data string) answer {
		return m.do("PATCH", path+"?fieldManager="+manager, typed{"application/apply-patch+yaml", []byte(`{"apiVersion":"v1","kind":"ConfigMap","data":` + data + `}`)})
	}
	if a := apply("other", `{"x":"3"}`); a.code != 409 {
		t.Errorf("another manager: %d %s", a.code, a.raw)
	}
	if a := apply("kubectl", `{"x":"3","y":"3"}`); a.code != 409 || strings.Contains(a.str("message"), ".data.x") {
		t.Errorf("what the editor wrote: %d %s", a.code, a.raw)
	}
	if a := apply("kubectl", `{"x":"3"}`); a.code != 200 || a.str2("data", "x") != "3" {
		t.Errorf("its own: %d %s", a.code, a.raw)
	}
	if a := apply("kubectl", `{"x":3}`); a.code != 500 || !strings.Contains(a.str("message"), "(/; /v1, Kind=ConfigMap): .data.x: expected string") {
		t.Errorf("of another type: %d %s", a.code, a.raw)
	}
}

// TestTypes: values that a kind's type does not take are refused, and what it does
// not have is gone.
func TestTypes(t *testing.T) {
	m := newMember(t)
	const all = "/api/v1/namespaces/default/configmaps"
	if a := m.do("POST", all, `{"metadata":{"name":"a"},"data":{"x":1}}`); a.code != 400 || !strings.Contains(a.str("message"), "cannot unmarshal number into Go struct field ConfigMap.data of type string") {
		t.Errorf("a number: %d %s", a.code, a.raw)
	}
	if a := m.do("POST", all, `{"metadata":{"name":"a"},"data":{"x":"1"},"other":true}`); a.code != 201 || a.body["other"] != nil {
		t.Errorf("an unknown field: %d %s", a.code, a.raw)
	}
	if a := m.do("PATCH", all+"/a", typed{"application/merge-patch+json", []byte(`{"data":{"x":1}}`)}); a.code != 422 || !strings.Contains(a.str("message"), "patch: Invalid value") {
		t.Errorf("a patch: %d %s", a.code, a.raw)
	}
	if a := m.do("POST", "/apis/apps/v1/namespaces/default/deployments", `{"metadata":{"name":"a"},"spec":{"replicas":-1}}`); a.code != 422 {
		t.Errorf("fewer than none: %d %s", a.code, a.raw)
	}
}

// TestAccountFollowsWrites: whose fields are which is true after each write, whether it adds
// fields to a manager's, takes them away or leaves them as they are.
func TestAccountFollowsWrites(t *testing.T) {
	m := newMember(t)
	m.must("POST", configmaps+"?fieldManager=one", `{"metadata":{"name":"a"},"data":{"k":"v"}}`)
	for _, step := range []struct{ by, data, want string }{
		{"one", `{"l":"v"}`, "one: k l"},
		{"one", `{"l":"w"}`, "one: k l"},
		{"two", `{"m":"v"}`, "one: k l, two: m"},
		{"two", `{"k":"w"}`, "one: l, two: k m"},
		{"one", `{"m":null}`, "one: l, two: k"},
		{"one", `{"l":null}`, "two: k"},
	} {
		res := m.must("PATCH", configmaps+"/a?fieldManager="+step.by, merged(`{"data":`+step.data+`}`))
		var account []string
		for _, v := range object.List(res.body, "metadata", "managedFields") {
			e := v.(object.Object)
			line := object.String(e, "manager") + ":"
			for name := range object.Sorted(object.Map(e, "fieldsV1", "f:data")) {
				if name != "." {
					line += " " + strings.TrimPrefix(name, "f:")
				}
			}
			if strings.Contains(line, " ") {
				account = append(account, line)
			}
		}
		slices.Sort(account)
		if got := strings.Join(account, ", "); got != step.want {
			t.Errorf("after %s wrote %s: %s, want %s", step.by, step.data, got, step.want)
		}
	}
}

// TestManyManagers keeps account of the newest updaters, and of older ones together.
func TestManyManagers(t *testing.T) {
	m := newMember(t)
	m.must("POST", configmaps+"?fieldManager=first", configmap("a"))
	for i := range 15 {
		m.must("PATCH", configmaps+fmt.Sprintf("/a?fieldManager=m%02d", i), merged(fmt.Sprintf(`{"data":{"k%02d":"v"}}`, i)))
	}
	fields, managers := 0, map[string]bool{}
	for _, v := range object.List(m.must("GET", configmaps+"/a", nil).body, "metadata", "managedFields") {
		e := v.(object.Object)
		managers[object.String(e, "manager")] = true
		for name := range object.Map(e, "fieldsV1", "f:data") {
			if name != "." {
				fields++
			}
		}
	}
	made := m.must("POST", deployments+"?fieldManager=f", `{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},`+podSpec+`}}}`)
	for _, v := range object.List(made.body, "metadata", "managedFields") {
		if spec := object.Map(v.(object.Object), "fieldsV1", "f:spec"); spec["."] != nil || object.Get(spec, "f:template", ".") != nil || object.Get(spec, "f:template", "f:metadata", "f:labels", ".") == nil {
			t.Errorf("structures that are always there: %v", spec)
		}
	}
	if len(managers) != 10 || !managers["ancient-changes"] || fields != 15 {
		t.Errorf("%d fields of %v", fields, managers)
	}
}
