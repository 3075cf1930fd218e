package resource_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/keelson-io/keelson/server/resource/object"
)

// TestWatch follows objects that enter and leave a selection.
func TestWatch(t *testing.T) {
	m := newMember(t)
	first := m.must("POST", configmaps, configmap("a", "on", "1"))
	all := m.watch(configmaps + "?watch=true&resourceVersion=" + first.rv())
	some := m.watch(configmaps + "?watch=true&labelSelector=on%3D1&resourceVersion=0")
	some.expect("ADDED a")
	m.must("POST", configmaps, configmap("b"))
	b := m.must("PUT", configmaps+"/b", configmap("b", "on", "1"))
	m.must("PUT", configmaps+"/b", func() object.Object {
		o := configmap("b", "on", "1")
		o["data"] = object.Object{"x": "y"}
		return o
	}())
	left := m.must("PUT", configmaps+"/b", configmap("b"))
	m.must("DELETE", configmaps+"/a", nil)
	all.expect("ADDED b", "MODIFIED b", "MODIFIED b", "MODIFIED b", "DELETED a")
	some.expect("ADDED b", "MODIFIED b")
	// Who leaves a selection is shown as it was, at the revision of its leaving.
	gone := some.expect("DELETED b")
	if rv := object.String(gone.Object, "metadata", "resourceVersion"); rv != left.rv() || object.String(gone.Object, "data", "x") != "y" {
		t.Errorf("%v, want revision %s", gone.Object, left.rv())
	}
	some.expect("DELETED a")

	// From an old revision on everything comes again.
	m.watch(configmaps+"?watch=true&resourceVersion="+b.rv()).expect("MODIFIED b", "MODIFIED b", "DELETED a")
}

// TestWatchList begins with what is there and says where that ends.
func TestWatchList(t *testing.T) {
	m := newMember(t)
	for i := range 3 {
		m.must("POST", configmaps, configmap(fmt.Sprint("c", i)))
	}
	w := m.watch(configmaps + "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=4")
	w.expect("ADDED c0", "ADDED c1", "ADDED c2")
	end := w.expect("BOOKMARK")
	if object.String(end.Object, "metadata", "annotations", "k8s.io/initial-events-end") != "true" {
		t.Errorf("%v", end.Object)
	}
	m.must("POST", configmaps, configmap("c3"))
	m.must("POST", "/api/v1/namespaces/default/secrets", `{"metadata":{"name":"s"}}`)
	w.expect("ADDED c3")
	// Before its end a watch tells how far it is, although only others changed.
	last := w.expect("BOOKMARK")
	if version(last) <= version(end) {
		t.Errorf("the last bookmark is at %d, the first at %d", version(last), version(end))
	}
	w.ends()
	m.refused(422, "Invalid", "GET", configmaps+"?watch=true&sendInitialEvents=true", nil)
}

func version(e event) int {
	n, _ := strconv.Atoi(object.String(e.Object, "metadata", "resourceVersion"))
	return n
}
