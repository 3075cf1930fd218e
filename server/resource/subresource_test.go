package resource_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/keelson-io/keelson/server/resource/object"
)

func (a answer) cause() string {
	for _, v := range object.List(a.body, "details", "causes") {
		return object.String(v.(object.Object), "message")
	}
	return ""
}

// TestBinding gives a pod to a node, once.
func TestBinding(t *testing.T) {
	m := newMember(t)
	made := m.must("POST", pods, `{"metadata":{"name":"p"},`+podSpec+`}`)
	bind := func(more, node string) answer {
		return m.do("POST", pods+"/p/binding", `{"metadata":{"name":"p"`+more+`},"target":{"kind":"Node","name":"`+node+`"}}`)
	}
	if a := bind(`,"uid":"another"`, "n"); a.code != 409 || a.reason() != "Conflict" {
		t.Errorf("another pod: %d %s", a.code, a.raw)
	}
	if a := bind("", ""); a.code != 500 {
		t.Errorf("no node: %d %s", a.code, a.raw)
	}
	m.refused(400, "BadRequest", "POST", pods+"/p/binding", `{"metadata":{"name":"q"},"target":{"name":"n"}}`)
	if a := bind(`,"uid":"`+made.str("metadata", "uid")+`","annotations":{"a":"1"}`, "n"); a.code != 201 || a.str("status") != "Success" {
		t.Fatalf("%d %s", a.code, a.raw)
	}
	bound := m.must("GET", pods+"/p", nil)
	conditions := object.List(bound.body, "status", "conditions")
	if bound.str("spec", "nodeName") != "n" || bound.str("metadata", "annotations", "a") != "1" || len(conditions) != 1 ||
		object.String(conditions[0].(object.Object), "type") != "PodScheduled" {
		t.Errorf("%s", bound.raw)
	}
	if a := bind("", "m"); a.code != 409 || a.str("message") != `Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n"` {
		t.Errorf("bound already: %d %s", a.code, a.raw)
	}
	m.must("POST", pods, `{"metadata":{"name":"gated"},"spec":{"schedulingGates":[{"name":"g"}],"containers":[{"name":"c","image":"i"}]}}`)
	m.refused(409, "Conflict", "POST", pods+"/gated/binding", `{"metadata":{"name":"gated"},"target":{"name":"n"}}`)
}

// TestNamedBinding binds a pod as schedulers did before pods had a subresource for it.
func TestNamedBinding(t *testing.T) {
	m := newMember(t)
	const bindings = "/api/v1/namespaces/default/bindings"
	m.must("POST", pods, `{"metadata":{"name":"p"},`+podSpec+`}`)
	m.refused(405, "MethodNotAllowed", "GET", bindings, nil)
	m.refused(404, "NotFound", "POST", bindings, `{"metadata":{"name":"missing"},"target":{"name":"n"}}`)
	m.refused(400, "BadRequest", "POST", bindings, `{"metadata":{"name":"p","namespace":"other"},"target":{"name":"n"}}`)
	if a := m.do("POST", bindings, `{"metadata":{"name":"p"},"target":{"kind":"Rack"}}`); a.code != 500 ||
		a.str("message") != `[target.kind: Unsupported value: "Rack": supported values: "Node", "<empty>", target.name: Required value]` {
		t.Errorf("%d %s", a.code, a.raw)
	}
	m.must("POST", bindings+"?dryRun=All", `{"metadata":{"name":"p"},"target":{"name":"n"}}`)
	a := m.must("POST", bindings, `{"metadata":{"name":"p","uid":"of another"},"target":{"kind":"Node","name":"n"}}`)
	if bound := m.must("GET", pods+"/p", nil); a.code != 201 || a.str("status") != "Success" || bound.str("spec", "nodeName") != "n" || bound.str2("metadata", "generation") != "1" {
		t.Errorf("%s\n%s", a.raw, bound.raw)
	}
	m.refused(409, "Conflict", "POST", bindings, `{"metadata":{"name":"p"},"target":{"name":"n"}}`)
}

const violates = "Cannot evict pod as it would violate the pod's disruption budget."

func (m *member) evict(pod string) answer {
	return m.do("POST", pods+"/"+pod+"/eviction", eviction(pod, ""))
}

// allow writes the status of the budget b.
func (m *member) allow(status string) {
	m.t.Helper()
	m.must("PATCH", budgets+"/b/status", merged(`{"status":`+status+`}`))
}

// wants compares a failure with its text and its first cause.
func (a answer) wants(t *testing.T, code int, message, cause string) {
	t.Helper()
	if a.code != code || a.str("message") != message || a.cause() != cause {
		t.Errorf("%d %q %q, want %d %q %q", a.code, a.str("message"), a.cause(), code, message, cause)
	}
}

