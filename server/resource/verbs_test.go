package resource_test

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/keelson-io/keelson/server/resource/object"
)

// TestWrites follows one object through its writes.
func TestWrites(t *testing.T) {
	m := newMember(t)
	made := m.must("POST", configmaps, `{"metadata":{"name":"a","uid":"mine","creationTimestamp":"2001-01-01T00:00:00Z"},"data":{"x":"1"}}`)
	if made.code != 201 || made.str("metadata", "uid") == "mine" || made.str("metadata", "uid") == "" ||
		strings.HasPrefix(made.str("metadata", "creationTimestamp"), "2001") || made.str("kind") != "ConfigMap" {
		t.Fatalf("%d %s", made.code, made.raw)
	}
	m.refused(409, "AlreadyExists", "POST", configmaps, configmap("a"))
	m.refused(404, "NotFound", "GET", configmaps+"/b", nil)
	m.refused(404, "NotFound", "POST", "/api/v1/namespaces/nowhere/configmaps", configmap("a"))
	m.refused(422, "Invalid", "POST", configmaps, configmap("A_b"))
	m.refused(400, "BadRequest", "POST", configmaps, `{"kind":"Pod","metadata":{"name":"x"}}`)
	m.refused(400, "BadRequest", "POST", configmaps, `{"metadata":{"name":"x","namespace":"other"}}`)
	m.refused(415, "UnsupportedMediaType", "POST", configmaps, typed{"text/csv", []byte("a")})

	got := m.must("GET", configmaps+"/a", nil)
	if string(got.raw) != string(made.raw) {
		t.Errorf("read %s, wrote %s", got.raw, made.raw)
	}
	// A write that changes nothing makes no revision, under any version.
	same := m.must("PUT", configmaps+"/a", got.raw2())
	if same.rv() != got.rv() {
		t.Errorf("a write of nothing: %s, was %s", same.rv(), got.rv())
	}
	object.Set(got.body, "2", "data", "x")
	changed := m.must("PUT", configmaps+"/a", got.body)
	if changed.rv() == got.rv() || changed.str("data", "x") != "2" || changed.str("metadata", "uid") != made.str("metadata", "uid") {
		t.Errorf("%s", changed.raw)
	}
	m.refused(409, "Conflict", "PUT", configmaps+"/a", got.body)
	object.Remove(got.body, "metadata", "resourceVersion")
	m.must("PUT", configmaps+"/a", got.body) // without a version any will do
	object.Set(got.body, "another", "metadata", "uid")
	m.refused(409, "Conflict", "PUT", configmaps+"/a", got.body)

	before := m.must("GET", configmaps+"/a", nil)
	m.must("POST", configmaps+"?dryRun=All", configmap("dry"))
	m.refused(404, "NotFound", "GET", configmaps+"/dry", nil)
	m.must("DELETE", configmaps+"/a?dryRun=All", nil)
	m.refused(409, "Conflict", "DELETE", configmaps+"/a", `{"preconditions":{"uid":"another"}}`)
	if after := m.must("GET", configmaps+"/a", nil); after.rv() != before.rv() {
		t.Errorf("something was written: %s", after.raw)
	}
	gone := m.must("DELETE", configmaps+"/a", `{"preconditions":{"uid":"`+before.str("metadata", "uid")+`"}}`)
	if gone.str("status") != "Success" || gone.str("details", "uid") != before.str("metadata", "uid") {
		t.Errorf("%s", gone.raw)
	}
	m.refused(404, "NotFound", "DELETE", configmaps+"/a", nil)
	named := m.must("POST", configmaps, `{"metadata":{"generateName":"g-"}}`)
	if name := named.str("metadata", "name"); len(name) != 7 || !strings.HasPrefix(name, "g-") {
		t.Errorf("generated %q", name)
	}
}

func (a answer) raw2() string { return string(a.raw) }

