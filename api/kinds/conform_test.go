package kinds

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// TestConform shows what the comparison with Kubernetes' own types, in
// compat/kinds, goes through in full.
func TestConform(t *testing.T) {
	for _, c := range []struct{ kind, in, out, err string }{
		{kind: "Pod", in: `{}`, out: `{"metadata":{},"spec":{"containers":null},"status":{}}`},
		{kind: "Pod", in: `{"kind":"Pod","metadata":{"name":"a","labels":{},"other":1},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"0.5","memory":"1024Mi"}}}],"nodeName":null},"status":null}`,
			out: `{"kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"500m","memory":"1Gi"}}}]},"status":{}}`},
		{kind: "Pod", in: `{"status":{"startTime":"2020-01-01T02:00:00.5+02:00","conditions":[{"type":"Ready","status":"True"}]}}`,
			out: `{"metadata":{},"spec":{"containers":null},"status":{"startTime":"2020-01-01T00:00:00Z","conditions":[{"type":"Ready","status":"True","lastProbeTime":null,"lastTransitionTime":null}]}}`},
		{kind: "ConfigMap", in: `{"data":{"a":1}}`, err: "json: cannot unmarshal number into Go struct field ConfigMap.data of type string"},
		{kind: "Pod", in: `{"spec":{"containers":{}}}`, err: "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"},
		{kind: "Pod", in: `{"spec":{"priority":5000000000}}`, err: "json: cannot unmarshal number 5000000000 into Go struct field PodSpec.spec.priority of type int32"},
		{kind: "Pod", in: `{"metadata":{"creationTimestamp":"now"}}`, err: `parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006"`},
		{kind: "Secret", in: `{"data":{"a":"?"}}`, err: "illegal base64 data at input byte 0"},
		{kind: "Secret", in: `{"data":{"a":[104,105,null]}}`, out: `{"metadata":{},"data":{"a":"aGkA"}}`},
		{kind: "Secret", in: `{"data":{"a":[256]}}`, err: "json: cannot unmarshal number 256 into Go struct field Secret.data of type uint8"},
		{kind: "Secret", in: `{"data":{"a":true}}`, err: "json: cannot unmarshal bool into Go struct field Secret.data of type []uint8"},
		{kind: "Service", in: `{"spec":{"ports":[{"targetPort":true}]}}`, err: "json: cannot unmarshal bool into Go value of type string"},
	} {
		var in, want map[string]any
		d := json.NewDecoder(strings.NewReader(c.in))
		d.UseNumber()
		if err := d.Decode(&in); err != nil {
			t.Fatal(err)
		}
		err := Conform(Lookup("v1", c.kind), in)
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%s is refused with %v, want %s", c.in, err, c.err)
			}
			continue
		}
		if jsonErr := json.Unmarshal([]byte(c.out), &want); jsonErr != nil || err != nil || !reflect.DeepEqual(in, want) {
			t.Errorf("%s becomes %v, want %v (%v %v)", c.in, in, want, err, jsonErr)
		}
	}
}

// TestUnknown: a template's metadata is no object of its own; a claim's template is.
func TestUnknown(t *testing.T) {
	var o map[string]any
	if err := json.Unmarshal([]byte(`{"apiVersion":"apps/v1","kind":"StatefulSet","other":1,"spec":{"volumeClaimTemplates":[{"kind":"PersistentVolumeClaim"}],
		"template":{"kind":"Pod","spec":{"containers":[{"name":"c","immage":"x"}]}}}}`), &o); err != nil {
		t.Fatal(err)
	}
	have := Lookup("apps/v1", "StatefulSet").Unknown(o)
	if want := []string{"other", "spec.template.kind", "spec.template.spec.containers[0].immage"}; !reflect.DeepEqual(have, want) {
		t.Errorf("%q, want %q", have, want)
	}
}

func TestQuantities(t *testing.T) {
	for in, want := range map[string]string{"0.5": "500m", "1000m": "1", "1000": "1k", "1024Mi": "1Gi", "0.5Gi": "512Mi", "0.1Gi": "107374182400m", "12E2": "1200", "100e3": "100e3", "1e-3": "1e-3", "-5": "-5", "0.0000000001": "1n", "512": "512"} {
		v, form, err := ParseQuantity(in)
		if err != nil || FormatQuantity(v, form) != want {
			t.Errorf("%s is %s (%v), want %s", in, FormatQuantity(v, form), err, want)
		}
	}
	for _, in := range []string{"", "x", "1 Mi", "1mi", "1-", "--1", "1e999", "1e", strings.Repeat("1", 100)} {
		if v, _, err := ParseQuantity(in); err == nil {
			t.Errorf("%q is read as %v", in, v)
		}
	}
}
