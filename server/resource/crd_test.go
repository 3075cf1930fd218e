package resource_test

import (
	"fmt"
	"testing"

	"github.com/keelson-io/keelson/server/resource/object"
)

const (
	definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	widgets     = "/apis/demo.io/v1/namespaces/default/widgets"
)

const widgetDefinition = `{"metadata":{"name":"widgets.demo.io"},"spec":{"group":"demo.io","scope":"Namespaced",
 "names":{"plural":"widgets","kind":"Widget","shortNames":["wd"]},
 "versions":[{"name":"v1","served":true,"storage":true,
  "schema":{"openAPIV3Schema":{"type":"object","properties":{
   "spec":{"type":"object","required":["size"],"properties":{"size":{"type":"integer","minimum":1},"color":{"type":"string","enum":["red","green"],"default":"red"},"replicas":{"type":"integer"}}},
   "status":{"type":"object","properties":{"replicas":{"type":"integer"},"phase":{"type":"string"}}}}}},
  "subresources":{"status":{},"scale":{"specReplicasPath":".spec.replicas","statusReplicasPath":".status.replicas"}},
  "selectableFields":[{"jsonPath":".spec.color"}],
  "additionalPrinterColumns":[{"name":"Size","type":"integer","jsonPath":".spec.size"}]},
  {"name":"v1beta1","served":true,"storage":false,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`

// TestDefinitions serves a kind that is defined at run time, and forgets it.
func TestDefinitions(t *testing.T) {
	m := newMember(t)
	m.refused(404, "", "GET", widgets, nil)
	m.must("POST", definitions, widgetDefinition)
	widget := func(name, spec string) string {
		return fmt.Sprintf(`{"apiVersion":"demo.io/v1","kind":"Widget","metadata":{"name":%q},"spec":%s,"status":{"phase":"mine"}}`, name, spec)
	}
	a := m.must("POST", widgets, widget("a", `{"size":2,"nonsense":true}`))
	if a.str("spec", "color") != "red" || object.Get(a.body, "spec", "nonsense") != nil || a.str("status", "phase") != "" {
		t.Errorf("defaults, pruning, status: %s", a.raw)
	}
	m.must("POST", widgets, widget("b", `{"size":2,"color":"green"}`))
	for _, spec := range []string{`{}`, `{"size":"2"}`, `{"size":0}`, `{"size":2,"color":"blue"}`, `[]`} {
		m.refused(422, "Invalid", "POST", widgets, widget("c", spec))
	}
	m.refused(400, "BadRequest", "POST", widgets+"?fieldValidation=Strict", widget("c", `{"size":2,"nonsense":true}`))
	m.refused(400, "BadRequest", "POST", widgets, `{"metadata":{"name":"c"},"spec":{"size":1}}`)
	if l := m.must("GET", widgets+"?fieldSelector=spec.color%3Dgreen", nil); fmt.Sprint(l.items()) != "[b]" {
		t.Errorf("by color: %v", l.items())
	}
	// The status is written by itself, and counts no generation.
	s := m.must("PATCH", widgets+"/a/status", typed{"application/merge-patch+json", []byte(`{"spec":{"size":9},"status":{"phase":"ready","replicas":4}}`)})
	if n, _ := object.Int(s.body, "spec", "size"); n != 2 || s.str("status", "phase") != "ready" || s.str2("metadata", "generation") != "1" {
		t.Errorf("status: %s", s.raw)
	}
	s = m.must("PATCH", widgets+"/a", typed{"application/merge-patch+json", []byte(`{"spec":{"size":9},"status":{"phase":"mine"}}`)})
	if s.str("status", "phase") != "ready" || s.str2("metadata", "generation") != "2" {
		t.Errorf("spec: %s", s.raw)
	}
	scale := m.must("PATCH", widgets+"/a/scale", typed{"application/merge-patch+json", []byte(`{"spec":{"replicas":5}}`)})
	if scale.str2("spec", "replicas") != "5" || scale.str2("status", "replicas") != "4" {
		t.Errorf("scale: %s", scale.raw)
	}
	if other := m.must("GET", "/apis/demo.io/v1beta1/namespaces/default/widgets/a", nil); other.str("apiVersion") != "demo.io/v1beta1" {
		t.Errorf("another version: %s", other.raw)
	}
	table := m.must("GET", widgets, nil, "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	if n := len(object.List(table.body, "rows")); table.str("kind") != "Table" || n != 2 {
		t.Errorf("table: %s", table.raw)
	}
	w := m.watch(widgets + "?watch=true&resourceVersion=0")
	w.expect("ADDED a", "ADDED b")
	m.must("DELETE", definitions+"/widgets.demo.io", nil)
	w.expect("DELETED a", "DELETED b")
	m.eventually("the kind goes", func() bool { return m.do("GET", definitions+"/widgets.demo.io", nil).code == 404 })
	m.eventually("nobody serves it", func() bool { return m.do("GET", widgets, nil).code == 404 })
	w.ends()
	m.refused(422, "Invalid", "POST", definitions, `{"metadata":{"name":"wrong"},"spec":{"group":"demo.io","scope":"Namespaced","names":{"plural":"widgets","kind":"Widget"},"versions":[]}}`)
}
