package object

import (
	"reflect"
	"strings"
	"testing"
)

// TestMeta reads what lists and controllers need, whatever stands around it.
func TestMeta(t *testing.T) {
	for _, c := range []struct {
		metadata string
		want     Meta
	}{
		{`{}`, Meta{}},
		{`{"name":"a","namespace":"n","uid":"u-1","resourceVersion":"7","annotations":{"name":"no","labels":{"x":"y"}}}`, Meta{Name: "a", Namespace: "n", UID: "u-1"}},
		{` { "labels" : { "app" : "web" , "tier":"" } , "name":"\u0061\"" } `, Meta{Name: `a"`, Labels: "app\x00web\x00tier\x00\x00"}},
		{`{"labels":null,"ownerReferences":null,"finalizers":null,"uid":null}`, Meta{}},
		{`{"labels":{"a\u0000b":"1","c":"x\u0000y","d":"\u00e4"}}`, Meta{Labels: "d\x00ä\x00"}},
		{`{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p","uid":"1","controller":true,"blockOwnerDeletion":true}],"finalizers":["f"],"deletionTimestamp":"2026-01-02T03:04:05Z"}`,
			Meta{Owners: []Owner{{"v1", "Pod", "p", "1", true, true}}, Finalizers: []string{"f"}, DeletionTimestamp: "2026-01-02T03:04:05Z"}},
	} {
		got, err := ParseMeta([]byte(`{"spec":{"metadata":1},"metadata":` + c.metadata + `}`))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v (%v), want %+v", c.metadata, got, err, c.want)
		}
	}
	for _, bad := range []string{`{}`, `{"metadata":5}`, `{"metadata":{"name":5}}`, `{"metadata":{"labels":["a"]}}`, `{"metadata":{"labels":{"a":1}}}`, `{"metadata":{"finalizers":1}}`, `{"metadata":{"name":"a"`} {
		if m, err := ParseMeta([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, m)
		}
	}
}

func TestLabels(t *testing.T) {
	l, err := parseLabels([]byte(`{"app":"web","empty":"","web":"app"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, value string
		has         bool
	}{{"app", "web", true}, {"empty", "", true}, {"web", "app", true}, {"ap", "", false}, {"", "", false}, {"app\x00web", "", false}} {
		if v, ok := l.Lookup(c.name); v != c.value || ok != c.has || l.Get(c.name) != v || l.Has(c.name) != ok {
			t.Errorf("%q: %q, %v", c.name, v, ok)
		}
	}
	if Labels("").Has("") {
		t.Error("no labels have a label")
	}
}

// BenchmarkParseMeta reads the metadata of a usual pod.
func BenchmarkParseMeta(b *testing.B) {
	managed := strings.Repeat(`"f:x":{"f:y":{},"f:z":{}},`, 40)
	body := []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-7d4b9c-abcde","namespace":"default","uid":"0b1f5a3e-3c7c-4b7e-9d0a-5f1c2d3e4f50",` +
		`"labels":{"app":"web","tier":"front","pod-template-hash":"7d4b9c"},"managedFields":[{"fieldsV1":{` + managed + `"f:a":{}}}],` +
		`"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7d4b9c","uid":"1b1f5a3e-3c7c-4b7e-9d0a-5f1c2d3e4f50","controller":true}]},"spec":{}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseMeta(body); err != nil {
			b.Fatal(err)
		}
	}
}
