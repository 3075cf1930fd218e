package resource_test

import (
	"strings"
	"testing"

	"github.com/keelson-io/keelson/server/resource/object"
)

// TestComponents asks how the store is, in the ways that kubectl and monitors do.
func TestComponents(t *testing.T) {
	m := newMember(t)
	const components = "/api/v1/componentstatuses"
	list := m.must("GET", components+"?limit=500", nil)
	if items := list.items(); list.str("kind") != "ComponentStatusList" || len(items) != 1 || items[0] != "etcd-0" || list.rv() != "" {
		t.Errorf("%s", list.raw)
	}
	one := m.must("GET", components+"/etcd-0", nil)
	condition, _ := object.List(one.body, "conditions")[0].(object.Object)
	if one.str("kind") != "ComponentStatus" || condition["type"] != "Healthy" || condition["status"] != "True" || condition["message"] != "ok" ||
		!strings.Contains(one.hdr.Get("Warning"), "v1 ComponentStatus is deprecated in v1.19+") {
		t.Errorf("%s %v", one.raw, one.hdr)
	}
	table := m.must("GET", components, nil, "Accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
	if !strings.Contains(string(table.raw), `"cells":["etcd-0","Healthy","ok",""]`) || !strings.Contains(string(table.raw), `"metadata":{},"columnDefinitions"`) {
		t.Errorf("%s", table.raw)
	}
	for selector, n := range map[string]int{"fieldSelector=metadata.name=etcd-0": 1, "fieldSelector=metadata.name=etcd-1": 0, "labelSelector=a": 0} {
		if a := m.must("GET", components+"?"+selector, nil); len(a.items()) != n {
			t.Errorf("%s: %s", selector, a.raw)
		}
	}
	m.refused(404, "NotFound", "GET", components+"/scheduler", nil)
	m.refused(405, "MethodNotAllowed", "GET", components+"?watch=true", nil)
	m.refused(405, "MethodNotAllowed", "POST", components, `{"metadata":{"name":"x"}}`)
	m.refused(405, "MethodNotAllowed", "DELETE", components+"/etcd-0", nil)
	if doc := m.must("GET", "/openapi/v3/api/v1", nil); object.Get(doc.body, "paths", components) != nil ||
		object.Get(doc.body, "paths", components+"/{name}", "get") == nil || object.Get(doc.body, "paths", components+"/{name}", "patch") != nil {
		t.Error("the document does not say what can be done with components")
	}
}
