package main

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"

	"github.com/keelson-io/keelson/api/kinds"
)

// TestConform compares kinds.Conform with the types themselves, on objects in
// which values are missing, null, empty, unknown or of another type: what is read
// into a type and written again must be the same, and so must what is refused.
func TestConform(t *testing.T) {
	s, err := scheme()
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for gvk, typ := range s.AllKnownTypes() {
		m := kinds.Lookup(gvk.GroupVersion().String(), gvk.Kind)
		if gvk.Version == "__internal" || !isKind(typ) || strings.HasPrefix(gvk.Group, "meta") || m == nil {
			continue
		}
		for _, depth := range []int{1, 3, 4, 6, 8} {
			v := reflect.New(typ)
			fill(v.Elem(), depth, true)
			text, err := json.Marshal(v.Interface())
			if err != nil {
				t.Fatal(gvk, err)
			}
			for range 2 {
				if !conforms(t, gvk, typ, m, disturbed(r, text)) {
					refused++
				}
			}
		}
	}
	if refused < 100 {
		t.Errorf("only %d objects were refused", refused)
	}
}

// conforms fails the test unless both sides make the same of an object; it reports
// whether they took it.
func conforms(t *testing.T, gvk schema.GroupVersionKind, typ reflect.Type, m *kinds.Message, text []byte) bool {
	t.Helper()
	theirs := reflect.New(typ).Interface()
	theirErr := kjson.UnmarshalCaseSensitivePreserveInts(text, theirs)
	var ours map[string]any
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(&ours); err != nil {
		t.Fatal(err)
	}
	ourErr := kinds.Conform(m, ours)
	if (theirErr == nil) != (ourErr == nil) {
		t.Errorf("%v: %s\nours:   %v\ntheirs: %v", gvk, text, ourErr, theirErr)
	}
	if theirErr != nil || ourErr != nil {
		return false
	}
	have, err := json.Marshal(ours)
	if err != nil {
		t.Fatal(err)
	}
	want, err := json.Marshal(theirs)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if json.Unmarshal(have, &a) != nil || json.Unmarshal(want, &b) != nil {
		t.Fatal("no JSON")
	}
	for _, diff := range differences("", a, b, nil) {
		t.Errorf("%v: %s\n%s", gvk, text, diff)
	}
	return true
}

// disturbed is a JSON object in which some values were changed.
func disturbed(r *rand.Rand, text []byte) []byte {
	var o any
	if err := json.Unmarshal(text, &o); err != nil {
		panic(err)
	}
	disturb(r, o)
	out, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return out
}

func disturb(r *rand.Rand, v any) {
	switch v := v.(type) {
	case map[string]any:
		for name, e := range v {
			if strings.HasPrefix(name, "$") || name == "raw" {
				continue
			}
			switch r.IntN(60) {
			case 0, 1, 2:
				delete(v, name)
			case 3, 4:
				v[name] = nil
			case 5:
				v[name] = emptied(e)
			case 6:
				if r.IntN(20) == 0 {
					v[name] = []any{7, "text", true, map[string]any{"a": "b"}, 1.5, []any{}}[r.IntN(6)]
				}
			case 7:
				v["notAField"] = e
			default:
				disturb(r, e)
			}
		}
	case []any:
		for _, e := range v {
			disturb(r, e)
		}
	}
}

func emptied(v any) any {
	switch v.(type) {
	case map[string]any:
		return map[string]any{}
	case []any:
		return []any{}
	case string:
		return ""
	case bool:
		return false
	}
	return 0
}

func TestQuantities(t *testing.T) {
	m := kinds.Lookup("v1", "ResourceQuota")
	typ := mustType(t, schema.GroupVersionKind{Version: "v1", Kind: "ResourceQuota"})
	for _, q := range []string{`"0"`, `"0.5"`, `"1000m"`, `"1500m"`, `"1024Mi"`, `"1.5Gi"`, `"0.5Gi"`, `"0.1Gi"`, `"0.1Ki"`, `"1000"`, `"123456789"`, `"1e3"`, `"12E2"`, `"1e-3"`,
		`"-5"`, `"-0.0000000001"`, `"0.0000000001"`, `"100k"`, `"1E"`, `" 5 "`, `5`, `1.25`, `""`, `"x"`, `"1 Mi"`, `"1mi"`, `"1-"`, `"1.2.3"`, `"--1"`, `"1e"`, `"1Ei"`, `"1023"`, `"1023Ki"`, `"1048576Ki"`} {
		conforms(t, schema.GroupVersionKind{Kind: q}, typ, m, []byte(`{"spec":{"hard":{"cpu":`+q+`}}}`))
	}
}

func mustType(t *testing.T, gvk schema.GroupVersionKind) reflect.Type {
	t.Helper()
	s, err := scheme()
	if err != nil {
		t.Fatal(err)
	}
	return s.AllKnownTypes()[gvk]
}
