package resource_test

import (
	"maps"
	"testing"

	"github.com/keelson-io/keelson/server/resource/object"
)

const (
	pods        = "/api/v1/namespaces/default/pods"
	budgets     = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
	deployments = "/apis/apps/v1/namespaces/default/deployments"
)

const podSpec = `"spec":{"containers":[{"name":"c","image":"i:1"}]}`

// merged is the body of a merge patch.
func merged(body string) typed { return typed{"application/merge-patch+json", []byte(body)} }

// running makes a pod that runs and is ready, unless it is told otherwise.
func (m *member) running(name, ready string) answer {
	m.t.Helper()
	m.must("POST", pods, `{"metadata":{"name":"`+name+`","labels":{"app":"a"}},`+podSpec+`}`)
	return m.must("PATCH", pods+"/"+name+"/status", merged(`{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"`+ready+`"}]}}`))
}

// budget makes a budget of the pods of running, which allows that many disruptions.
func (m *member) budget(name, status string) {
	m.t.Helper()
	m.must("POST", budgets, `{"metadata":{"name":"`+name+`"},"spec":{"selector":{"matchLabels":{"app":"a"}}}}`)
	m.must("PATCH", budgets+"/"+name+"/status", merged(`{"status":`+status+`}`))
}

func eviction(pod, options string) string {
	if options != "" {
		options = `,"deleteOptions":` + options
	}
	return `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"` + pod + `"}` + options + `}`
}

// versions are the resource versions of all objects that a dry run could touch.
func (m *member) versions() map[string]string {
	m.t.Helper()
	out := map[string]string{}
	for _, path := range []string{pods, budgets, "/api/v1/namespaces", deployments, "/api/v1/configmaps", "/api/v1/events", "/api/v1/resourcequotas", "/apis/apps/v1/replicasets"} {
		for _, v := range object.List(m.must("GET", path, nil).body, "items") {
			o := v.(object.Object)
			out[path+"/"+object.String(o, "metadata", "namespace")+"/"+object.String(o, "metadata", "name")] = object.String(o, "metadata", "resourceVersion")
		}
	}
	return out
}

// TestDryRun does everything that writes, and nothing is written.
func TestDryRun(t *testing.T) {
	m := newMember(t)
	m.running("p", "True")
	m.budget("b", `{"disruptionsAllowed":2,"observedGeneration":1}`)
	m.must("POST", "/api/v1/namespaces", `{"metadata":{"name":"n"}}`)
	m.must("POST", "/api/v1/namespaces/n/configmaps", `{"metadata":{"name":"held","finalizers":["demo.io/hold"]}}`)
	m.must("DELETE", "/api/v1/namespaces/n", nil)
	m.must("POST", deployments, `{"metadata":{"name":"d"},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},`+podSpec+`}}}`)
	m.must("POST", configmaps, configmap("c"))
	m.must("POST", "/api/v1/namespaces/default/events", `{"metadata":{"name":"e"},"involvedObject":{"namespace":"default"}}`)
	m.must("POST", "/api/v1/namespaces/default/resourcequotas", `{"metadata":{"name":"q"},"spec":{"hard":{"configmaps":"9"}}}`)
	m.eventually("the quota is counted", func() bool {
		return m.must("GET", "/api/v1/namespaces/default/resourcequotas/q", nil).str("status", "used", "configmaps") == "1"
	})
	m.eventually("only what is held is left", func() bool {
		return len(m.must("GET", "/api/v1/namespaces/n/configmaps", nil).items()) == 1
	})
	before := m.versions()
	apply := func(body string) typed { return typed{"application/apply-patch+yaml", []byte(body)} }
	const dry = "?dryRun=All"
	finalize := `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"n"},"spec":{}}`
	scale := `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"d"},"spec":{"replicas":5}}`
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"POST", configmaps + dry, configmap("new")},
		{"POST", configmaps + dry, `{"metadata":{"generateName":"new-"}}`},
		{"PUT", configmaps + "/c" + dry, `{"metadata":{"name":"c"},"data":{"x":"y"}}`},
		{"PUT", "/api/v1/namespaces/default/events/new" + dry, `{"metadata":{"name":"new"},"involvedObject":{"namespace":"default"}}`},
		{"PATCH", configmaps + "/c" + dry, merged(`{"data":{"x":"y"}}`)},
		{"PATCH", configmaps + "/c" + dry + "&fieldManager=m", apply(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"x":"y"}}`)},
		{"PATCH", configmaps + "/new" + dry + "&fieldManager=m", apply(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"new"},"data":{"x":"y"}}`)},
		{"DELETE", configmaps + "/c" + dry, nil},
		{"DELETE", configmaps + "/c", `{"dryRun":["All"]}`},
		{"DELETE", configmaps + dry, nil},
		{"DELETE", configmaps, `{"dryRun":["All"]}`},
		{"PUT", deployments + "/d/scale" + dry, scale},
		{"PATCH", deployments + "/d/scale" + dry, merged(`{"spec":{"replicas":5}}`)},
		{"PATCH", deployments + "/d/status" + dry, merged(`{"status":{"replicas":5}}`)},
		{"PUT", pods + "/p/status" + dry, `{"metadata":{"name":"p"},"status":{"phase":"Failed"}}`},
		{"PUT", "/api/v1/namespaces/n/finalize" + dry, finalize},
		{"POST", pods + "/p/binding" + dry, `{"metadata":{"name":"p"},"target":{"kind":"Node","name":"node"}}`},
		{"POST", pods + "/p/eviction" + dry, eviction("p", "")},
		{"POST", pods + "/p/eviction", eviction("p", `{"dryRun":["All"]}`)},
		{"POST", pods + "/p/eviction" + dry, eviction("p", `{"dryRun":["All"]}`)},
	} {
		m.must(c.method, c.path, c.body)
		if after := m.versions(); !maps.Equal(before, after) {
			t.Fatalf("%s %s wrote: %v, was %v", c.method, c.path, after, before)
		}
	}
	for path, body := range map[string]any{
		configmaps + "?dryRun=Some":            configmap("new"),
		configmaps + "?dryRun=All&dryRun=Some": configmap("new"),
		pods + "/p/eviction?dryRun=Some":       eviction("p", ""),
		pods + "/p/eviction":                   eviction("p", `{"dryRun":["Some"]}`),
		pods + "/p/binding?dryRun=":            `{"metadata":{"name":"p"},"target":{"name":"node"}}`,
	} {
		m.refused(422, "Invalid", "POST", path, body)
	}
	m.refused(422, "Invalid", "DELETE", configmaps+"/c", `{"dryRun":["Some"]}`)
}
