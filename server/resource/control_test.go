package resource_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/keelson-io/keelson/server/resource/object"
)

func owned(name, owner, uid string, more ...string) string {
	refs := ""
	for i, u := range append([]string{uid}, more...) {
		if i > 0 {
			refs += ","
		}
		refs += fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","name":%q,"uid":%q,"blockOwnerDeletion":true}`, owner, u)
	}
	return fmt.Sprintf(`{"metadata":{"name":%q,"ownerReferences":[%s]}}`, name, refs)
}

// TestGarbage deletes owners in the three ways.
func TestGarbage(t *testing.T) {
	m := newMember(t)
	secrets := "/api/v1/namespaces/default/secrets"
	gone := func(path string) func() bool { return func() bool { return m.do("GET", path, nil).code == 404 } }
	for _, policy := range []string{"Background", "Foreground", "Orphan"} {
		owner := m.must("POST", configmaps, configmap("owner")).str("metadata", "uid")
		m.must("POST", secrets, owned("child", "owner", owner))
		m.must("DELETE", configmaps+"/owner?propagationPolicy="+policy, nil)
		m.eventually(policy+": the owner goes", gone(configmaps+"/owner"))
		if policy == "Orphan" {
			if child := m.must("GET", secrets+"/child", nil); object.List(child.body, "metadata", "ownerReferences") != nil {
				t.Errorf("orphan: %s", child.raw)
			}
			continue
		}
		m.eventually(policy+": the child goes", gone(secrets+"/child"))
	}
	// Who has another owner stays, and forgets the one that is gone.
	a := m.must("POST", configmaps, configmap("a")).str("metadata", "uid")
	b := m.must("POST", configmaps, configmap("b")).str("metadata", "uid")
	m.must("POST", secrets, fmt.Sprintf(`{"metadata":{"name":"both","ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"a","uid":%q},{"apiVersion":"v1","kind":"ConfigMap","name":"b","uid":%q}]}}`, a, b))
	m.must("DELETE", configmaps+"/a", nil)
	m.eventually("one owner is forgotten", func() bool {
		return len(object.List(m.must("GET", secrets+"/both", nil).body, "metadata", "ownerReferences")) == 1
	})
	// An owner that never was: the object goes.
	m.must("POST", secrets, owned("stray", "nobody", "no-such-uid"))
	m.eventually("the stray goes", gone(secrets+"/stray"))
}

// TestFinalizers hold what is deleted until they are gone.
func TestFinalizers(t *testing.T) {
	m := newMember(t)
	m.must("POST", configmaps, `{"metadata":{"name":"a","finalizers":["demo.io/hold"]}}`)
	dying := m.must("DELETE", configmaps+"/a", nil)
	if dying.str("metadata", "deletionTimestamp") == "" || dying.str("kind") != "ConfigMap" {
		t.Fatalf("%s", dying.raw)
	}
	again := m.must("DELETE", configmaps+"/a", nil)
	if again.rv() != dying.rv() {
		t.Errorf("a second delete wrote: %s", again.raw)
	}
	patch := func(body string) answer {
		return m.do("PATCH", configmaps+"/a", typed{"application/merge-patch+json", []byte(body)})
	}
	if a := patch(`{"metadata":{"finalizers":["demo.io/hold","demo.io/more"]}}`); a.code != 422 {
		t.Errorf("a new finalizer on a dying object: %d %s", a.code, a.raw)
	}
	if a := patch(`{"metadata":{"finalizers":null,"deletionTimestamp":null}}`); a.code != 200 {
		t.Errorf("the last finalizer: %d %s", a.code, a.raw)
	}
	m.refused(404, "NotFound", "GET", configmaps+"/a", nil)
}

// TestNamespaces empties a namespace before it goes.
func TestNamespaces(t *testing.T) {
	m := newMember(t)
	m.must("POST", "/api/v1/namespaces", `{"metadata":{"name":"n"}}`)
	in := "/api/v1/namespaces/n/configmaps"
	m.must("POST", in, configmap("a"))
	m.must("POST", in, `{"metadata":{"name":"held","finalizers":["demo.io/hold"]}}`)
	m.must("DELETE", "/api/v1/namespaces/n", nil)
	if a := m.do("POST", in, configmap("b")); a.code != 403 {
		t.Errorf("into a dying namespace: %d %s", a.code, a.raw)
	}
	m.eventually("the namespace is emptied", func() bool { return m.do("GET", in+"/a", nil).code == 404 })
	if a := m.must("GET", "/api/v1/namespaces/n", nil); a.str("status", "phase") != "Terminating" {
		t.Errorf("%s", a.raw)
	}
	m.must("PATCH", in+"/held", typed{"application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)})
	m.eventually("the namespace goes", func() bool { return m.do("GET", "/api/v1/namespaces/n", nil).code == 404 })
	m.refused(403, "Forbidden", "DELETE", "/api/v1/namespaces/default", nil)
}

// TestQuota lets many creators at a quota at once: it holds, and is used up.
func TestQuota(t *testing.T) {
	m := newMember(t)
	const limit, creators = 7, 20
	quotas := "/api/v1/namespaces/default/resourcequotas"
	m.must("POST", quotas, fmt.Sprintf(`{"metadata":{"name":"q"},"spec":{"hard":{"configmaps":"%d","requests.cpu":"1"}}}`, limit))
	used := func() string { return m.must("GET", quotas+"/q", nil).str("status", "used", "configmaps") }
	m.eventually("the quota is counted", func() bool { return used() == "0" })
	var wait sync.WaitGroup
	codes := make([]int, creators)
	for i := range creators {
		wait.Go(func() { codes[i] = m.do("POST", configmaps, configmap(fmt.Sprint("c", i))).code })
	}
	wait.Wait()
	made := map[int]int{}
	for _, c := range codes {
		made[c]++
	}
	if made[201] != limit || made[403] != creators-limit || used() != fmt.Sprint(limit) {
		t.Errorf("made %v, used %s", made, used())
	}
	for _, name := range m.must("GET", configmaps, nil).items()[:3] {
		m.must("DELETE", configmaps+"/"+name, nil)
	}
	if used() != fmt.Sprint(limit-3) {
		t.Errorf("after three deletes %s are used", used())
	}
	pod := func(cpu string) int {
		return m.do("POST", "/api/v1/namespaces/default/pods", `{"metadata":{"generateName":"p-"},"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{`+cpu+`}}}]}}`).code
	}
	if got := []int{pod(`"cpu":"600m"`), pod(`"cpu":"600m"`), pod(``), pod(`"cpu":"0.4"`)}; fmt.Sprint(got) != "[201 403 403 201]" {
		t.Errorf("pods: %v", got)
	}
}
