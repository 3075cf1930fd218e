package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
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
	types := s.AllKnownTypes()
	for _, gvk := range slices.SortedFunc(maps.Keys(types), func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) }) {
		typ := types[gvk]
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

// TestConformUnions goes deeper into the types that stand for one of several, and
// into bytes, which Go also reads from a list of numbers.
func TestConformUnions(t *testing.T) {
	schemas := `{"type":"object","items":{"type":"string","pattern":"","items":{"title":"a"}},"additionalProperties":{"enum":[1],"maxLength":3},
		"dependencies":{"a":["b","c"],"b":{"type":"string","required":["a"]},"c":[]},
		"properties":{"a":{"items":[{"type":"string"},{"additionalProperties":true,"items":[]}]},"b":{"additionalProperties":false,"additionalItems":{"items":{}}},"c":{"additionalProperties":{}}}}`
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		gvk  schema.GroupVersionKind
		text string
	}{
		{schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}, `{"spec":{"versions":[{"schema":{"openAPIV3Schema":` + schemas + `}}]}}`},
		{schema.GroupVersionKind{Version: "v1", Kind: "Secret"}, `{"data":{"a":"YQ==","b":[1,2,255],"c":[],"d":[null,7]}}`},
	} {
		typ, m := mustType(t, c.gvk), kinds.Lookup(c.gvk.GroupVersion().String(), c.gvk.Kind)
		if !conforms(t, c.gvk, typ, m, []byte(c.text)) {
			t.Fatal(c.text, "is refused")
		}
		taken, refused := 0, 0
		for range 3000 {
			if conforms(t, c.gvk, typ, m, disturbed(r, []byte(c.text))) {
				taken++
			} else {
				refused++
			}
		}
		if taken < 1000 || refused < 10 {
			t.Errorf("%v: %d taken, %d refused", c.gvk, taken, refused)
		}
	}
}

// TestConformErrors compares the texts of errors.
func TestConformErrors(t *testing.T) {
	for _, c := range []struct {
		gvk    schema.GroupVersionKind
		before string
		values []string
		after  string
	}{
		{schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}, `{"spec":{"versions":[{"schema":{"openAPIV3Schema":`,
			[]string{`{"dependencies":{"a":[1]}}`, `{"items":{"type":5}}`, `{"items":[{"type":5}]}`, `{"items":[5]}`, `{"additionalProperties":5}`}, `}}]}}`},
		{schema.GroupVersionKind{Version: "v1", Kind: "Secret"}, `{"data":{"a":`,
			[]string{`[256]`, `[-1]`, `[1.5]`, `[1.0]`, `["a"]`, `[[]]`, `[1e2]`, `{}`, `true`, `0`, `"?"`}, `}}`},
	} {
		for _, v := range c.values {
			text := c.before + v + c.after
			theirs := kjson.UnmarshalCaseSensitivePreserveInts([]byte(text), reflect.New(mustType(t, c.gvk)).Interface())
			ours := kinds.Conform(kinds.Lookup(c.gvk.GroupVersion().String(), c.gvk.Kind), decoded(t, []byte(text)))
			if theirs == nil || ours == nil || theirs.Error() != ours.Error() {
				t.Errorf("%s\nours:   %v\ntheirs: %v", text, ours, theirs)
			}
		}
	}
}

func decoded(t *testing.T, text []byte) (o map[string]any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&o); err != nil {
		t.Fatal(err)
	}
	return o
}

// conforms fails the test unless both sides make the same of an object; it reports
// whether they took it.
func conforms(t *testing.T, gvk schema.GroupVersionKind, typ reflect.Type, m *kinds.Message, text []byte) bool {
	t.Helper()
	theirs := reflect.New(typ).Interface()
	theirErr := kjson.UnmarshalCaseSensitivePreserveInts(text, theirs)
	ours := decoded(t, text)
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
		for _, name := range slices.Sorted(maps.Keys(v)) {
			e := v[name]
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