// TestEvictionRefusals asks for evictions that a budget does not allow, in the
// words of a kube-apiserver, and for some that no budget can hold up.
func TestEvictionRefusals(t *testing.T) {
	m := newMember(t)
	m.running("p0", "True")
	want := func(a answer, code int, message, cause string) { t.Helper(); a.wants(t, code, message, cause) }
	m.refused(404, "NotFound", "POST", pods+"/none/eviction", eviction("none", ""))
	m.refused(400, "BadRequest", "POST", pods+"/p0/eviction", eviction("p1", ""))
	m.refused(422, "Invalid", "POST", pods+"/p0/eviction", eviction("p0", `{"propagationPolicy":"Some"}`))
	m.refused(409, "Conflict", "POST", pods+"/p0/eviction", eviction("p0", `{"preconditions":{"resourceVersion":"1"}}`))

	m.budget("b", `{"disruptionsAllowed":0}`)
	a := m.evict("p0")
	want(a, 429, violates, "The disruption budget b is still being processed by the server.")
	if a.hdr.Get("Retry-After") != "10" {
		t.Errorf("Retry-After %q", a.hdr.Get("Retry-After"))
	}
	m.allow(`{"observedGeneration":1,"currentHealthy":6,"desiredHealthy":6}`)
	want(m.evict("p0"), 429, violates, "The disruption budget b needs 6 healthy pods and has 6 currently")
	m.allow(`{"currentHealthy":7,"conditions":[{"type":"DisruptionAllowed","status":"False","reason":"SyncFailed","message":"why"}]}`)
	want(m.evict("p0"), 429, violates, "The disruption budget b does not allow evicting pods currently because it failed sync: why")
	m.allow(`{"conditions":null}`)
	want(m.evict("p0"), 429, violates, "The disruption budget b does not allow evicting pods currently")
	m.allow(`{"disruptionsAllowed":-1}`)
	want(m.evict("p0"), 403, `poddisruptionbudget.policy "b" is forbidden: pdb disruptions allowed is negative`, "")

	// Who disrupts nobody needs no room.
	m.running("unready", "False")
	m.allow(`{"disruptionsAllowed":0,"currentHealthy":1,"desiredHealthy":3}`)
	want(m.evict("unready"), 429, violates, "The disruption budget b needs 3 healthy pods and has 1 currently")
	m.allow(`{"currentHealthy":3}`)
	want(m.evict("unready"), 201, "", "")
	m.must("POST", pods, `{"metadata":{"name":"pending","labels":{"app":"a"}},`+podSpec+`}`)
	want(m.evict("pending"), 201, "", "")
	m.running("last", "True")
	m.budget("c", `{}`)
	want(m.evict("last"), 500, "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.", "")
}

// TestEviction lets many at a budget at once: it is used up, and no more.
func TestEviction(t *testing.T) {
	m := newMember(t)
	const count = 6
	for i := range count {
		m.running(fmt.Sprint("p", i), "True")
	}
	m.budget("b", `{"observedGeneration":1,"currentHealthy":6,"desiredHealthy":2}`)
	// Many at once: as many go as the budget allows.
	const allowed = 4
	m.allow(fmt.Sprintf(`{"disruptionsAllowed":%d}`, allowed))
	m.must("PATCH", pods+"/p0", merged(`{"metadata":{"finalizers":["demo.io/hold"]}}`))
	var wait sync.WaitGroup
	codes := make([]int, count)
	for i := range count {
		wait.Go(func() { codes[i] = m.evict(fmt.Sprint("p", i)).code })
	}
	wait.Wait()
	gone := 0
	for _, c := range codes {
		if c == 201 {
			gone++
		} else if c != 429 {
			t.Errorf("codes %v", codes)
		}
	}
	b := m.must("GET", budgets+"/b", nil)
	if n, _ := object.Int(b.body, "status", "disruptionsAllowed"); gone != allowed || n != 0 || len(object.Map(b.body, "status", "disruptedPods")) != allowed {
		t.Errorf("%d of %d went: %s", gone, allowed, b.raw)
	}
	if codes[0] == 201 {
		if p := m.must("GET", pods+"/p0", nil); p.str("metadata", "deletionTimestamp") == "" || !strings.Contains(string(p.raw), `"EvictionByEvictionAPI"`) {
			t.Errorf("%s", p.raw)
		}
	}
}

// TestFinalize lets a namespace go that nobody empties any more.
func TestFinalize(t *testing.T) {
	m := newMember(t)
	const path = "/api/v1/namespaces/n"
	made := m.must("POST", "/api/v1/namespaces", `{"metadata":{"name":"n"},"spec":{"finalizers":["demo.io/mine"]}}`)
	m.must("POST", path+"/configmaps", `{"metadata":{"name":"held","finalizers":["demo.io/hold"]}}`)
	dying := m.must("DELETE", path, nil)
	if dying.str("status", "phase") != "Terminating" {
		t.Errorf("%s", dying.raw)
	}
	body := func(meta, spec string) string {
		return `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"n"` + meta + `},"spec":{` + spec + `}}`
	}
	m.refused(400, "BadRequest", "PUT", path+"/finalize", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"other"}}`)
	m.refused(409, "Conflict", "PUT", path+"/finalize", body(`,"resourceVersion":"1"`, ""))
	m.refused(409, "Conflict", "PUT", path+"/finalize", body(`,"uid":"another"`, ""))
	m.refused(405, "MethodNotAllowed", "POST", path+"/finalize", body("", ""))
	if a := m.must("PUT", path+"/finalize", body(`,"uid":"`+made.str("metadata", "uid")+`"`, `"finalizers":["demo.io/other"]`)); fmt.Sprint(object.Strings(a.body, "spec", "finalizers")) != "[demo.io/other]" {
		t.Errorf("%s", a.raw)
	}
	m.must("PUT", path+"/finalize", body("", ""))
	m.refused(404, "NotFound", "GET", path, nil)
}
