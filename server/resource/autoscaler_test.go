package resource_test

import (
	"strings"
	"testing"

	"github.com/keelson-io/keelson/server/resource/object"
)

const (
	autoscalers      = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
	olderAutoscalers = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
	autoscalerNote   = "autoscaling.alpha.kubernetes.io/"
	scaleTarget      = `"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"web"}`
)

// autoscaler has what v1 has no field for.
const autoscaler = `{"metadata":{"name":"a","annotations":{"mine":"1","autoscaling.alpha.kubernetes.io/metrics":"[]"}},"spec":{` + scaleTarget + `,"maxReplicas":5,
	"behavior":{"scaleDown":{"policies":[{"type":"Pods","value":1,"periodSeconds":60}]}},
	"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":60}}},
		{"type":"Resource","resource":{"name":"memory","target":{"type":"AverageValue","averageValue":"1Gi"}}},
		{"type":"ContainerResource","containerResource":{"name":"memory","container":"c","target":{"type":"Utilization","averageUtilization":70}}},
		{"type":"Pods","pods":{"metric":{"name":"rate","selector":{"matchLabels":{"a":"b"}}},"target":{"type":"AverageValue","averageValue":"10"}}},
		{"type":"Object","object":{"describedObject":{"apiVersion":"v1","kind":"Service","name":"s"},"metric":{"name":"hits"},"target":{"type":"Value","value":"2k"}}},
		{"type":"Object","object":{"describedObject":{"kind":"Service","name":"s"},"metric":{"name":"hits"},"target":{"type":"AverageValue","averageValue":"3"}}},
		{"type":"External","external":{"metric":{"name":"queue"},"target":{"type":"Value","value":"30"}}},
		{"type":"External","external":{"metric":{"name":"queue"},"target":{"type":"AverageValue","averageValue":"4"}}}]}}`

const autoscalerStatus = `{"status":{"currentReplicas":2,"desiredReplicas":3,
	"conditions":[{"type":"AbleToScale","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"R"}],
	"currentMetrics":[{"type":"Resource","resource":{"name":"cpu","current":{"averageUtilization":40,"averageValue":"400m"}}},
		{"type":"Pods","pods":{"metric":{"name":"rate"},"current":{"averageValue":"7"}}},
		{"type":"Object","object":{"describedObject":{"kind":"Service","name":"s"},"metric":{"name":"hits"},"current":{"value":"9"}}}]}}`

// TestAutoscalerVersions reads and writes one autoscaler in both versions.
func TestAutoscalerVersions(t *testing.T) {
	m := newMember(t)
	made := m.must("POST", autoscalers, autoscaler)
	if made.str2("spec", "minReplicas") != "1" || made.str("spec", "behavior", "scaleUp", "selectPolicy") != "Max" || len(object.Map(made.body, "metadata", "annotations")) != 1 {
		t.Errorf("defaults: %s", made.raw)
	}
	full := m.must("PATCH", autoscalers+"/a/status", merged(autoscalerStatus))
	older := m.must("GET", olderAutoscalers+"/a", nil)
	note := func(name string) string { return older.str("metadata", "annotations", autoscalerNote+name) }
	if older.str("apiVersion") != "autoscaling/v1" || older.str2("spec", "targetCPUUtilizationPercentage") != "60" || older.str2("status", "currentCPUUtilizationPercentage") != "40" ||
		object.Get(older.body, "spec", "metrics") != nil || object.Get(older.body, "status", "conditions") != nil || older.str("metadata", "annotations", "mine") != "1" {
		t.Errorf("%s", older.raw)
	}
	for name, want := range map[string]string{
		"metrics":         `{"resource":{"name":"memory","targetAverageValue":"1Gi"},"type":"Resource"}`,
		"current-metrics": `{"object":{"currentValue":"9","metricName":"hits","target":{"kind":"Service","name":"s"}},"type":"Object"}`,
		"conditions":      `"type":"AbleToScale"`,
		"behavior": `{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15},{"Type":"Percent","Value":100,"PeriodSeconds":15}],"Tolerance":null},` +
			`"ScaleDown":{"StabilizationWindowSeconds":null,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":1,"PeriodSeconds":60}],"Tolerance":null}}`,
	} {
		if !strings.Contains(note(name), want) {
			t.Errorf("%s is %s", name, note(name))
		}
	}
	// What was read as v1 is the same when it is written as that, but for the order of metrics.
	m.must("PUT", olderAutoscalers+"/a", older.body)
	back := m.must("GET", autoscalers+"/a", nil)
	metrics := object.List(full.body, "spec", "metrics")
	object.Set(full.body, append(metrics[1:], metrics[0]), "spec", "metrics")
	for _, path := range [][]string{{"spec"}, {"status"}, {"metadata", "annotations"}} {
		if have, want := object.Get(back.body, path...), object.Get(full.body, path...); !object.Equal(have, want) {
			t.Errorf("%v was\n%s, is\n%s", path, object.AppendValue(nil, want), object.AppendValue(nil, have))
		}
	}
	if again := m.must("PUT", olderAutoscalers+"/a", m.must("GET", olderAutoscalers+"/a", nil).body); again.rv() != back.rv() {
		t.Error("a write that changes nothing makes a revision")
	}
	// Neither part of an object comes with a write of the other.
	object.Remove(older.body, "metadata", "annotations")
	object.Set(older.body, int64(4), "spec", "maxReplicas")
	object.Remove(older.body, "metadata", "resourceVersion")
	m.must("PUT", olderAutoscalers+"/a", older.body)
	bare := m.must("GET", autoscalers+"/a", nil)
	if len(object.List(bare.body, "spec", "metrics")) != 1 || object.Get(bare.body, "spec", "behavior") != nil || !object.Equal(bare.body["status"], full.body["status"]) {
		t.Errorf("%s", bare.raw)
	}
	m.must("PATCH", olderAutoscalers+"/a/status", merged(`{"metadata":{"annotations":{"`+autoscalerNote+`conditions":"[]","`+autoscalerNote+`metrics":"[{\"type\":\"Pods\"}]"}},"status":{"desiredReplicas":4}}`))
	if a := m.must("GET", autoscalers+"/a", nil); a.str2("status", "desiredReplicas") != "4" || object.Get(a.body, "status", "conditions") != nil || !object.Equal(a.body["spec"], bare.body["spec"]) {
		t.Errorf("%s", a.raw)
	}
}