// TestPatches applies each type of patch.
func TestPatches(t *testing.T) {
	m := newMember(t)
	pods := "/api/v1/namespaces/default/pods"
	m.must("POST", pods, `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a","image":"a:1"},{"name":"b","image":"b:1"}]}}`)
	patch := func(media, body string) answer {
		return m.do("PATCH", pods+"/p", typed{"application/" + media, []byte(body)})
	}
	images := func(a answer) (out string) {
		for _, c := range object.List(a.body, "spec", "containers") {
			out += object.String(c.(object.Object), "name") + "=" + object.String(c.(object.Object), "image") + " "
		}
		return out
	}
	a := patch("strategic-merge-patch+json", `{"metadata":{"labels":{"l":"1"}},"spec":{"containers":[{"name":"b","image":"b:2"}]}}`)
	if images(a) != "a=a:1 b=b:2 " || a.str("metadata", "labels", "l") != "1" {
		t.Errorf("strategic: %s", a.raw)
	}
	if a = patch("json-patch+json", `[{"op":"replace","path":"/spec/containers/0/image","value":"a:3"}]`); images(a) != "a=a:3 b=b:2 " {
		t.Errorf("json: %s", a.raw)
	}
	if n, _ := object.Int(a.body, "metadata", "generation"); n != 3 {
		t.Errorf("generation %d", n)
	}
	if a = patch("json-patch+json", `[{"op":"test","path":"/spec/containers/0/image","value":"no"}]`); a.code != 422 {
		t.Errorf("json test: %d %s", a.code, a.raw)
	}
	if a = patch("merge-patch+json", `{"metadata":{"labels":{"l":null,"m":"2"}}}`); a.str("metadata", "labels", "l") != "" || a.str("metadata", "labels", "m") != "2" {
		t.Errorf("merge: %s", a.raw)
	}
	if a = patch("merge-patch+json", `{"metadata":{"resourceVersion":"1"}}`); a.code != 409 {
		t.Errorf("a patch that names a version: %d %s", a.code, a.raw)
	}
	if a = patch("nonsense", `{}`); a.code != 415 {
		t.Errorf("unknown patch: %d", a.code)
	}
}

// TestLists selects, pages and asks for old revisions.
func TestLists(t *testing.T) {
	m := newMember(t)
	var rv string
	for i := range 7 {
		rv = m.must("POST", configmaps, configmap(fmt.Sprint("c", i), "odd", strconv.FormatBool(i%2 == 1))).rv()
	}
	list := func(query string) answer { t.Helper(); return m.must("GET", configmaps+query, nil) }
	if a := list(""); len(a.items()) != 7 || a.rv() != rv || a.str("kind") != "ConfigMapList" {
		t.Errorf("%s", a.raw)
	} else if first, _ := object.List(a.body, "items")[0].(object.Object); first["kind"] != nil || first["apiVersion"] != nil {
		t.Errorf("objects of a built-in kind say their type in a list: %v", first)
	}
	for selector, want := range map[string]int{"odd=true": 3, "odd!=true": 4, "odd+in+(true,false)": 7, "!odd": 0, "odd": 7, "odd+notin+(true)": 4} {
		if a := list("?labelSelector=" + selector); len(a.items()) != want {
			t.Errorf("%s: %v", selector, a.items())
		}
	}
	if a := list("?fieldSelector=metadata.name%3Dc3"); !reflect.DeepEqual(a.items(), []string{"c3"}) {
		t.Errorf("by name: %v", a.items())
	}
	m.refused(400, "BadRequest", "GET", configmaps+"?fieldSelector=spec.no%3Dx", nil)
	m.refused(422, "Invalid", "GET", configmaps+"?resourceVersionMatch=Exact", nil)

	// Pages keep their revision while the collection changes.
	page := list("?limit=3")
	if n, _ := object.Int(page.body, "metadata", "remainingItemCount"); n != 4 || len(page.items()) != 3 {
		t.Fatalf("%s", page.raw)
	}
	m.must("DELETE", configmaps+"/c4", nil)
	m.must("POST", configmaps, configmap("c9"))
	names := page.items()
	for page.str("metadata", "continue") != "" {
		page = list("?limit=3&continue=" + page.str("metadata", "continue"))
		names = append(names, page.items()...)
		if page.rv() != rv {
			t.Errorf("a page of %s, want %s", page.rv(), rv)
		}
	}
	if fmt.Sprint(names) != "[c0 c1 c2 c3 c4 c5 c6]" {
		t.Errorf("pages: %v", names)
	}
	if a := list("?resourceVersion=" + rv + "&resourceVersionMatch=Exact"); len(a.items()) != 7 || a.rv() != rv {
		t.Errorf("exact: %s", a.raw)
	}
	list("") // from here on this member has what was written last
	if a := list("?resourceVersion=" + rv); len(a.items()) != 7 || a.rv() == rv {
		t.Errorf("not older: %s", a.raw)
	}
	if a := m.do("GET", configmaps+"?resourceVersion=999999", nil); a.code != 504 || a.hdr.Get("Retry-After") == "" {
		t.Errorf("the future: %d %s", a.code, a.raw)
	}
	climbing := base64.RawURLEncoding.EncodeToString([]byte(`{"v":"meta.k8s.io/v1","rv":5,"start":"../../secrets/x"}`))
	m.refused(400, "BadRequest", "GET", configmaps+"?limit=3&continue="+climbing, nil)

	if a := m.must("DELETE", configmaps+"?labelSelector=odd%3Dtrue", nil); len(a.items()) != 3 {
		t.Errorf("deleted %v", a.items())
	}
	if a := list(""); len(a.items()) != 4 {
		t.Errorf("left: %v", a.items())
	}
}