// TestOlderAutoscaler makes autoscalers of v1, some with annotations that say nothing.
func TestOlderAutoscaler(t *testing.T) {
	m := newMember(t)
	w := m.watch(olderAutoscalers + "?watch=true")
	made := m.must("POST", olderAutoscalers, `{"metadata":{"name":"a"},"spec":{`+scaleTarget+`,"maxReplicas":5}}`)
	if made.str("apiVersion") != "autoscaling/v1" || made.str2("spec", "targetCPUUtilizationPercentage") != "80" || made.str2("spec", "minReplicas") != "1" || made.str2("status", "currentReplicas") != "0" ||
		!strings.Contains(string(made.raw), `"f:targetCPUUtilizationPercentage":{}`) {
		t.Errorf("%s", made.raw)
	}
	if e := w.expect("ADDED a"); object.String(e.Object, "apiVersion") != "autoscaling/v1" {
		t.Errorf("%v", e.Object)
	}
	for _, note := range []string{`metrics":"[5]`, `metrics":"{}`, `metrics":"[],\"x\":1`, `metrics":"[{\"type\":\"Resource\",\"resource\":{\"name\":1}}]`, `behavior":"{\"ScaleUp\":5}`, `behavior":"5`,
		`conditions":"[{\"type\":\"A\"}]`, `current-metrics":"[{\"type\":\"Resource\"}]`} {
		a := m.must("POST", olderAutoscalers+"?dryRun=All", `{"metadata":{"name":"b","annotations":{"`+autoscalerNote+note+`"}},"spec":{`+scaleTarget+`,"maxReplicas":5}}`)
		if len(object.Map(a.body, "metadata", "annotations")) != 0 || a.str2("spec", "targetCPUUtilizationPercentage") != "80" {
			t.Errorf("%s makes %s", note, a.raw)
		}
	}
	table := m.must("GET", olderAutoscalers, nil, "Accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
	if !strings.Contains(string(table.raw), `"cells":["a","Deployment/web","cpu: <unknown>/80%","1",5,0,`) {
		t.Errorf("%s", table.raw)
	}
	m.refused(422, "Invalid", "POST", olderAutoscalers, `{"metadata":{"name":"c"},"spec":{`+scaleTarget+`}}`)
	group := m.must("GET", "/apis/autoscaling", nil)
	if group.str("preferredVersion", "version") != "v2" || len(object.List(group.body, "versions")) != 2 {
		t.Errorf("%s", group.raw)
	}
	if doc := m.must("GET", "/openapi/v3/apis/autoscaling/v1", nil); object.Get(doc.body, "components", "schemas", "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler") == nil {
		t.Errorf("%.200s", doc.raw)
	}
}

// TestVersionsOfFields: who wrote which field is known in all versions of a kind.
func TestVersionsOfFields(t *testing.T) {
	m := newMember(t)
	apply := func(path, manager, body string) answer {
		return m.do("PATCH", path+"/a?fieldManager="+manager, typed{"application/apply-patch+yaml", []byte(body)})
	}
	config := func(version, more string) string {
		return `{"apiVersion":"autoscaling/` + version + `","kind":"HorizontalPodAutoscaler","metadata":{"name":"a"},"spec":{` + scaleTarget + `,"maxReplicas":5` + more + `}}`
	}
	if a := apply(autoscalers, "newer", config("v2", `,"minReplicas":2,"behavior":{"scaleDown":{"selectPolicy":"Min"}}`)); a.code != 201 {
		t.Fatalf("%s", a.raw)
	}
	if a := apply(olderAutoscalers, "older", strings.Replace(config("v1", ""), `:5`, `:6`, 1)); a.code != 409 || !strings.Contains(a.str("message"), `conflict with "newer"`) {
		t.Errorf("%d %s", a.code, a.raw)
	}
	if a := apply(olderAutoscalers, "older", config("v1", `,"targetCPUUtilizationPercentage":50`)); a.code != 200 {
		t.Fatalf("%d %s", a.code, a.raw)
	}
	// The first manager still owns what it applied, and so can take it back.
	a := apply(autoscalers, "newer", config("v2", ""))
	if a.code != 200 || a.str2("spec", "minReplicas") != "1" {
		t.Errorf("%d %s", a.code, a.raw)
	}
	managers := ""
	for _, v := range object.List(a.body, "metadata", "managedFields") {
		managers += object.String(v.(object.Object), "manager") + " of " + object.String(v.(object.Object), "apiVersion") + ", "
	}
	if !strings.Contains(managers, "newer of autoscaling/v2, ") || !strings.Contains(managers, "older of autoscaling/v1, ") {
		t.Error(managers)
	}
}