// TestJobsSelectTheirPods: a job's controller finds pods by the job's uid.
func TestJobsSelectTheirPods(t *testing.T) {
	m := newMember(t)
	job := m.must("POST", "/apis/batch/v1/namespaces/default/jobs", `{"metadata":{"name":"j"},"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}`)
	const label = "batch.kubernetes.io/controller-uid"
	if uid := job.str("metadata", "uid"); uid == "" || job.str("spec", "selector", "matchLabels", label) != uid || job.str("spec", "template", "metadata", "labels", label) != uid {
		t.Errorf("%s", job.raw)
	}
}

// TestFieldSelectors selects by the fields that kinds have.
func TestFieldSelectors(t *testing.T) {
	m := newMember(t)
	for i, more := range []string{`,"nodeName":"n1"`, `,"nodeName":"n2","restartPolicy":"Never"`, `,"hostNetwork":true`} {
		m.must("POST", pods, fmt.Sprintf(`{"metadata":{"name":"p%d"},"spec":{"containers":[{"name":"c","image":"i"}]%s}}`, i, more))
	}
	m.must("PATCH", pods+"/p1/status", merged(`{"status":{"phase":"Running"}}`))
	for selector, want := range map[string]string{
		"spec.nodeName=n1": "[p0]", "spec.nodeName!=n1": "[p1 p2]", "spec.nodeName=": "[p2]", "status.phase=Running": "[p1]",
		"spec.restartPolicy=Never,spec.nodeName=n2": "[p1]", "spec.hostNetwork=true": "[p2]", "spec.hostNetwork=false": "[p0 p1]",
		"spec.schedulerName=default-scheduler": "[p0 p1 p2]", "metadata.namespace=default,metadata.name=p2": "[p2]", "metadata.namespace=other": "[]",
	} {
		if got := fmt.Sprint(m.must("GET", "/api/v1/pods?fieldSelector="+url.QueryEscape(selector), nil).items()); got != want {
			t.Errorf("%s: %s, want %s", selector, got, want)
		}
	}
	w := m.watch("/api/v1/pods?watch=true&resourceVersion=0&fieldSelector=" + url.QueryEscape("spec.nodeName="))
	w.expect("ADDED p2")
	m.must("POST", pods+"/p2/binding", `{"metadata":{"name":"p2"},"target":{"name":"n3"}}`)
	w.expect("DELETED p2")
	m.refused(400, "BadRequest", "GET", pods+"?fieldSelector=spec.nodeName%3Ca", nil)
}

// TestNothingToDo: writes that change nothing make no revision.
func TestNothingToDo(t *testing.T) {
	m := newMember(t)
	made := m.must("POST", configmaps, `{"metadata":{"name":"a"},"data":{"x":"1"}}`)
	for media, body := range map[string]string{
		"merge-patch+json": `{"data":{"x":"1"}}`, "strategic-merge-patch+json": `{"data":{"x":"1"}}`,
		"json-patch+json": `[{"op":"replace","path":"/data/x","value":"1"}]`,
	} {
		if a := m.must("PATCH", configmaps+"/a", typed{"application/" + media, []byte(body)}); a.rv() != made.rv() {
			t.Errorf("%s: %s, was %s", media, a.rv(), made.rv())
		}
	}
	if a := m.must("PUT", configmaps+"/a", string(made.raw)); a.rv() != made.rv() {
		t.Errorf("PUT: %s, was %s", a.rv(), made.rv())
	}
	if list := m.must("GET", configmaps, nil); list.rv() != made.rv() {
		t.Errorf("the store is at %s, the last write at %s", list.rv(), made.rv())
	}
	m.refused(409, "Conflict", "DELETE", configmaps+"/a", `{"preconditions":{"resourceVersion":"1"}}`)
	m.refused(422, "Invalid", "DELETE", configmaps+"/a", `{"propagationPolicy":"Orphan","orphanDependents":true}`)
	m.must("DELETE", configmaps+"/a", `{"preconditions":{"resourceVersion":"`+made.rv()+`"}}`)
}
